"""Checkpoints are whole or not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rl.checkpoint import Checkpointer, CheckpointError


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
