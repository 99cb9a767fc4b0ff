"""Model directories that ponder did not make: one that works, and ones that cannot, each with one clear error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from launch.config import PathModel
from launch.preparation import make_model
from rollout.config import FormatConfig
from tests.fakes.loop import make_tasks
from tests.tiny_model import build_tiny_model

ROOT = Path(__file__).parents[2]
RECIPE = "tests/invariant/miniature.toml"
TURN = "{{ '<' + m.role + '>' + CONTENT + '\\n' }}"
TEMPLATE = "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
KEEPS = TEMPLATE.replace("CONTENT", "m.content")
DROPS = TEMPLATE.replace("CONTENT", "m.content.split('</think>')[-1]")

pytestmark = pytest.mark.stack


def ponder(*words: str, settings: Sequence[str]) -> subprocess.CompletedProcess[str]:
    options = [word for setting in settings for word in ("--set", setting)]
    return subprocess.run(
        [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", *words, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    )


def test_a_chat_template_that_drops_the_thinking_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", tied=False, chat_template=DROPS)
    settings = [f"run.dir={tmp_path}", "run.name=bad", "model.type=path", f"model.path={model}", "sft=none"]
    done = ponder("train", RECIPE, settings=settings)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"error: the chat template of {model} drops the thinking of assistant messages; give the model a template "
        "that keeps it, or set format.use_chat_template = false -- "
    )
    assert "start services" not in done.stdout
    assert [path.name for path in (tmp_path / "bad").iterdir() if "model" in path.name] == []


def test_a_foreign_model_with_its_own_template_is_evaluated(tmp_path: Path) -> None:
    """No thinking marks in its vocabulary, tied, a template of its own; the recipe's model has none of that."""
    marks = ("<bos>", "<eos>", "<pad>")
    model = build_tiny_model(tmp_path / "model", tied=True, special=marks, chat_template=KEEPS)
    settings = [
        f"run.dir={tmp_path}",
        "run.name=foreign",
        "evaluate.num_tasks=4",
        "budgets.max_prompt_tokens=64",
        "model.max_positions=128",
        "rollout.max_model_len=128",
    ]
    done = ponder("eval", RECIPE, "--model", str(model), settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "foreign-eval" / "evaluation.json").read_text())
    assert {(cell["effort"], cell["mode"]) for cell in result["cells"]} == {
        (effort, mode) for effort in ("low", "high") for mode in ("sampled", "greedy")
    }
    assert all(cell["num_judged"] == cell["num_tasks"] == 4 for cell in result["cells"])
    assert "could not be judged" not in done.stdout


def test_prompts_that_never_fit_their_limit_are_refused(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", tied=False, chat_template=KEEPS)
    with pytest.raises(
        ValueError, match=r"budgets\.max_prompt_tokens = 20 is less than every prompt .* 38 to 43 tokens; raise it"
    ):
        make_model(
            PathModel(path=str(model)),
            str(tmp_path / "out"),
            format=FormatConfig(),
            tasks=make_tasks(4),
            instructions=["think", "think long"],
            num_prompts=0,
            max_prompt_tokens=20,
            seed=0,
        )
    assert not (tmp_path / "out").exists()
