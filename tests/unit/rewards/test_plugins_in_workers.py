"""Reward functions of a user's own files, run as the service runs them: in killable workers."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rewards.config import RewardsConfig
from rewards.judge import Judge
from rewards.outcome import Sample
from rewards.plugins.runner import PluginLoadError
from rollout.schema import Outcome, Status
from tests.fakes.rewards import sample

Run = Callable[..., Any]


@pytest.fixture
def judge_of(tmp_path: Path) -> Iterator[Callable[..., Judge]]:
    """Makes a judge whose verifier "mine" is a function of the given source."""
    judges: list[Judge] = []

    def make(source: str, function: str = "f", **settings: Any) -> Judge:
        path = tmp_path / f"plugin_{len(judges)}.py"
        path.write_text(textwrap.dedent(source))
        sandbox = {"max_seconds": 0.7, "max_workers": 1}
        config = RewardsConfig.model_validate({"sandbox": sandbox, "plugins": {"mine": settings}})
        judges.append(Judge(config, {"mine": f"{path}:{function}"}))
        return judges[-1]

    yield make
    for judge in judges:
        judge.close()


def asked(*answers: str, **changes: Any) -> list[Sample]:
    return [sample(answer, verifier="mine", sibling=i, **changes) for i, answer in enumerate(answers)]


def scores(outcomes: Sequence[Outcome]) -> list[float | None]:
    return [outcome.score for outcome in outcomes]


async def test_a_file_may_import_its_neighbor_and_declare_what_it_needs(
    judge_of: Callable[..., Judge], tmp_path: Path
) -> None:
    (tmp_path / "neighbor.py").write_text("RIGHT = '7'\n")
    judge = judge_of("""
        import neighbor
        from rewards.plugins.contract import declare

        @declare(reads_thinking=False, max_seconds=5)
        def f(sample):
            assert sample.thinking == "" and sample.text == sample.answer
            return sample.answer == neighbor.RIGHT
    """)
    samples = asked("7", "8", "7", thinking="7", text="<think>7</think>")
    assert scores(await judge.judge(samples)) == [1.0, 0.0, 1.0]
    assert judge.adapters() == {"mine": "native"}
    # Deterministic and blind to the thinking: equal answers are asked once, and remembered.
    assert judge.stats()["sandboxed"] == 2
    await judge.judge(samples)
    assert judge.stats()["sandboxed"] == 2


async def test_a_group_function_sees_all_siblings_of_each_group(judge_of: Callable[..., Judge]) -> None:
    judge = judge_of("""
        def f(group):
            return [len(group) / 4 for sample in group]
    """)
    samples = asked("a", "b", group_id="one") + asked("c", group_id="two") + asked("d", group_id="one")
    assert scores(await judge.judge(samples)) == [0.75, 0.75, 0.25, 0.75]


async def test_one_bad_sample_does_not_unjudge_its_batch(judge_of: Callable[..., Judge]) -> None:
    judge = judge_of("""
        import os, time
        def f(completions, **kwargs):
            if "die" in completions:
                os._exit(1)
            if "hang" in completions:
                time.sleep(60)
            return [float(len(completions) > 0) for c in completions]
    """)
    outcomes = await judge.judge(asked("a", "die", "b", "hang"))
    assert scores(outcomes) == [1.0, None, 1.0, None]
    assert [outcomes[1].status, outcomes[3].status] == [Status.CRASH, Status.TIMEOUT]
    assert all("plugin 'mine'" in outcome.reason for outcome in (outcomes[1], outcomes[3]))


async def test_an_exception_names_its_type_and_line(judge_of: Callable[..., Judge]) -> None:
    judge = judge_of("def f(solution_str, ground_truth):\n    return {}[solution_str]\n")
    (outcome,) = await judge.judge(asked("7"))
    assert outcome.status is Status.CRASH
    assert "KeyError: '7' (plugin_0.py:2)" in outcome.reason


async def test_async_calls_wait_together_and_each_has_its_own_deadline(judge_of: Callable[..., Judge]) -> None:
    judge = judge_of("""
        import asyncio
        async def f(sample):
            if sample.answer == "raise":
                raise OSError("no route")
            await asyncio.sleep(60 if sample.answer == "hang" else 0.3)
            return 1.0
    """)
    await judge.judge(asked("warm"))
    started = time.monotonic()
    outcomes = await judge.judge(asked(*"abcdefgh", "hang", "raise"))
    assert scores(outcomes) == [1.0] * 8 + [None, None]
    assert [outcome.status for outcome in outcomes[8:]] == [Status.TIMEOUT, Status.CRASH]
    assert time.monotonic() - started < 2.4  # eight in turn would take 2.4 s, and the one that hangs 0.7 s more


async def test_an_async_plugin_that_blocks_its_loop_is_killed(judge_of: Callable[..., Judge]) -> None:
    judge = judge_of("""
        import time
        async def f(sample):
            if sample.answer == "block":
                time.sleep(60)
            return 1.0
    """)
    outcomes = await judge.judge(asked("a", "block"))
    assert scores(outcomes) == [1.0, None] and outcomes[1].status is Status.TIMEOUT


async def test_the_adapter_and_the_range_can_be_set(judge_of: Callable[..., Judge]) -> None:
    source = "def f(completions, answers):\n    return [2.0 for _ in completions]\n"
    with pytest.raises(PluginLoadError, match=r"as trl or as verifiers; name the right one: adapter = 'trl'"):
        await judge_of(source).check_references(asked("7"))
    assert scores(await judge_of(source, adapter="verifiers", range=(0, 4)).judge(asked("7"))) == [0.5]
    (outcome,) = await judge_of(source, adapter="verifiers").judge(asked("7"))
    assert outcome.score is None and "set `range` under rewards.plugins" in outcome.reason


async def test_a_plugin_that_cannot_be_loaded_says_why_each_time(judge_of: Callable[..., Judge]) -> None:
    judge = judge_of("import no_such_library\ndef f(sample): ...\n")
    for _ in range(2):
        (outcome,) = await judge.judge(asked("7"))
        assert "no_such_library" in outcome.reason and "cannot be used" in outcome.reason
