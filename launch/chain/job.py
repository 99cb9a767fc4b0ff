"""`ponder chain`: stages of training, each from the weights of the one before, and what each of them forgot.

    CHAIN/chain.json         the resolved settings of the chain and of all stages, what --resume reads
    CHAIN/phases.json        finished stages and evaluations, with their seconds
    CHAIN/1-NAME/, ...       a run directory for each stage
    CHAIN/suites/            the tasks of every suite; suites.jsonl, the rows that training tasks are compared with
    CHAIN/evaluations/0-start/, 1-NAME/, ...   attempts at the suites after each stage
    CHAIN/forgetting.json, chain.md, chain.html, summary.json   what came out, written after every evaluation

A stage that is killed goes on where its run directory stands; a finished one is never begun again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from launch import phases, work
from launch.chain import preference, suites
from launch.chain.config import START, PreferenceStage, SftStage
from launch.chain.report import page
from launch.chain.resolve import Chain, dump, load, restored, stage_config
from launch.chain.suites import Suites
from launch.config import PathModel, RunConfig
from launch.errors import InterruptedRunError
from launch.manifest import write_json
from launch.model_dir import check_model
from launch.rundir import PhaseLog, RunDirectory
from launch.sessions import find_recipe


def begin(name: str, overrides: Sequence[str]) -> Path:
    """A new chain, checked as far as can be without starting anything; its directory."""
    chain = load(find_recipe(name), overrides)
    first = next(iter(chain.stages.values()))
    if isinstance(first.model, PathModel):
        check_model(Path(first.model.path), setting="model.path")
    tasks = suites.load_suites(chain)
    root = _new_directory(Path(chain.config.chain.dir).expanduser(), chain.config.chain.name)
    suites.save_suites(root / "suites", tasks)
    suites.save_rows(root / "suites.jsonl", tasks)
    write_json(root / "chain.json", dump(chain))
    return root


def run(root: Path, console: Console) -> dict[str, Any]:
    """All stages and evaluations that are not finished; the forgetting matrix. Raises ValueError if it is no chain."""
    path = root / "chain.json"
    if not path.is_file():
        raise ValueError(f"{root} is no chain: it has no chain.json; begin one with ponder chain NAME")
    chain = restored(json.loads(path.read_text(encoding="utf-8")), where=str(path))
    with _locked(root), _resumable(root):
        return _Work(root, chain, console).all()


@dataclass(frozen=True, slots=True)
class _Place:
    """A stage and where it is kept; `model` is there once it is finished."""

    number: int
    name: str
    directory: RunDirectory
    model: Path


class _Work:
    """One session of work on a chain."""

    def __init__(self, root: Path, chain: Chain, console: Console) -> None:
        self._root = root
        self._chain = chain
        self._console = console
        self._log = PhaseLog(root / "phases.json")
        self._suites: Suites = suites.read_suites(root / "suites", list(chain.config.suites))

    def all(self) -> dict[str, Any]:
        before: Path | None = None
        for number, name in enumerate(self._chain.stages, start=1):
            place = self._place(number, name)
            self._once(name, lambda place=place, model=before: self._stage(place, model))  # type: ignore[misc]
            if number == 1 and self._chain.config.chain.evaluate_start:
                self._measure(0, START, place.directory.base_model)
            self._measure(number, name, place.model)
            before = place.model
        results = self._report()
        page.tell(results, self._console)
        for file in ("forgetting.json", "chain.md", "chain.html", "summary.json"):
            kind = file.partition(".")[2]
            self._console.print(f"{kind}: {self._root / file}", markup=False, highlight=False, soft_wrap=True)
        return results

    def _place(self, number: int, name: str) -> _Place:
        directory = RunDirectory(self._root / f"{number}-{name}")
        is_sft = isinstance(self._chain.config.stages[name], SftStage)
        return _Place(number, name, directory, directory.start_model if is_sft else directory.model)

    def _once(self, name: str, step: Callable[[], None]) -> None:
        """Do what is not done; a failure or an interrupt counts its time alone."""
        if self._log.is_done(name):
            return
        self._console.rule(name)
        started, is_done = time.monotonic(), False
        try:
            step()
            is_done = True
        finally:
            self._log.add(name, time.monotonic() - started, is_done=is_done)

    def _stage(self, place: _Place, model: Path | None) -> None:
        config = stage_config(
            self._chain.stages[place.name],
            place=place.directory.root,
            model=model,
            suites=self._root / "suites.jsonl",
        )
        place.directory.root.mkdir(exist_ok=True)
        place.directory.save_config(config)
        _run_stage(self._chain, place, config, self._console)

    def _measure(self, number: int, name: str, model: Path) -> None:
        out = self._root / "evaluations" / f"{number}-{name}"

        def step() -> None:
            suites.measure(self._chain, self._suites, model, out, self._console)

        self._once(f"evaluate {name}", step)
        self._report()

    def _report(self) -> dict[str, Any]:
        """Everything that is known so far, written down."""
        folder, names = self._root / "evaluations", [START, *self._chain.stages]
        rows = {
            name: suites.read_row(folder / f"{number}-{name}")
            for number, name in enumerate(names)
            if self._log.is_done(f"evaluate {name}")
        }
        results = page.results_of(self._chain, rows, self._suites)
        page.write(self._root, results)
        write_json(self._root / "summary.json", self._summary(results))
        return results

    def _summary(self, results: dict[str, Any]) -> dict[str, Any]:
        stages = []
        for number, name in enumerate(self._chain.stages, start=1):
            place = self._place(number, name)
            entry = {
                "name": name,
                "type": self._chain.config.stages[name].type,
                "is_done": self._log.is_done(name),
                "seconds": self._log.seconds(name),
                "peak_gib": work.usage(place.directory)["peak_gib"],
            }
            stages.append(entry | {file: _read(place.directory.root / f"{file}.json") for file in DETAILS})
        evaluations = sum(self._log.seconds(name) for name in self._log.names() if name.startswith("evaluate "))
        last = results["rows"][-1]["suites"] if results["rows"] else {}
        return {
            "chain": self._chain.config.chain.name,
            "stages": stages,
            "evaluation_seconds": round(evaluations, 3),
            "accuracy": {suite: cell["accuracy"]["value"] for suite, cell in last.items()},
            "forgetting": results["forgetting"],
        }


DETAILS = ("cold_start", "pairs", "preference")  # files of a stage's directory that the summary repeats


def _run_stage(chain: Chain, place: _Place, config: RunConfig, console: Console) -> None:
    stage = chain.config.stages[place.name]
    if isinstance(stage, SftStage):
        phases.cold_start(config, place.directory, console)
    elif isinstance(stage, PreferenceStage):
        preference.run(stage, config, place.directory, console)
    else:
        phases.train(config, place.directory, console)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _new_directory(base: Path, name: str) -> Path:
    for number in range(1, 10_000):
        root = base / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            root.mkdir(parents=True)
            return root
    raise ValueError(f"{base} holds 10,000 chains called {name!r}: set chain.name")


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    with (root / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process is working in {root}; wait for it or stop it") from error
        yield


@contextlib.contextmanager
def _resumable(root: Path) -> Iterator[None]:
    """How to go on, whatever ended the session: the stage's own word for it would continue that stage alone."""
    remedy = f"ponder chain --resume {root}"
    try:
        yield
    except (InterruptedRunError, KeyboardInterrupt) as interrupt:
        raise InterruptedRunError(f"interrupted; nothing finished is lost, go on with: {remedy}") from interrupt
    except Exception as error:
        error.add_note(f"the whole chain goes on with: {remedy}")
        raise
