"""Checkpoints are whole or not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rl import driver
from rl.checkpoint import Checkpointer, CheckpointError
from rl.config import LoopConfig, SamplingConfig
from rl.phases import PhaseClock
from rl.sampling.gate import SignalGate
from tests.fakes.loop import make_world, play


async def save_learner(path: str) -> None:
    (Path(path) / "model").mkdir(parents=True)
    (Path(path) / "model" / "weights").write_bytes(b"w" * 1000)


async def disk_full(path: str) -> None:
    await save_learner(path)
    raise OSError(28, "No space left on device")


def save(checkpointer: Checkpointer, step: int, learner: Callable[[str], Awaitable[None]] = save_learner) -> Path:
    return asyncio.run(checkpointer.save(step, save_learner=learner, state={"step": step}))


def refuse(message: str) -> None:
    raise AssertionError(f"unexpected warning: {message}")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep=2)
    assert checkpointer.latest(refuse) is None
    for step in (5, 10, 15):
        save(checkpointer, step)
    assert names(tmp_path) == ["step-000010", "step-000015"]
    found = checkpointer.latest(refuse)
    assert found is not None and found.step == 15 and found.state == {"format": 1, "step": 15}
    assert (found.learner_path / "model" / "weights").stat().st_size == 1000


@pytest.mark.parametrize("damage", ["cut", "missing", "flipped", "unsealed", "state"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(damage: str, tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep=2)
    save(checkpointer, 5)
    path = save(checkpointer, 10)
    weights = path / "learner" / "model" / "weights"
    match damage:
        case "cut":
            weights.write_bytes(b"w" * 999)
        case "missing":
            weights.unlink()
        case "flipped":
            weights.write_bytes(b"w" * 999 + b"v")
        case "unsealed":
            (path / "seal.json").write_text('{"fil')
        case "state":
            (path / "driver_state.json").write_text("{}")
    warnings: list[str] = []
    found = checkpointer.latest(warnings.append)
    assert found is not None and found.step == 5
    assert len(warnings) == 1 and "step-000010 is damaged and passed over" in warnings[0]
    resumed = Checkpointer(tmp_path, keep=1)
    save(resumed, 8)
    assert names(tmp_path) == ["step-000008", "step-000010"], "the damaged one must not count as a newer one"
    save(resumed, 10)
    again = resumed.latest(refuse)
    assert again is not None and again.step == 10 and names(tmp_path) == ["step-000010"]


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep=1)
    save(checkpointer, 5)
    with pytest.raises(CheckpointError, match=r"step 10 .*MiB free.*No space left.*make room"):
        save(checkpointer, 10, disk_full)
    assert names(tmp_path) == ["step-000005"]
    assert checkpointer.latest(refuse) is not None


def test_a_half_written_checkpoint_is_ignored_and_overwritten(tmp_path: Path) -> None:
    (tmp_path / "step-000005.tmp" / "learner" / "model").mkdir(parents=True)  # left by a kill
    checkpointer = Checkpointer(tmp_path, keep=1)
    assert checkpointer.latest(refuse) is None
    save(checkpointer, 5)
    assert names(tmp_path) == ["step-000005"]


def test_state_that_is_not_json_is_refused_at_once(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep=1)
    with pytest.raises(CheckpointError, match="not JSON compliant"):
        asyncio.run(checkpointer.save(5, save_learner=save_learner, state={"loss": float("nan")}))
    assert names(tmp_path) == []


async def save_scored(checkpointer: Checkpointer, step: int, score: float | None) -> None:
    async def save_learner(path: str) -> None:
        Path(path).mkdir()

    await checkpointer.save(step, save_learner=save_learner, state={"step": step}, score=score)


async def test_the_best_are_kept_beside_the_newest(tmp_path: Path) -> None:
    """Two newest and two best. Step 2 leaves when 4 and 5 are better; 3 has no score and is kept by age alone."""
    checkpointer = Checkpointer(tmp_path, keep=2, keep_best=2)
    scores = {1: 0.1, 2: 0.5, 3: None, 4: 0.9, 5: 0.7, 6: 0.2, 7: 0.3, 8: 0.0}
    kept = {}
    for step, score in scores.items():
        await save_scored(checkpointer, step, score)
        kept[step] = sorted(int(path.name.removeprefix("step-")) for path in tmp_path.iterdir())
    assert kept[3] == [1, 2, 3]
    assert kept[5] == [1, 2, 4, 5]
    assert kept[6] == [2, 4, 5, 6], "4 is old now and among the best"
    assert kept[7] == [4, 5, 6, 7] and kept[8] == [4, 5, 7, 8]


async def test_without_keep_best_a_score_changes_nothing(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, keep=1)
    for step, score in ((1, 0.9), (2, 0.1)):
        await save_scored(checkpointer, step, score)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]


@pytest.mark.parametrize(("name", "best"), [("train/accuracy", 5), ("-time/step_s", 6)])
def test_a_run_scores_its_checkpoints_by_the_metric_of_their_step(tmp_path: Path, name: str, best: int) -> None:
    """Accuracy is best at step 5; the step that takes least time is 6. The last step is kept by age."""
    world = make_world(
        tmp_path, num_steps=8, max_lag=0, checkpoint_every=1, keep_checkpoints=1, keep_best=1, best_metric=name
    )
    world.judge.verdict = lambda job, sibling: float(sibling == 0 or world.run.step + 1 == 5)
    world.run.gate = SignalGate(SamplingConfig(judge_on="off"))
    world.learner.delay = lambda: 0.1 if world.run.step + 1 == 6 else 5.0

    async def train() -> None:
        world.run.clock = PhaseClock(asyncio.get_running_loop().time)
        await driver.train(world.run)

    play(train())
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"step-{best:06d}", "step-000008"]


def test_best_needs_a_metric() -> None:
    with pytest.raises(ValueError, match="keep_best and best_metric go together"):
        LoopConfig(num_steps=1, groups_per_step=1, keep_best=2)
