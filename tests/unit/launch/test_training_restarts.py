"""Which failures bring training back, how often, and what the last one says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from launch import training
from rl.learner.errors import LearnerDiedError, NonFiniteError, ReferenceDiedError
from rl.run import RunFailedError


@dataclass(frozen=True)
class Services:
    num_restarts: int = 0


@dataclass
class Story:
    """What each attempt ends with; None is the end of training."""

    ends: list[BaseException | None]
    attempts: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    async def play(self, monkeypatch: pytest.MonkeyPatch, *, max_restarts: int) -> None:
        async def attempt(job: Any, services: Services, tasks: Any) -> None:
            self.attempts.append(services.num_restarts)
            if (end := self.ends.pop(0)) is not None:
                raise end

        async def revived(job: Any, services: Services) -> Services:
            return replace(services, num_restarts=services.num_restarts + 1)

        monkeypatch.setattr(training, "_attempt", attempt)
        monkeypatch.setattr(training, "_revived", revived)
        job: Any = SimpleNamespace(
            config=SimpleNamespace(loop=SimpleNamespace(max_restarts=max_restarts)),
            console=SimpleNamespace(warning=self.told.append),
        )
        services: Any = Services()
        tasks: Any = None
        await training.train(job, services, tasks)


def failed(cause: Exception) -> RunFailedError:
    error = RunFailedError(f"run failed in learn: {cause}")
    error.__cause__ = cause
    return error


async def test_deaths_of_learner_and_reference_bring_training_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [failed(LearnerDiedError("rank 1 died")), ReferenceDiedError("gone"), None]  # the second while resuming
    story = Story(ends)
    await story.play(monkeypatch, max_restarts=2)
    assert story.attempts == [0, 1, 2]
    assert [line.rpartition("; ")[2] for line in story.told] == [
        "of loop.max_restarts = 2, 1 left",
        "of loop.max_restarts = 2, 0 left",
    ]
    assert story.told[0].startswith("rank 1 died. All ranks are started again")


async def test_one_death_too_many_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story([failed(LearnerDiedError("first")), failed(LearnerDiedError("second"))])
    with pytest.raises(RunFailedError, match="second") as caught:
        await story.play(monkeypatch, max_restarts=1)
    assert caught.value.__notes__ == ["training was brought back 1 times: loop.max_restarts = 1"]
    assert story.attempts == [0, 1]


@pytest.mark.parametrize("cause", [NonFiniteError("nan"), RuntimeError("an engine died")])
async def test_any_other_failure_would_only_come_again(monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    story = Story([failed(cause)])
    with pytest.raises(RunFailedError):
        await story.play(monkeypatch, max_restarts=5)
    assert story.attempts == [0] and story.told == []
