"""Attempts on disk: what a kill may tear, what a rerun finds, who may write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.evaluation.store import AttemptStore, StoreError, digest, read_jobs, whole_size
from rollout.schema import Finish
from tests.unit.budgets.test_evaluation import attempt


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    with AttemptStore(tmp_path) as store:
        assert store.get("a") is None
        store.add("a", [attempt(), attempt(sample=1, text="\u00e9 \u2028")])
        assert store.get("a") is not None
    with AttemptStore(tmp_path) as store:
        found = store.get("a")
        assert found is not None and found[1].text == "\u00e9 \u2028"


@pytest.mark.parametrize("torn", [1, 7, 200])
def test_a_torn_last_line_is_cut_away_and_done_again(tmp_path: Path, torn: int) -> None:
    with AttemptStore(tmp_path) as store:
        store.add("a", [attempt()])
        store.add("b", [attempt(sample=1)])
    path = tmp_path / "attempts.jsonl"
    path.write_bytes(path.read_bytes()[:-torn])
    assert [key for key, _ in read_jobs(path)] == ["a"]
    with AttemptStore(tmp_path) as store:
        assert store.get("a") is not None and store.get("b") is None
        store.add("b", [attempt(sample=1)])
    assert [key for key, _ in read_jobs(path)] == ["a", "b"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_file_without_a_whole_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    path.write_bytes(b"x" * 200_000)
    assert whole_size(path) == 0
    path.write_bytes(b"y\n" + b"x" * 200_000)
    assert whole_size(path) == 2


def test_a_bad_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "attempts.jsonl"
    path.write_text('{"key": "a", "attempts": [{}]}\n')
    with pytest.raises(StoreError, match=r"attempts\.jsonl, line 1, holds no attempts"), AttemptStore(tmp_path):
        pass


def test_two_processes_do_not_write_one_evaluation(tmp_path: Path) -> None:
    with AttemptStore(tmp_path), pytest.raises(StoreError, match="another process"), AttemptStore(tmp_path):
        pass


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    with AttemptStore(tmp_path) as store:
        store.add("a", [attempt(), attempt(sample=1, finish=Finish.ERROR)])
        store.add("b", [attempt(finish=Finish.PROMPT_TOO_LONG)])
    with AttemptStore(tmp_path) as store:
        assert store.get("a") is None and store.get("b") is not None


def test_a_full_disk_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "attempts.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"), AttemptStore(tmp_path) as store:
        store.add("a", [attempt()])


def test_the_digest_does_not_depend_on_order() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
