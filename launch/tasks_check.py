"""What the tasks of a recipe repeat: copies among themselves, and evaluation tasks among the training tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from launch.config import RunConfig
from launch.task_splits import load_task_splits
from rollout.config import DecontaminateConfig
from rollout.schema import Task
from rollout.tasks.files import load_files
from rollout.tasks.overlap import Overlap, find_overlaps, twins

SHOWN = 5
"""Examples of each kind in the table; the report holds all."""

_MAX_CHARS = 200


def check(config: RunConfig) -> dict[str, Any]:
    """The report. What `tasks.decontaminate` would leave out is looked for whether or not the recipe sets it."""
    rule = config.tasks.decontaminate or DecontaminateConfig()
    raw = config.tasks.model_copy(update={"decontaminate": None})
    splits = load_task_splits(raw, seed=config.run.seed)
    more = [task for source in rule.against for task in load_files(source)]
    overlaps = find_overlaps(splits.train, (*splits.held_out, *more), ngram=rule.ngram, share=rule.share)
    return {
        "train": len(splits.train),
        "held_out": len(splits.held_out),
        "further_evaluation": len(more),
        "by_source": dict(Counter(task.source for task in splits.train)),
        "copies_left_out": splits.num_duplicates,
        "equivalent_to_held_out_left_out": splits.num_withheld,
        "twins": [[_row(task) for task in group] for group in twins(splits.train)],
        "overlaps": as_rows(overlaps),
        "ngram": rule.ngram,
        "share": rule.share,
        "are_left_out": config.tasks.decontaminate is not None,
    }


def as_rows(overlaps: Sequence[Overlap]) -> list[dict[str, Any]]:
    """Plain data of the overlaps, for a report."""
    return [
        {"kind": o.kind, "share": round(o.share, 4), "task": _row(o.task), "evaluation": _row(o.evaluation)}
        for o in overlaps
    ]


def lines(report: dict[str, Any]) -> list[str]:
    """The report in words."""
    sources = ", ".join(f"{name} {count}" for name, count in sorted(report["by_source"].items()))
    found = [
        f"training tasks: {report['train']} ({sources})",
        f"evaluation tasks: {report['held_out']} held out, {report['further_evaluation']} from tasks.decontaminate",
        f"copies left out: {report['copies_left_out']}; equivalent to a held-out task and left out: "
        f"{report['equivalent_to_held_out_left_out']}",
        f"training questions in the same words as another one: {len(report['twins'])} groups",
    ]
    found += [f"  {group[0]['question']!r} x {len(group)}" for group in report["twins"][:SHOWN]]
    fate = "left out of training" if report["are_left_out"] else "TRAINED ON; set tasks.decontaminate to leave them out"
    overlaps = report["overlaps"]
    found.append(
        f"training tasks that repeat an evaluation task (same words, or {report['share']:g} of their "
        f"{report['ngram']}-grams): {len(overlaps)}" + (f", {fate}" if overlaps else "")
    )
    found += [f"  {o['kind']} {o['share']:g}: {o['task']['question']!r}" for o in overlaps[:SHOWN]]
    return found


def _row(task: Task) -> dict[str, str]:
    question = " ".join(message.content for message in task.prompt if message.role != "system")
    return {"key": task.key, "source": task.source, "question": question[:_MAX_CHARS]}
