"""Reward functions that misbehave in every way we know of: the run goes on, and the log says whose fault it was."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewards.actor import JudgeClient, start_judge
from rewards.config import RewardsConfig
from rewards.judge import Judge
from rewards.outcome import Sample
from rewards.quota import QuotaError
from rewards.workbench.cases import read_cases
from rollout.schema import Outcome, Status
from tests.fakes.rewards import group, sample, task

MISDEEDS = '''
import os, subprocess, sys, threading, time
import numpy as np

def act(sample):
    """Do what the answer says; the right answer is 7."""
    answer = sample.answer
    if answer == "raise": raise KeyError("no such key")
    if answer == "quit": sys.exit(0)
    if answer == "hang": time.sleep(60)
    if answer == "spin":
        while True: pass
    if answer == "power": return 9 ** 9 ** 9 ** 9          # holds the interpreter's lock
    if answer == "die": os.kill(os.getpid(), 9)
    if answer == "memory": return len(bytearray(8 << 30))
    if answer == "recurse": return act(sample)  if len(answer) else 0
    if answer == "nan": return float("nan")
    if answer == "none": return None
    if answer == "text": return "1.0"
    if answer == "list": return [1.0]
    if answer == "beyond": return 17
    if answer == "complex": return 1j
    if answer == "gigabyte":
        for _ in range(1024): os.write(1, b"x" * (1 << 20))
        return 1.0
    if answer == "gigabyte of errors":
        for _ in range(1024): os.write(2, b"x" * (1 << 20))
        return 1.0
    if answer == "close": os.closerange(3, 256)
    if answer == "thread":
        threading.Thread(target=time.sleep, args=(60,), daemon=False).start()
    if answer == "child": subprocess.Popen(["sleep", "61"])
    if answer == "numpy": return np.float32(0.5)
    if answer == "bool": return np.bool_(True)
    if answer == "array": return np.array([0.5])
    if answer == "two": return np.array([0.5, 0.5])
    return float(answer == sample.reference)

def wrong_length(samples):
    return [1.0] * (len(samples) + 1)

def always_raises(sample):
    raise RuntimeError("out of order")
'''
JUDGED = {
    "7": 1.0, "8": 0.0, "numpy": 0.5, "bool": 1.0, "array": 0.5, "gigabyte": 1.0, "gigabyte of errors": 1.0,
    "thread": 0.0, "child": 0.0,
}  # fmt: skip
FAILED = {
    "raise": (Status.CRASH, "KeyError: 'no such key' (misdeeds.py:"), "quit": (Status.CRASH, "SystemExit"),
    "hang": (Status.TIMEOUT, "over 1 s"), "spin": (Status.TIMEOUT, "over 1 s"), "power": (Status.TIMEOUT, "over 1 s"),
    "die": (Status.CRASH, "died"), "memory": (Status.CRASH, "memory"), "recurse": (Status.CRASH, "RecursionError"),
    "nan": (Status.CRASH, "nan"), "none": (Status.CRASH, "None"), "text": (Status.CRASH, "a str"),
    "list": (Status.CRASH, "a list"), "beyond": (Status.CRASH, "outside its range"),
    "complex": (Status.CRASH, "complex"),
    "two": (Status.CRASH, "shape (2,)"), "close": (Status.CRASH, "died"),
}  # fmt: skip
LIMIT_S = 1.0


def settings(path: Path, **changes: Any) -> RewardsConfig:
    return RewardsConfig.model_validate(
        {"sandbox": {"max_seconds": LIMIT_S, "max_workers": 1}, "deadline_s": 20, "cache_size": 0, **changes}
    )


@pytest.fixture(scope="module")
def misdeeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugins") / "misdeeds.py"
    path.write_text(MISDEEDS)
    return path


@pytest.fixture(scope="module")
def judge(misdeeds: Path) -> Iterator[Judge]:
    names = ("act", "wrong_length", "always_raises")
    judge = Judge(settings(misdeeds), {name: f"{misdeeds}:{name}" for name in names})
    yield judge
    judge.close()


def asked(*answers: str, verifier: str = "act") -> list[Sample]:
    return [sample(answer, verifier=verifier) for answer in answers]


@pytest.mark.parametrize("deed", [*JUDGED, *FAILED])
async def test_a_misdeed_costs_its_own_sample_only_and_is_named(judge: Judge, deed: str) -> None:
    await judge.judge(asked("7"))
    started = time.monotonic()
    outcome, after = await judge.judge(asked(deed, "7"))
    # A worker that died is tried twice, and started afresh in between.
    assert time.monotonic() - started < 2 * LIMIT_S + 8
    assert after.score == 1.0
    if deed in JUDGED:
        assert (outcome.status, outcome.score) == (Status.JUDGED, JUDGED[deed])
        return
    status, words = FAILED[deed]
    assert (outcome.status, outcome.score) == (status, None)
    assert "plugin 'act'" in outcome.reason and words in outcome.reason


async def test_a_list_of_the_wrong_length_is_no_verdict_for_anyone(judge: Judge) -> None:
    outcomes = await judge.judge(asked("7", "8", verifier="wrong_length"))
    assert [outcome.score for outcome in outcomes] == [None, None]
    assert all("3 values for 2 attempts" in outcome.reason for outcome in outcomes)


async def test_a_plugin_that_hangs_does_not_keep_the_others_from_their_workers(judge: Judge) -> None:
    await judge.judge(asked("7") + asked("7", verifier="always_raises"))
    started = time.monotonic()
    hanging = asyncio.ensure_future(judge.judge(asked("hang", "hang", "hang")))
    await asyncio.sleep(0.1)
    await judge.judge(asked("7", verifier="always_raises"))
    assert time.monotonic() - started < LIMIT_S
    await hanging


class _RemoteModel(http.server.BaseHTTPRequestHandler):
    """OpenRLHF's protocol, and three ways to keep it badly."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (query,), (label,) = asked["query"], asked["labels"]
        answer = query.removeprefix(asked["prompts"][0])
        if answer == "stall":
            time.sleep(2 * LIMIT_S)
        self.send_response(500 if answer == "error" else 200)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            body = "garbage" if answer == "garble" else json.dumps({"rewards": [2.0 * (answer == label)]})
            self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


async def test_a_remote_reward_model_may_stall_fail_and_garble(misdeeds: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _RemoteModel)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/get_reward"
    judge = Judge(settings(misdeeds, plugins={"model": {"path": address, "range": [0, 2]}}), {"model": address})
    try:
        outcomes = await judge.judge(asked("7", "8", "stall", "error", "garble", verifier="model"))
    finally:
        judge.close()
        server.shutdown()
    assert [outcome.score for outcome in outcomes] == [1.0, 0.0, None, None, None]
    assert [outcome.status for outcome in outcomes[2:]] == [Status.TIMEOUT, Status.CRASH, Status.CRASH]
    assert "500" in outcomes[3].reason and judge.adapters() == {"model": "openrlhf_http"}


def test_no_process_is_left(judge: Judge) -> None:
    """After the misdeeds above: it ends the shared judge."""
    judge.close()
    ours = [p for p in psutil.Process().children(recursive=True) if "rewards.worker" in " ".join(p.cmdline())]
    assert ours == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "61"]]


# ------------------------------------------------------------------------------------------------ the service on Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    os.environ["PYTHONPATH"] = os.getcwd()
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()
    del os.environ["PYTHONPATH"]


@pytest.mark.stack
async def test_past_its_quota_a_plugin_stops_the_run_and_leaves_the_samples(
    cluster: None, misdeeds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ponder.rewards")
    name = f"{misdeeds}:act"
    config = settings(misdeeds, quota={"max_share": 0.5, "window": 6}, components={"answer": {"verifier": name}})
    client: JudgeClient = await asyncio.to_thread(start_judge, config, {name: name}, tmp_path / "reward_failures")

    async def judged(*answers: str) -> tuple[Outcome, ...]:
        return await client.judge(group([("so", answer) for answer in answers], of=task(verifier=name)))

    try:
        outcomes = await judged("7", "raise", "nan", "8")
        assert [outcome.score for outcome in outcomes] == [1.0, None, None, 0.0]
        metrics = {metric.name: metric.value for metric in client.metrics()}
        assert metrics["judge/failures/misdeeds.act"] == 2
        assert 0 < metrics["judge/misdeeds.act/latency_p50_s"] <= metrics["judge/misdeeds.act/latency_p99_s"]
        assert metrics["judge/workers"] >= 1
        with pytest.raises(
            QuotaError, match=r"misdeeds.py:act' failed on 4 of its last 6 samples.*rewards check"
        ) as stop:
            await judged("raise", "none")
    finally:
        client.close()
    saved = tmp_path / "reward_failures" / "misdeeds.act.jsonl"
    assert str(saved) in str(stop.value)
    assert [case.sample.answer for case in read_cases(saved)] == ["raise", "nan", "raise", "none"]
    log = "\n".join(record.getMessage() for record in caplog.records)
    assert "adapter native" in log and "KeyError: 'no such key' (misdeeds.py:" in log
