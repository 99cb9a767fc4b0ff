"""The floor plan as failing tests: who may import what, and how large a thing may grow.

import-linter (`lint-imports`, contracts in pyproject.toml) guards the doors between rooms. This file guards what it
cannot express: heavy libraries only in the files that own them, ceilings on sizes, no dumping grounds.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("rollout", "rewards", "prm", "budgets", "rl", "launch")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
ALL_PYTHON = sorted(SOURCES + [p for d in ("tests", "benchmarks", "examples") for p in (ROOT / d).rglob("*.py")])

# library -> files (or folders, with a trailing slash) that may import it
OWNERS: dict[str, tuple[str, ...]] = {
    "vllm": ("rollout/vllm_", "rollout/weight_transfer.py", "rollout/weight_sender.py", "prm/models/pooling.py"),
    "ray": (
        "rollout/actor.py",
        "rollout/pool.py",
        "rewards/actor.py",
        "prm/actor.py",
        "prm/actor_model.py",
        "rl/learner/actor.py",
        "rl/learner/reference_actor.py",
        "rl/learner/representation_actor.py",
        "launch/cluster.py",
        "launch/preflight.py",
    ),
    "deepspeed": ("rl/learner/engine.py", "prm/train_engine.py"),
    "trl": ("rl/coldstart.py", "rl/preference/dpo.py"),
    "torch": (
        "rollout/vllm_engine.py",
        "rollout/weight_transfer.py",
        "rollout/weight_sender.py",
        "rl/losses/",
        "rl/learner/",
        "rl/diagnostics/",
        "rl/coldstart.py",
        "rl/preference/dpo.py",
        "prm/models/",
        "prm/actor_model.py",
        "prm/train",
    ),
    "sympy": ("rewards/math_answer.py", "prm/symbolic.py"),
    "math_verify": ("rewards/math_answer.py",),
    "fastapi": ("launch/live/control.py",),
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
DUMPING_GROUNDS = {"utils", "util", "common", "misc", "helpers", "helper"}


def imported_libraries(path: Path) -> Iterator[tuple[str, int]]:
    """Top-level package and line of every import statement in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


@pytest.mark.parametrize("library", OWNERS)
def test_only_its_owner_imports_a_heavy_library(library: str) -> None:
    strangers = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for name, line in imported_libraries(path)
        if name == library and not str(path.relative_to(ROOT)).startswith(OWNERS[library])
    ]
    assert not strangers, f"{library} may be imported only by {OWNERS[library]}"


def test_files_stay_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ALL_PYTHON}
    assert not {name: size for name, size in sizes.items() if size > MAX_FILE_LINES}


def test_functions_stay_small() -> None:
    large = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in ALL_PYTHON
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    }
    assert not large


def test_no_dumping_grounds() -> None:
    assert not [path for path in ALL_PYTHON if {path.stem, *path.relative_to(ROOT).parent.parts} & DUMPING_GROUNDS]


def test_package_markers_are_empty() -> None:
    assert not [path for path in SOURCES if path.name == "__init__.py" and path.read_text().strip()]


def test_the_shipped_text_names_no_machine() -> None:
    """No absolute path of a developer's machine in anything that is shipped."""
    suffixes = {".py", ".md", ".toml", ".sh", ".json"}
    shipped = [p for p in ROOT.rglob("*") if p.suffix in suffixes and ".venv" not in p.parts and "runs" not in p.parts]
    assert not [p for p in shipped if "/" + "work/" in p.read_text(errors="replace")]


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports them by their names alone, and would refuse the second one."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
