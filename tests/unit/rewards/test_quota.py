"""When a verifier fails too often, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rewards.config import QuotaConfig
from rewards.failures import FailureFiles, label_of
from rewards.outcome import judged, unjudged, unparseable
from rewards.quota import FailureWatch
from rollout.schema import Outcome, Status
from tests.fakes.rewards import sample

RIGHT, WRONG, BAD = judged(1.0), unparseable("no answer"), unjudged(Status.BAD_REFERENCE, "not a number")
CRASH, LATE, LEFT_OUT = unjudged(Status.CRASH, "boom"), unjudged(Status.TIMEOUT, "late"), unjudged(Status.SKIPPED, "x")


def watch(*outcomes: Outcome, share: float = 0.5, window: int = 4) -> FailureWatch:
    found = FailureWatch(QuotaConfig(max_share=share, window=window))
    observe(found, outcomes)
    return found


def observe(found: FailureWatch, outcomes: Sequence[Outcome], verifier: str = "v") -> None:
    found.observe(verifier, [sample(f"a{i}") for i in range(len(outcomes))], outcomes)


def test_only_faults_count_and_only_over_a_full_window() -> None:
    assert watch(CRASH, LATE, CRASH).breach() is None  # three verdicts say little
    assert watch(RIGHT, CRASH, LATE, WRONG).breach() is None  # exactly half is within
    assert watch(BAD, LEFT_OUT, WRONG, CRASH).breach() is None  # the data's fault, and the policy's
    breach = watch(RIGHT, CRASH, LATE, CRASH).breach()
    assert breach is not None and breach.verifier == "v"
    assert "failed on 3 of its last 4 samples" in breach.text and "boom" in breach.text


def test_what_is_long_ago_is_forgotten_and_verifiers_do_not_answer_for_each_other() -> None:
    found = watch(CRASH, CRASH, CRASH, CRASH)
    assert found.breach() is not None
    observe(found, [RIGHT, RIGHT])
    assert found.breach() is None
    observe(found, [CRASH] * 4, verifier="other")
    breach = found.breach()
    assert breach is not None and breach.verifier == "other"
    assert found.counts() == {"v": 4, "other": 4}


def test_a_share_of_one_never_stops_a_run() -> None:
    assert watch(CRASH, CRASH, CRASH, CRASH, share=1.0).breach() is None


def test_the_first_offending_samples_are_kept_once_and_written_as_rows(tmp_path: Path) -> None:
    found = watch(*[CRASH] * 20, window=256)
    fresh = found.take()
    assert len(fresh) == 8 and found.take() == [] and found.counts() == {"v": 20}
    files = FailureFiles(tmp_path / "failures")
    files.write(fresh)
    rows = [json.loads(line) for line in files.path_of("v").read_text().splitlines()]
    assert [row["answer"] for row in rows] == [f"a{i}" for i in range(8)]
    assert rows[0]["reason"] == "boom" and rows[0]["status"] == "crash"


def test_a_label_is_a_file_name() -> None:
    assert label_of("math") == "math"
    assert label_of("/home/me/my rewards.py:verify") == "my_rewards.verify"
    assert label_of("package.module:score") == "package.module.score"
    assert label_of("http://127.0.0.1:80/../x") and "/" not in label_of("http://127.0.0.1:80/../x")
