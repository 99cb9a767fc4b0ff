"""The numbers of one training step, read from its groups.

    reward/mean, reward/parts/<name>      over judged answers: reward with shaping terms, and what it is made of
    train/<effort>/...                    accuracy over judged answers, thinking tokens, share of cut answers
    dropped/<reason>, unjudged/<status>   groups without signal, answers without verdict: counts of this step
    steps/...                             step scores, and whether they agree with the outcome
    time/<phase>_s, ...tokens_per_s       see `rl/phases.py`
Groups that were dropped count everywhere here: leaving them out would show the filter instead of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rl.batch import TrainingBatch
from rl.phases import Lap
from rl.record import Settled
from rl.verdict import final_rewards, is_correct
from rollout.schema import Finish, Metric, ScoreKind

REPORTED_PHASES = ("generate", "judge", "score_steps", "learn", "publish", "starve")
"""Phases with a metric in every step, also when they took no time; "starve" is the learner waiting for a batch."""


def group_metrics(groups: Sequence[Settled]) -> list[Metric]:
    """Metrics of the groups that were settled in one step."""
    return [metric for settled in groups for metric in _of_group(settled)]


def batch_metrics(batch: TrainingBatch, max_staleness: int) -> list[Metric]:
    """Metrics of what is trained on. `max_staleness` is in batches published between sampling and training."""
    tokens = [s.advantages[s.loss_mask] for s in batch.samples]
    metrics = [
        Metric(name="batch/samples", value=len(batch.samples), reduce="last"),
        Metric(name="batch/loss_tokens", value=batch.num_loss_tokens, reduce="last"),
        Metric(name="buffer/max_staleness", value=max_staleness, reduce="last"),
    ]
    if batch.num_loss_tokens:
        rms = float(np.sqrt(np.mean(np.concatenate(tokens).astype(np.float64) ** 2)))
        metrics.append(Metric(name="batch/advantage_rms", value=rms, reduce="last"))
    return metrics


def time_metrics(lap: Lap, num_loss_tokens: int) -> list[Metric]:
    """Seconds per phase, and tokens per busy second of the phases that handle tokens."""
    metrics = [Metric(name="time/step_s", value=lap.seconds, reduce="last")]
    metrics += [Metric(name=f"time/{n}_s", value=lap.busy_s.get(n, 0.0), reduce="last") for n in REPORTED_PHASES]
    for name, phase, tokens in (("generate", "generate", lap.num_sampled_tokens), ("learn", "learn", num_loss_tokens)):
        seconds = lap.busy_s.get(phase, 0.0)
        if seconds > 0:
            metrics.append(Metric(name=f"{name}/tokens_per_s", value=tokens / seconds, reduce="last"))
    return metrics


def _of_group(settled: Settled) -> Iterator[Metric]:
    scored = settled.scored
    effort = scored.group.job.budget.effort
    if settled.fate.name == "dropped":
        yield Metric(name=f"dropped/{settled.fate.reason}", value=1, reduce="sum")
    yield Metric(name="groups/trained_share", value=float(settled.fate.name == "trained"))
    rewards = final_rewards(scored)
    for sibling, (trajectory, outcome) in enumerate(zip(scored.group.trajectories, scored.outcomes, strict=True)):
        yield Metric(name=f"train/{effort}/thinking_tokens", value=trajectory.num_thinking_tokens)
        is_cut = trajectory.finish in (Finish.LENGTH, Finish.THINKING_CUT)
        yield Metric(name=f"train/{effort}/truncated", value=float(is_cut))
        right = is_correct(outcome)
        if right is None:
            yield Metric(name=f"unjudged/{outcome.status}", value=1, reduce="sum")
            continue
        yield Metric(name=f"train/{effort}/accuracy", value=float(right))
        yield Metric(name="reward/mean", value=float(rewards[sibling]))
        for name, value in outcome.parts.items():
            yield Metric(name=f"reward/parts/{name}", value=value)
        for name, values in scored.shaped.items():
            yield Metric(name=f"reward/parts/{name}", value=float(values[sibling]))
        yield from _of_steps(settled, sibling, right)


def _of_steps(settled: Settled, sibling: int, right: bool) -> Iterator[Metric]:
    steps = settled.scored.steps[sibling]
    if steps is None:
        return
    is_judged = ~np.isnan(steps.scores)
    yield Metric(name="steps/per_answer", value=len(steps.spans))
    if steps.spans:
        yield Metric(name="steps/judged_share", value=float(is_judged.mean()), weight=len(steps.spans))
    if is_judged.any():
        mean = float(steps.scores[is_judged].mean())
        name = "right" if right else "wrong"
        yield Metric(name=f"steps/score_of_{name}_answers", value=mean, weight=int(is_judged.sum()))
        if steps.kind is ScoreKind.PROB:
            agrees = bool((steps.scores[is_judged] >= 0.5).all()) == right
            yield Metric(name="steps/agree_with_outcome", value=float(agrees))
