"""What joins the fresh samples, as a recipe says it: defaults, unions, and the rules between sections."""

from pathlib import Path

import pytest

from launch import batch_policies, recipe
from launch.recipe import RecipeError
from rl.losses.estimator_config import StreamEstimators
from rl.replay.config import RoRecomp, ShareReplay

QUICKSTART = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"


def test_nothing_joins_unless_it_is_named() -> None:
    config = recipe.load(QUICKSTART)
    assert config.mix.replay is None and config.mix.reweight is None
    assert batch_policies.stream_estimators(config) == StreamEstimators()


def test_replay_by_name() -> None:
    share = recipe.load(QUICKSTART, ["mix.replay.type=share", "mix.replay.estimator.mask.drift=0.05"])
    assert isinstance(share.mix.replay, ShareReplay)
    estimator = batch_policies.stream_estimators(share).replay
    assert estimator.mask.drift == 0.05
    assert estimator.denominator == "sampler" and estimator.mask.band_high == 5.0, "one setting changes no other"
    recomposed = recipe.load(QUICKSTART, ["mix.replay.type=rorecomp", "mix.replay.alpha=0.25"])
    assert isinstance(recomposed.mix.replay, RoRecomp) and recomposed.mix.replay.estimator.max_weight == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["mix.replay.type=share", "learner.zero_stage=3"], "set zero_stage = 2 or watch_every = 0"),
        (["mix.replay.type=share", "loss.entropy.type=top_fraction"], "leave these out or set watch_every = 0"),
        (["mix.replay.type=rorecomp", "mix.replay.p_start=0.1"], "compensation fades"),
        (["mix.replay.type=share", "mix.replay.share=0.9"], "0.5"),
    ],
)
def test_rules(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe.load(QUICKSTART, settings)


def test_equal_tokenizers_have_one_fingerprint(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(text)
    a, b, c = (batch_policies.tokenizer_fingerprint(tmp_path / name) for name in "abc")
    assert a == b != c
