"""The copy of a run at a URL: whole after any interruption, small in what it sends, and enough to go on from."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from launch import mirror, sessions
from launch.mirror import MirrorError, NoMirror, RunMirror, Store, fetch, mirror_of
from rl import driver
from rl.metrics import read_metrics
from rl.record_reader import ledger
from rl.resume import resume
from tests.fakes.loop import make_world, play


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/bucket/first"
    else:
        name = f"/{uuid.uuid4()}"
        yield f"memory:/{name}"
        fsspec.filesystem("memory").rm(name, recursive=True)


def make_run(root: Path, *, steps: int = 2) -> Path:
    for name, text in {
        "config.json": "{}",
        "metrics.jsonl": "".join(f"line {n}\n" for n in range(steps)),
        f"checkpoints/step-{steps:06d}/learner/model/weights": f"weights of {steps}" * 1000,
        f"checkpoints/step-{steps:06d}/seal.json": str(steps),
        "checkpoints/step-000099.tmp/half": "half a checkpoint",
        "logs/rollout-0.log": "log",
        "control.json": "the token",
        ".lock": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def contents(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}


def test_what_is_fetched_is_what_was_copied(tmp_path: Path, url: str) -> None:
    run = make_run(tmp_path / "runs/first")
    copy = RunMirror(run, url, pytest.fail)
    copy.begin()
    copy.finish()
    fetched = fetch(url, tmp_path / "elsewhere")
    assert fetched == tmp_path / "elsewhere/first"
    left_out = {"checkpoints/step-000099.tmp/half", "logs/rollout-0.log", "control.json", ".lock"}
    assert contents(fetched) == {name: text for name, text in contents(run).items() if name not in left_out}


def test_only_what_is_new_is_sent_and_what_is_old_is_deleted(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "first")
    copy = RunMirror(run, url, pytest.fail)
    assert copy.commit() == 1
    sent: list[str] = []
    plain = Store.put

    def put(store: Store, path: Path, size: int) -> str:
        sent.append(path.name)
        return plain(store, path, size)

    monkeypatch.setattr(Store, "put", put)
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write("line 2\n")
    assert copy.commit() == 2 and sent == ["metrics.jsonl"]
    shutil.rmtree(run / "checkpoints")
    make_run(run, steps=3)
    copy.commit(), copy.commit()
    store = Store(url)
    assert store.commits() == [3, 4]
    named = {entry["digest"] for entry in store.read(4)["files"].values()}
    fs, base = fsspec.core.url_to_fs(url)
    assert {path.rpartition("/")[2] for path in fs.find(f"{base}/objects")} == named, "step 2 is gone, and no .part"


def test_an_interruption_at_any_write_leaves_the_commit_before(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies before its n-th change of the store, for every n until a commit gets through."""
    run = make_run(tmp_path / "first", steps=2)
    RunMirror(run, url, pytest.fail).commit()
    before = contents(fetch(url, tmp_path / "before"))
    make_run(run, steps=3)

    class Death(BaseException):
        pass

    left = 0

    def dying(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if args and kwargs.get("mode", args[1] if len(args) > 1 else "") == "rb":
                return method(*args, **kwargs)
            left -= 1
            if left < 0:
                raise Death
            return method(*args, **kwargs)

        return call

    interrupted = 0
    for allowed in range(100):
        copy = RunMirror(run, url, pytest.fail)
        left = allowed
        fs = copy._store._fs
        with monkeypatch.context() as patched:
            for name in ("open", "mv"):
                patched.setattr(fs, name, dying(getattr(fs, name)))
            try:
                copy.commit()
                break
            except Death:
                interrupted += 1
        assert contents(fetch(url, tmp_path / f"after-{allowed}")) == before
    assert interrupted >= 4
    assert "checkpoints/step-000003/seal.json" in contents(fetch(url, tmp_path / "last"))


def test_damage_at_the_url_is_found(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    RunMirror(make_run(tmp_path / "first"), url, pytest.fail).commit()
    for path in (tmp_path / "bucket/objects").rglob("*"):
        if path.is_file() and path.read_text().startswith("weights"):
            path.write_text("garbage")
    with pytest.raises(MirrorError, match="weights, is not the file"):
        fetch(url, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere/first").exists()


def test_a_name_that_leaves_the_run_is_refused(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    RunMirror(make_run(tmp_path / "first"), url, pytest.fail).commit()
    path = tmp_path / "bucket/commits/000001.json"
    content = json.loads(path.read_text())
    content["files"]["../../evil"] = content["files"].pop("config.json")
    path.write_text(json.dumps(content))
    with pytest.raises(MirrorError, match="outside of the run"):
        fetch(url, tmp_path / "elsewhere/deep")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "elsewhere/evil").exists()


def test_a_store_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "bucket").write_text("a file stands there")
    told: list[str] = []
    copy = RunMirror(make_run(tmp_path / "first"), f"file://{tmp_path}/bucket/x", told.append)
    copy.begin()
    copy.finish()
    assert len(told) == 2 and all("the copy of the run is behind" in text for text in told)


def test_an_unknown_or_empty_url_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"Install what fsspec asks for, or set run\.mirror"):
        mirror_of(tmp_path, "nothing://x", pytest.fail)
    with pytest.raises(MirrorError, match="holds no copy of a run"):
        sessions.located(f"file://{tmp_path}/empty")
    assert isinstance(mirror_of(tmp_path, "", pytest.fail), NoMirror)
    assert sessions.located("runs/first") == Path("runs/first")
    run = make_run(tmp_path / "runs/first")
    RunMirror(run, f"file://{tmp_path}/copy", pytest.fail).commit()
    with pytest.raises(MirrorError, match="is there already"):
        fetch(f"file://{tmp_path}/copy", tmp_path / "runs")


class Together:
    """Copies at once, so that nothing waits for a thread on the virtual clock."""

    def __init__(self, copy: RunMirror) -> None:
        self._copy = copy

    def begin(self) -> None:
        self._copy.commit()


def test_a_run_goes_on_from_its_copy_as_if_nothing_had_happened(tmp_path: Path, url: str) -> None:
    whole = make_world(tmp_path / "whole", num_steps=6, checkpoint_every=2)
    play(driver.train(whole.run))
    first = make_world(tmp_path / "first", num_steps=4, checkpoint_every=2)
    first.run.mirror = Together(RunMirror(tmp_path / "first", url, pytest.fail))
    play(driver.train(first.run))
    shutil.rmtree(tmp_path / "first")  # the machine is gone
    root = mirror.fetch(url, tmp_path / "new")
    second = make_world(root, num_steps=6, checkpoint_every=2)

    async def go_on() -> None:
        await resume(second.run)
        assert second.run.step == 4
        await driver.train(second.run)

    play(go_on())
    assert [e.task_key for e in ledger(root / "groups")] == [e.task_key for e in ledger(tmp_path / "whole/groups")]
    assert [row["step"] for row in read_metrics(root / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
