r"""Is every reference its own right answer, and is a changed one wrong? Reads references, mutates them, judges both.

Each reference is judged against itself, and against itself with one digit changed, with its sign flipped, and with
another unit (its own replaced, or a percent sign where it has none). `--data` takes JSONL files: the reference is the
column `reference`, or `answer`, of which only what stands behind a `####` counts (GSM8K). Without it, the committed
cases are used, which are small.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from result import arguments, finish

from rewards.config import RewardsConfig, SandboxConfig
from rewards.judge import Judge
from rewards.outcome import Sample
from rewards.verifier import BUILT_IN_VERIFIERS
from rollout.schema import Finish, Outcome

CASES = Path(__file__).parents[1] / "tests" / "unit" / "rewards" / "math_cases.tsv"
_DIGIT = re.compile(r"[0-9]")
_UNIT = re.compile(r"(\\(?:text|mbox|mathrm)\{\s*)([A-Za-z]+)")
_CHUNK = 256


def references(paths: list[Path]) -> list[str]:
    """All references of the files, or of the committed cases."""
    if not paths:
        rows = [line.split("\t") for line in CASES.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
        return list(dict.fromkeys(row[2] for row in rows))
    found = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.append(str(row.get("reference", row.get("answer"))).rpartition("####")[2].strip())
    return found


def mutants(reference: str, chance: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, text) of changed references. Those that cannot be changed in a way give none of that kind."""
    digits = [match.start() for match in _DIGIT.finditer(reference)]
    if digits:
        at = chance.choice(digits)
        other = chance.choice([digit for digit in "123456789" if digit != reference[at]])
        yield "digit", reference[:at] + other + reference[at + 1 :]
    if digits and set(_DIGIT.findall(reference)) != {"0"} and "pm" not in reference:
        yield "sign", reference[1:] if reference.startswith("-") else f"-{reference}"
    unit = _UNIT.search(reference)
    if unit is not None and digits:
        other = chance.choice([name for name in ("cm", "miles", "seconds", "degrees") if name[0] != unit[2][0]])
        yield "unit", reference[: unit.start(2)] + other + reference[unit.end(2) :]
    elif re.fullmatch(r"[-0-9.,]*[1-9][0-9.,]*", reference):
        yield "unit", reference + r"\%"


def sample(reference: str, answer: str, *, text: str | None = None) -> Sample:
    """An attempt whose whole text is `text`, or else the answer in a box."""
    text = rf"\boxed{{{answer}}}" if text is None else text
    return Sample(
        task_key="", prompt=(), reference=reference, verifier="math", thinking="", answer=text, closed=True, text=text,
        finish=Finish.STOP, effort="none",
    )  # fmt: skip


async def judge_all(judge: Judge, samples: list[Sample]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for start in range(0, len(samples), _CHUNK):
        outcomes += await judge.judge(samples[start : start + _CHUNK])
    return outcomes


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="JSONL files with references")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    golds = references(options.data)[: 50 if options.quick else None]
    chance = random.Random(options.seed)
    mutated = [(gold, kind, text) for gold in golds for kind, text in mutants(gold, chance)]
    judge = Judge(RewardsConfig(sandbox=SandboxConfig(num_workers=2)), BUILT_IN_VERIFIERS)
    try:
        same = asyncio.run(judge_all(judge, [sample(gold, gold) for gold in golds]))
        changed = asyncio.run(judge_all(judge, [sample(gold, text) for gold, _, text in mutated]))
    finally:
        judge.close()
    refused = [gold for gold, outcome in zip(golds, same, strict=True) if outcome.score != 1.0]
    granted = [row for row, outcome in zip(mutated, changed, strict=True) if outcome.score != 0.0]
    metrics = {
        "references": len(golds),
        "self_verified": 1 - len(refused) / len(golds),
        "mutants": len(mutated),
        "mutants_rejected": 1 - len(granted) / len(mutated),
    }
    for kind in ("digit", "sign", "unit"):
        total = sum(row[1] == kind for row in mutated)
        metrics[f"{kind}_rejected"] = 1 - sum(row[1] == kind for row in granted) / total if total else 1.0
    name = "reflexivity_quick" if options.quick else "reflexivity"
    finish(name, metrics, {"refused": refused[:20], "granted": granted[:20]}, store=options.store)


if __name__ == "__main__":
    main()
