"""A loss of one's own: loaded in the learner's process, called with its settings, refused where it cannot be found."""

import pickle
from pathlib import Path

import pytest

from launch import build, plugins, recipe
from rl.losses.config import Cispo, PluginLoss
from rl.losses.objective import Objective
from tests.fakes.losses import loss_inputs

PAGE = Path(__file__).parents[3] / "docs/choose_an_objective.md"
RECIPE = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"


@pytest.fixture
def from_the_page(tmp_path: Path) -> str:
    code = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_loss.py").write_text(code)
    return f"{tmp_path}/my_loss.py:clipped_reinforce"


def test_the_loss_of_the_page_is_cispo_without_its_lower_end(from_the_page: str) -> None:
    config = recipe.load(RECIPE, ["loss.type=plugin", f"loss.name={from_the_page}", "loss.params={ max_ratio = 1.1 }"])
    load = pickle.loads(pickle.dumps(build.plugin_loss(config)))  # as it travels to a rank
    rows = {"anchor": [[-0.5, -1.0, -0.2]], "log_ratios": [[0.3, -0.1, 0.05]], "advantages": [[1.0, 1.0, -1.0]]}
    ours = Objective(config.loss, load())(loss_inputs(config.loss, **rows))
    theirs = Objective(Cispo(max_ratio=1.1))(loss_inputs(Cispo(), **rows))
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), abs=1e-7)


def test_a_loss_of_whole_sequences_refuses_advantages_of_single_tokens(from_the_page: str) -> None:
    config = PluginLoss(name=from_the_page, params={"max_ratio": 2.0}, whole_sequences=True)
    rows = {"anchor": [[-0.5, -1.0]], "log_ratios": [[0.3, -0.1]], "advantages": [[1.0, 0.5]]}
    objective = Objective(config, plugins.load("ponder.losses", from_the_page))
    with pytest.raises(ValueError, match="takes one advantage a sequence"):
        objective(loss_inputs(config, **rows))


def test_a_loss_that_cannot_be_found_is_said_before_anything_starts() -> None:
    config = recipe.load(RECIPE, ["loss.type=plugin", "loss.name=ppo_clop"])
    with pytest.raises(plugins.PluginError, match="did you mean 'ppo_clip'"):
        build.plugin_loss(config)
    with pytest.raises(ValueError, match="has no function of its own"):
        Objective(PluginLoss(name="x"))
