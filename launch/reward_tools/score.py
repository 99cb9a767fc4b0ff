"""`ponder rewards score`: verdicts on a file of answers, by any verifier, as in training but without a run or Ray."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from launch import plugins
from rewards.config import ComponentConfig, RewardsConfig, SandboxConfig
from rewards.judge import Judge
from rewards.outcome import Sample, unjudged
from rollout.config import FormatConfig
from rollout.schema import Finish, Message, Outcome, Status

CHUNK = 256
_PROGRESS_S = 5.0
_COMPONENT = "answer"
_MAX_DEADLINE_S = 3600.0


def score(
    verifier: str,
    data: Path,
    out: Path,
    *,
    num_workers: int,
    max_seconds: float,
    settings: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Write one row {"status", "score", "reason"} for each row of `data`, in order. `score` is null when unjudged.

    `out` appears only when it is complete. Raises ValueError for an unknown verifier, settings that do not fit it, a
    missing file or a line that is not a JSON object.
    """
    if not data.is_file():
        raise ValueError(f"there is no file {data}; --data takes JSON lines with `reference` and `completion`")
    target = plugins.verifier_place(verifier)
    config = RewardsConfig(
        components={_COMPONENT: ComponentConfig(verifier=verifier, settings=dict(settings))},
        sandbox=SandboxConfig(num_workers=num_workers, max_workers=num_workers, max_seconds=max_seconds),
        deadline_s=_MAX_DEADLINE_S,
    )
    judge = Judge(config, {verifier: target})
    aside = out.with_name(f".{out.name}.part")
    try:
        with data.open(encoding="utf-8", errors="replace", newline="\n") as lines, aside.open("w") as results:
            total = asyncio.run(_score(judge, verifier, _rows(lines, data), results.write, say))
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
        judge.close()
    say(_summary(total, out))


async def _score(
    judge: Judge,
    verifier: str,
    rows: Iterator[dict[str, Any]],
    write: Callable[[str], object],
    say: Callable[[str], None],
) -> Counter[str]:
    """Judge chunk by chunk, so that memory does not grow with the file. Counts by status, and the sum of scores."""
    total: Counter[str] = Counter()
    started = spoken = time.monotonic()
    while chunk := list(itertools.islice(rows, CHUNK)):
        for outcome in await _judge_rows(judge, verifier, chunk):
            row = {"status": outcome.status.value, "score": outcome.score}
            row["reason"] = outcome.reason.removeprefix(f"{_COMPONENT}: ")
            write(json.dumps(row) + "\n")
            total[outcome.status.value] += 1
            total["right"] += outcome.score == 1.0
        total["rows"] += len(chunk)
        if time.monotonic() - spoken > _PROGRESS_S:
            spoken = time.monotonic()
            say(f"{total['rows']:,} rows, {total['rows'] / (spoken - started):,.0f} per second")
    return total


async def _judge_rows(judge: Judge, verifier: str, rows: list[dict[str, Any]]) -> list[Outcome]:
    samples = [_sample(row, verifier) for row in rows]
    outcomes = iter(await judge.judge([sample for sample in samples if sample is not None]))
    missing = unjudged(Status.BAD_REFERENCE, "the row has no `reference`")
    return [missing if sample is None else next(outcomes) for sample in samples]


def _rows(lines: Iterable[str], data: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{data}, line {number} is not JSON ({error}); nothing was written") from None
        if not isinstance(row, dict):
            raise ValueError(f"{data}, line {number} is a {type(row).__name__}, not an object; nothing was written")
        yield row


def _sample(row: Mapping[str, Any], verifier: str) -> Sample | None:
    """The attempt that a row holds; None without a reference. A missing completion is an attempt without an answer."""
    if row.get("reference") is None:
        return None
    completion = _text(row.get("completion"))
    thinking, answer = _parts(completion)
    prompt = row.get("prompt")
    meta = row.get("meta")
    return Sample(
        task_key="",
        prompt=(Message(role="user", content=_text(prompt)),) if prompt is not None else (),
        reference=_text(row["reference"]),
        verifier=verifier,
        thinking=thinking,
        answer=answer or "",
        closed=answer is not None,
        text=completion,
        finish=Finish.STOP,
        effort="none",
        meta=meta if isinstance(meta, dict) else {},
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _parts(completion: str) -> tuple[str, str | None]:
    """Thinking and answer; None as the answer when the thinking was opened and never closed. Without any mark the whole
    text is the answer."""
    marks = FormatConfig()
    head, closing, answer = completion.partition(marks.thinking_close)
    if closing:
        return head.partition(marks.thinking_open)[2] or head, answer
    if marks.thinking_open in completion:
        return completion.partition(marks.thinking_open)[2], None
    return "", completion


def _summary(total: Counter[str], out: Path) -> str:
    statuses = ", ".join(f"{total[status]:,} {status}" for status in Status if total[status]) or "no rows"
    judged = total[Status.JUDGED] + total[Status.UNPARSEABLE_ANSWER]
    share = f"; {total['right'] / judged:.1%} of the judged are right" if judged else ""
    return f"{statuses}{share}; written to {out}"
