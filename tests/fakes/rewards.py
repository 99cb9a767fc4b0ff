"""Attempts with one token per character, and verifiers that misbehave on purpose, for tests of `rewards` and `prm`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewards.outcome import Sample, judged
from rollout.schema import (
    Finish,
    Group,
    Job,
    Message,
    Outcome,
    PolicySpan,
    Sampling,
    Status,
    Task,
    TokenBudget,
    Trajectory,
    task_key,
)

OPEN, CLOSE = "<think>", "</think>"
_BUDGET = TokenBudget(effort="high", max_prompt_tokens=64, max_thinking_tokens=None, max_answer_tokens=64)


def kernel_grants_namespaces() -> bool:
    """Asked without the code under test, so that a jail that broke does not pass for a kernel that refuses."""
    try_it = "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x78020000) != 0)"  # user, mount, IPC, pid, net
    return subprocess.run([sys.executable, "-c", try_it], check=False).returncode == 0


def task(
    *, prompt: str = "3+4=", answer: str = "7", verifier: str = "exact", meta: Mapping[str, Any] | None = None
) -> Task:
    messages = (Message(role="user", content=prompt),)
    return Task(
        key=task_key(messages, answer),
        prompt=messages,
        answer=answer,
        verifier=verifier,
        source="test",
        meta=meta or {},
    )


def sample(answer: str, reference: str = "7", *, verifier: str = "exact", **changes: Any) -> Sample:
    """A finished attempt that answered `answer`."""
    fields: dict[str, Any] = {
        "task_key": "k",
        "prompt": (Message(role="user", content="?"),),
        "reference": reference,
        "verifier": verifier,
        "thinking": "",
        "answer": answer,
        "closed": True,
        "text": answer,
        "finish": Finish.STOP,
        "effort": "high",
    }
    return Sample(**(fields | changes))


def trajectory(
    thinking: str,
    answer: str | None,
    *,
    sibling: int = 0,
    finish: Finish = Finish.STOP,
    pieces: Sequence[str] | None = None,
) -> Trajectory:
    """Four prompt tokens, the marks as one token each, then one token per character, or `pieces` for the thinking."""
    parts = [OPEN, *(pieces or thinking)] + ([] if answer is None else [CLOSE, *answer])
    text = "".join(parts)
    ends = [0] * 4 + list(itertools.accumulate(len(part) for part in parts))
    start, stop = len(OPEN), len(OPEN) + len(thinking)
    length = len(ends)
    return Trajectory(
        group_id="g",
        sibling=sibling,
        token_ids=np.arange(length, dtype=np.int32),
        sampled=np.array([False] * 4 + [True] * (length - 4)),
        sampler_logprobs=np.zeros(length, dtype=np.float32),
        char_ends=np.array(ends, dtype=np.int32),
        prompt_len=4,
        text=text,
        thinking=(start, stop),
        answer=None if answer is None else (stop + len(CLOSE), len(text)),
        finish=finish,
        policy=PolicySpan(start=0, end=0),
    )


def group(attempts: Sequence[tuple[str, str | None]], *, of: Task | None = None) -> Group:
    """One group of (thinking, answer) attempts."""
    job = Job(group_id="g", task=of or task(), num_siblings=len(attempts), budget=_BUDGET, sampling=Sampling())
    siblings = tuple(trajectory(thinking, answer, sibling=i) for i, (thinking, answer) in enumerate(attempts))
    return Group(job=job, trajectories=siblings)


# ------------------------------------------------------------------- verifiers that run inside sandbox workers


def act(sample: Sample) -> Any:
    """Do what the answer says. What is not a known misdeed is compared with the reference."""
    misdeeds = {
        "hang": lambda: time.sleep(60),
        "spin": lambda: sum(1 for _ in itertools.count()),
        "exit": lambda: os._exit(3),
        "raise": lambda: 1 / 0,
        "quit": lambda: (_ for _ in ()).throw(SystemExit(0)),
        "memory": lambda: bytearray(4 << 30),
        "none": lambda: None,
        "nan": lambda: {"status": "judged", "score": float("nan"), "parts": {}, "reason": ""},
        "above": lambda: {"status": "judged", "score": 1.5, "parts": {}, "reason": ""},
        "true": lambda: {"status": "judged", "score": True, "parts": {}, "reason": ""},
        "number": lambda: 1.0,
        "huge": lambda: "x" * (1 << 22),
        "object": lambda: object(),
        "print": lambda: (sys.stdout.write("noise" * 100_000), judged(1.0))[1],
        "surrogate": lambda: {"status": "judged", "score": 1.0, "parts": {}, "reason": "\ud800"},
    }
    if sample.answer in misdeeds:
        return misdeeds[sample.answer]()
    return judged(float(sample.answer == sample.reference))


def die_once(sample: Sample) -> Outcome:
    """Dies the first time it sees the file that the task names, then judges: a worker killed by somebody else."""
    try:
        os.close(os.open(sample.meta["flag"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return judged(1.0)
    os._exit(9)


def forge(payload: int) -> None:
    """Write garbage into every open socket of the worker, then go on as if nothing had happened."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\xff\xff\xff\xff garbage")
        except OSError:
            continue
    time.sleep(payload)


def spawn_child(seconds: float) -> int:
    """Start a process of one's own and tell its number, so that a test can look for it later."""
    return subprocess.Popen(["sleep", str(seconds)]).pid


def repeat_settings(sample: Sample) -> Outcome:
    """Says which settings it was given."""
    return Outcome(status=Status.JUDGED, score=1.0, reason=json.dumps(sample.settings, sort_keys=True))
