"""The verifier and the step-scoring service on a real Ray: same verdicts as in process, and life after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from prm.actor import StepScorerClient, start_step_scorer
from prm.config import ExactPrmConfig, NoPrmConfig, SeparatorSplitter
from rewards.actor import JudgeClient, start_judge
from rewards.config import ComponentConfig, RewardsConfig, SandboxConfig
from rewards.judge import Judge
from rewards.outcome import samples_of
from rewards.sandbox import WorkerPool
from rewards.verifier import BUILT_IN_VERIFIERS
from rollout.schema import Status
from tests.fakes.rewards import group, task

pytestmark = pytest.mark.stack
VERIFIERS = {**BUILT_IN_VERIFIERS, "act": "tests.fakes.rewards:act"}
CONFIG = RewardsConfig(sandbox=SandboxConfig(max_seconds=0.7, max_memory_mib=1536), deadline_s=10)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    os.environ["PYTHONPATH"] = os.getcwd()  # actors import the tests' own verifiers
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()
    del os.environ["PYTHONPATH"]


@pytest.fixture(scope="module")
def judge(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgeClient]:
    judge = start_judge(CONFIG, VERIFIERS, tmp_path_factory.mktemp("failures"))
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def scorer(cluster: None) -> Iterator[StepScorerClient]:
    make_pool = functools.partial(WorkerPool, num_workers=1, max_seconds=3, max_memory_mib=1024)
    scorer = start_step_scorer(ExactPrmConfig(chain=False, splitter=SeparatorSplitter()), make_pool)
    assert isinstance(scorer, StepScorerClient)
    yield scorer
    scorer.close()


def descendants(mark: str) -> list[psutil.Process]:
    """Living processes below this one whose command line holds `mark`."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended, or is a zombie, while we looked
            if mark in " ".join(child.cmdline()):
                found.append(child)
    return found


def sandbox_workers() -> list[psutil.Process]:
    return descendants("rewards.worker")


async def test_misdeeds_are_unjudged_and_their_siblings_judged(judge: JudgeClient) -> None:
    foreign = group([("", a) for a in ("7", "8", "exit", "hang", "nan")], of=task(verifier="act"))
    started = time.monotonic()
    outcomes, quick = await asyncio.gather(judge.judge(foreign), judge.judge(group([("", "7"), ("", None)])))
    assert [outcome.status for outcome in outcomes] == [
        Status.JUDGED, Status.JUDGED, Status.CRASH, Status.TIMEOUT, Status.CRASH
    ]  # fmt: skip
    assert [outcome.score for outcome in outcomes[:2]] == [1.0, 0.0]
    assert [outcome.status for outcome in quick] == [Status.JUDGED, Status.UNPARSEABLE_ANSWER]
    assert time.monotonic() - started < 15
    metrics = {metric.name: metric.value for metric in judge.metrics()}
    assert metrics["judge/status/timeout"] == pytest.approx(1 / 7)
    assert metrics["judge/quick"] == 2 and metrics["judge/worker_timeouts"] >= 1


async def test_a_killed_worker_is_replaced(judge: JudgeClient) -> None:
    attempts = group([("", "7")], of=task(verifier="act"))
    await judge.judge(attempts)
    for worker in sandbox_workers():
        worker.kill()
    (outcome,) = await judge.judge(attempts)
    assert outcome.score == 1.0


async def test_a_killed_service_is_unjudged_and_then_there_again(judge: JudgeClient) -> None:
    hanging = group([("", "hang")], of=task(verifier="act"))
    waiting = asyncio.ensure_future(judge.judge(hanging))
    await asyncio.sleep(0.2)
    (actor,) = descendants("_JudgeActor")
    workers = sandbox_workers()
    actor.kill()
    (outcome,) = await waiting
    assert outcome.status is Status.CRASH
    psutil.wait_procs(workers, timeout=5)
    assert not any(worker.is_running() for worker in workers)
    deadline = time.monotonic() + 25
    while (await judge.judge(group([("", "7")], of=task(verifier="act"))))[0].score != 1.0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


def test_bad_references_are_named_and_bad_names_are_errors(judge: JudgeClient, tmp_path: Path) -> None:
    good, bad = task(answer="3/4", verifier="math"), task(answer=r"\frac{1}{", verifier="math")
    ((quarantined, reason),) = judge.check_references([good, bad])
    assert quarantined is bad and "cannot be parsed" in reason
    with pytest.raises(ValueError, match="no verifier is registered as 'nobody'"):
        judge.check_references([task(verifier="nobody")])
    with pytest.raises(ValueError, match=r"registered are: act, .*exact"):
        start_judge(RewardsConfig(components={"a": ComponentConfig(verifier="x")}), VERIFIERS, tmp_path)


async def test_mathematics_has_the_same_verdicts_through_the_actor_as_through_a_thread(judge: JudgeClient) -> None:
    answers = ["x^2-1", "x^2", r"9^{9^9}", "", r"\\int x dx", "(x+1)(x-1)", "(((x+1)^{999})^{999})^{999}", "-1+x^2"]
    boxed = [("", rf"\boxed{{{answer}}}") for answer in answers]
    of = task(answer="(x-1)(x+1)", verifier="math")
    there = await judge.judge(group(boxed, of=of))
    local = Judge(CONFIG, VERIFIERS)
    try:
        here = await asyncio.to_thread(lambda: asyncio.run(local.judge(samples_of(group(boxed, of=of)))))
    finally:
        local.close()
    assert list(there) == here
    assert [outcome.score for outcome in there] == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]


async def test_step_scores_here_and_there_are_the_same(scorer: StepScorerClient) -> None:
    here = await scorer.score(group([("3+4=7;3+4=8;so", "7"), ("", "7")]))
    there = await scorer.score(group([("3+4=7;3+4=8;so", "7"), ("sqrt(16) = 4; sqrt(16) = 5", "7")]))
    assert here[0] is not None and here[1] is not None and there[0] is not None and there[1] is not None
    np.testing.assert_array_equal(here[0].scores, [1, 0, np.nan])
    np.testing.assert_array_equal(there[0].scores, here[0].scores)
    np.testing.assert_array_equal(there[1].scores, [1, 0])
    assert here[1].spans == () and here[0].spans == there[0].spans
    metrics = {metric.name: metric.value for metric in scorer.metrics()}
    assert metrics["prm/remote_groups"] == 1 and metrics["prm/failed"] == 0


async def test_without_a_process_reward_there_are_no_scores() -> None:
    scorer = start_step_scorer(NoPrmConfig(), lambda: WorkerPool(num_workers=1, max_seconds=1, max_memory_mib=512))
    assert await scorer.score(group([("3+4=7", "7")])) == (None,)


def test_closing_leaves_no_worker(judge: JudgeClient, scorer: StepScorerClient) -> None:
    """Last in this file: it ends the shared services."""
    workers = sandbox_workers()
    assert workers
    judge.close()
    scorer.close()
    psutil.wait_procs(workers, timeout=5)
    assert sandbox_workers() == []
