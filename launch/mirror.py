"""A copy of a run directory at an fsspec URL, from which the run can go on elsewhere.

    URL/objects/3f/3fa9...      files by the digest of their content, so a file is copied once and never changed
    URL/commits/000007.json     which file of the run has which content, and its size

A commit's list is written after everything in it, under the next number: whatever is interrupted, the newest list is
whole. The run itself works in its local directory, where renames are atomic, appending is possible and a full or
absent network does no harm; what object stores cannot do is not asked of them. Of old commits the one before the
newest is kept; objects that neither of them names are deleted after a commit.

Not copied: logs, locks, what is being written, and control.json, which holds a token.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

FORMAT = 1
KEPT_COMMITS = 2
CHUNK = 2**22
DIGEST_BYTES = 20
LEFT_OUT = ("logs", ".lock", "control.json", "errors.log")
UNFINISHED = (".tmp", ".part")


class MirrorError(RuntimeError):
    """A copy that cannot be reached, written, or read back."""


class Mirror(Protocol):
    """What keeps a copy of the run up to date."""

    def begin(self) -> None: ...

    def finish(self) -> None: ...


class NoMirror:
    """No copy is wanted."""

    def begin(self) -> None:
        pass

    def finish(self) -> None:
        pass


class RunMirror:
    """The copy of one run. `begin` copies in a thread of its own, one at a time; `finish` waits for it and copies the
    rest."""

    def __init__(self, root: Path, url: str, warn: Callable[[str], None]) -> None:
        """Raises MirrorError when nothing can be written to `url`."""
        self._root, self._url, self._warn = root, url, warn
        self._store = Store(url)
        self._thread: threading.Thread | None = None
        self._digests: dict[tuple[str, int, int], str] = {}  # (path, size, mtime in ns) -> digest

    def begin(self) -> None:
        """Copy what is new. While a copy is under way this does nothing: the next one brings what it missed."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._commit_or_warn, name="ponder-mirror", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Copy everything, the report included. A failure is a warning: the run is whole where it is."""
        if self._thread is not None:
            self._thread.join()
        self._commit_or_warn()

    def commit(self) -> int:
        """Copy what is new and commit it. Returns the commit's number. Raises MirrorError."""
        try:
            return self._commit()
        except Exception as error:  # fsspec's many file systems raise what their libraries raise
            raise MirrorError(f"{self._url}: {type(error).__name__}: {error}") from error

    def _commit_or_warn(self) -> None:
        try:
            self.commit()
        except MirrorError as error:
            self._warn(f"the copy of the run is behind: {error}; the next checkpoint tries again")

    def _commit(self) -> int:
        files: dict[str, Any] = {}
        for path in self._files():
            name = path.relative_to(self._root).as_posix()
            try:
                content = self._copied(path)
            except FileNotFoundError:
                continue  # an old checkpoint that was deleted meanwhile
            files[name] = content
        number = 1 + max(self._store.commits(), default=0)
        self._store.commit(number, {"format": FORMAT, "name": self._root.name, "files": files})
        self._store.clean(keep=KEPT_COMMITS)
        return number

    def _files(self) -> Iterator[Path]:
        """Whole checkpoints and all other files that are meant to last."""
        for path in sorted(self._root.rglob("*")):
            parts = path.relative_to(self._root).parts
            is_unfinished = any(part.endswith(UNFINISHED) for part in parts)
            if path.is_file() and not is_unfinished and parts[0] not in LEFT_OUT:
                yield path

    def _copied(self, path: Path) -> dict[str, Any]:
        """The content of a file, which may grow meanwhile: what was read is what is sent."""
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._digests or not self._store.has(self._digests[key]):
            self._digests[key] = self._store.put(path, status.st_size)
        return {"digest": self._digests[key], "size": status.st_size}


class Store:
    """The objects and commits below a URL."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, self._base = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise MirrorError(
                f"{url} names a file system that cannot be used here: {error}. Install what fsspec asks for, or set "
                f"run.mirror to another URL"
            ) from error
        self._known: set[str] = set()

    def put(self, path: Path, size: int) -> str:
        """Store the first `size` bytes of a file, if they are not there already; returns their digest."""
        digest = _digest(path, size)
        if self.has(digest):
            return digest
        target = self._object(digest)
        self._fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
        aside = f"{target}.part"
        sent = hashlib.blake2b(digest_size=DIGEST_BYTES)
        with path.open("rb") as source, self._fs.open(aside, "wb") as out:
            for chunk in _chunks(source, size):
                sent.update(chunk)
                out.write(chunk)
        if sent.hexdigest() != digest:
            raise MirrorError(f"{path} changed while it was copied")
        self._fs.mv(aside, target)
        self._known.add(digest)
        return digest

    def has(self, digest: str) -> bool:
        if digest not in self._known and self._fs.exists(self._object(digest)):
            self._known.add(digest)
        return digest in self._known

    def commits(self) -> list[int]:
        """Numbers of all commits."""
        place = f"{self._base}/commits"
        self._fs.invalidate_cache()
        names = self._fs.ls(place, detail=False) if self._fs.exists(place) else []
        matches = (re.fullmatch(r"(\d+)\.json", PurePosixPath(name).name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def commit(self, number: int, content: dict[str, Any]) -> None:
        self._fs.makedirs(f"{self._base}/commits", exist_ok=True)
        target = self._commit_path(number)
        with self._fs.open(f"{target}.part", "wb") as out:
            out.write(json.dumps(content).encode())
        self._fs.mv(f"{target}.part", target)

    def read(self, number: int) -> dict[str, Any]:
        with self._fs.open(self._commit_path(number), "rb") as source:
            content: dict[str, Any] = json.loads(source.read())
        return content

    def fetch(self, digest: str, size: int, target: Path) -> None:
        """Raises MirrorError when the object is not what it was."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._fs.open(self._object(digest), "rb") as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
        if target.stat().st_size != size or _digest(target, size) != digest:
            raise MirrorError(f"{self._object(digest)}, which is to be {target.name}, is not the file that was written")

    def clean(self, *, keep: int) -> None:
        """Delete all but the newest commits, and the objects that these do not name."""
        numbers = self.commits()
        named = {entry["digest"] for number in numbers[-keep:] for entry in self.read(number)["files"].values()}
        for number in numbers[:-keep]:
            self._fs.rm(self._commit_path(number))
        for path in self._fs.find(f"{self._base}/objects"):
            if PurePosixPath(path).name not in named:
                self._fs.rm(path)
        self._known &= named

    def _object(self, digest: str) -> str:
        return f"{self._base}/objects/{digest[:2]}/{digest}"

    def _commit_path(self, number: int) -> str:
        return f"{self._base}/commits/{number:06d}.json"


def fetch(url: str, runs: Path) -> Path:
    """The newest commit at `url` as a run directory below `runs`, named as it was. Raises MirrorError.

    It is written aside and renamed when whole. A directory that is there already is not touched.
    """
    store = Store(url)
    numbers = store.commits()
    if not numbers:
        raise MirrorError(f"{url} holds no copy of a run; check the URL, or start the run with run.mirror = {url!r}")
    content = store.read(numbers[-1])
    if content.get("format") != FORMAT:
        raise MirrorError(f"{url} has format {content.get('format')}, this release reads {FORMAT}; use that other one")
    root = runs / Path(content["name"]).name
    if root.exists():
        raise MirrorError(f"{root} is there already: resume it with --resume {root}, or move it away to take the copy")
    aside = root.with_name(f".{root.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    for name, entry in content["files"].items():
        target = aside / name
        if aside.resolve() not in target.resolve().parents:
            raise MirrorError(f"{url} names a file outside of the run, {name!r}: it was not written by ponder")
        store.fetch(entry["digest"], entry["size"], target)
    os.replace(aside, root)
    return root


def mirror_of(root: Path, url: str, warn: Callable[[str], None]) -> Mirror:
    return RunMirror(root, url, warn) if url else NoMirror()


def _digest(path: Path, size: int) -> str:
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as source:
        for chunk in _chunks(source, size):
            found.update(chunk)
    return found.hexdigest()


def _chunks(source: Any, size: int) -> Iterator[bytes]:
    """The first `size` bytes. Raises MirrorError when there are fewer: somebody else shortens the file."""
    while size:
        chunk = source.read(min(CHUNK, size))
        if not chunk:
            raise MirrorError(f"{source.name} was shortened while it was copied")
        size -= len(chunk)
        yield chunk
