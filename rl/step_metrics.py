"""The numbers of one training step, read from its groups.

    reward/mean, reward/std               over judged answers: reward with shaping terms
    reward/parts/<name>                   what it is made of
    source/<source>/...                   the same reward, and accuracy, of the tasks of one source
    train/accuracy, train/<effort>/...    accuracy over judged answers, which no shaping touches; thinking tokens, cuts
    response/...                          sampled tokens of the answers that could be generated: mean, p95, share cut
    groups/all_right, groups/all_wrong    shares of the groups with at least two judged answers
    dropped/<reason>, unjudged/<status>   groups without signal, answers without verdict: counts of this step
    advantage/..._of_<quarter>            of what is trained on: mean advantage, and mean size, by response length
    staleness/lag_<n>                     share of the samples whose oldest token is n batches old when trained on;
                                          of single tokens, see `rl/staleness.py`
    steps/...                             step scores, and whether they agree with the outcome
    hack/...                              signs of reward hacking, see `rl/hack_metrics.py`
    time/<phase>_s, ...tokens_per_s       see `rl/phases.py`
    idle/<role>                           share of the step in which a role had nothing to do; time/starve_s is the part
                                          of the learner's that it waited for a batch
Groups that were dropped count everywhere here: leaving them out would show the filter instead of the model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rl.batch import TrainingBatch
from rl.hack_metrics import hack_metrics
from rl.phases import Lap
from rl.record import Settled
from rl.verdict import final_rewards, is_correct
from rollout.schema import Finish, Metric, ScoreKind

CUT = (Finish.LENGTH, Finish.THINKING_CUT)
"""Ends of an answer that a limit brought about."""

NOT_GENERATED = (Finish.PROMPT_TOO_LONG, Finish.ABORTED, Finish.ERROR)
"""Ends without an answer of the model's own length."""

LENGTH_QUARTERS = ("shortest", "shorter", "longer", "longest")
"""Quarters of a batch by response length, as metric names say them."""

MIN_JUDGED = 2
"""Judged answers from which a group can be called all right or all wrong."""

REPORTED_PHASES = ("generate", "judge", "score_steps", "learn", "publish", "starve")
"""Phases with a metric in every step, also when they took no time; "starve" is the learner waiting for a batch."""


ROLES = {"engines": ("generate",), "judge": ("judge",), "learner": ("learn", "publish")}
"""Phases in which a role is at work; those of one role never overlap."""


def group_metrics(groups: Sequence[Settled]) -> list[Metric]:
    """Metrics of the groups that were settled in one step."""
    metrics = [metric for settled in groups for metric in _of_group(settled)]
    return [*metrics, *_of_rewards(groups), *_of_responses(groups), *hack_metrics(groups)]


def batch_metrics(batch: TrainingBatch, lags: Sequence[int]) -> list[Metric]:
    """Metrics of what is trained on. `lags` are batches published between sampling and training, one a
    fresh sample."""
    metrics = [
        Metric(name="batch/samples", value=len(batch.samples), reduce="last"),
        Metric(name="batch/loss_tokens", value=batch.num_loss_tokens, reduce="last"),
        Metric(name="buffer/max_staleness", value=max(lags, default=0), reduce="last"),
    ]
    metrics += [
        Metric(name=f"staleness/lag_{lag}", value=count / len(lags), reduce="last")
        for lag, count in sorted(Counter(lags).items())
    ]
    if batch.num_loss_tokens:
        tokens = [s.advantages[s.loss_mask].astype(np.float64) for s in batch.samples]
        rms = float(np.sqrt(np.mean(np.concatenate(tokens) ** 2)))
        metrics.append(Metric(name="batch/advantage_rms", value=rms, reduce="last"))
        metrics += _of_advantages([values for values in tokens if values.size])
    return metrics


def labelled(batch: TrainingBatch, metrics: Iterable[Metric]) -> Iterable[Metric]:
    """The learner's metrics of a batch, under the batch's label if it has one."""
    return [replace(m, name=f"{batch.label}/{m.name}") for m in metrics] if batch.label else metrics


def _of_advantages(samples: Sequence[npt.NDArray[np.float64]]) -> Iterator[Metric]:
    """Mean advantage and mean |advantage| of the samples of each quarter, by response length.

    A sample counts once, with the mean over its loss tokens. Samples of one length share a quarter, however they are
    ordered, so a quarter may be empty; it has no metric then.
    """
    lengths = np.asarray([values.size for values in samples])
    quarters = np.searchsorted(np.quantile(lengths, [0.25, 0.5, 0.75]), lengths, side="left")
    for number, quarter in enumerate(LENGTH_QUARTERS):
        inside = [samples[i] for i in np.flatnonzero(quarters == number)]
        if inside:
            mean = float(np.mean([values.mean() for values in inside]))
            size = float(np.mean([np.abs(values).mean() for values in inside]))
            yield Metric(name=f"advantage/mean_of_{quarter}", value=mean, reduce="last")
            yield Metric(name=f"advantage/size_of_{quarter}", value=size, reduce="last")


def time_metrics(lap: Lap, num_loss_tokens: int) -> list[Metric]:
    """Seconds per phase, and tokens per busy second of the phases that handle tokens."""
    metrics = [Metric(name="time/step_s", value=lap.seconds, reduce="last")]
    phases = [*REPORTED_PHASES, *(n for n in lap.busy_s if n not in REPORTED_PHASES)]
    metrics += [Metric(name=f"time/{n}_s", value=lap.busy_s.get(n, 0.0), reduce="last") for n in phases]
    if lap.seconds > 0:
        for role, work in ROLES.items():
            share = 1 - sum(lap.busy_s.get(phase, 0.0) for phase in work) / lap.seconds
            metrics.append(Metric(name=f"idle/{role}", value=max(share, 0.0), reduce="last"))
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
    verdicts = [v for v in map(is_correct, scored.outcomes) if v is not None]
    if len(verdicts) >= MIN_JUDGED:
        yield Metric(name="groups/all_right", value=float(all(verdicts)))
        yield Metric(name="groups/all_wrong", value=float(not any(verdicts)))
    for sibling, (trajectory, outcome) in enumerate(zip(scored.group.trajectories, scored.outcomes, strict=True)):
        yield Metric(name=f"train/{effort}/thinking_tokens", value=trajectory.num_thinking_tokens)
        yield Metric(name=f"train/{effort}/truncated", value=float(trajectory.finish in CUT))
        right = is_correct(outcome)
        if right is None:
            yield Metric(name=f"unjudged/{outcome.status}", value=1, reduce="sum")
            continue
        yield Metric(name=f"train/{effort}/accuracy", value=float(right))
        yield Metric(name="train/accuracy", value=float(right))
        yield Metric(name=f"source/{scored.group.job.task.source}/accuracy", value=float(right))
        for name, value in outcome.parts.items():
            yield Metric(name=f"reward/parts/{name}", value=value)
        for name, values in scored.shaped.items():
            yield Metric(name=f"reward/parts/{name}", value=float(values[sibling]))
        yield from _of_steps(settled, sibling, right)


def _of_rewards(groups: Sequence[Settled]) -> Iterator[Metric]:
    """Mean and standard deviation of the judged rewards, of all answers and of each source of tasks."""
    by_source: defaultdict[str, list[float]] = defaultdict(list)
    for settled in groups:
        rewards = final_rewards(settled.scored)
        by_source[settled.scored.group.job.task.source].extend(rewards[~np.isnan(rewards)].tolist())
    yield from _spread("reward/mean", "reward/std", [r for values in by_source.values() for r in values])
    for source, values in by_source.items():
        yield from _spread(f"source/{source}/reward_mean", f"source/{source}/reward_std", values)


def _of_responses(groups: Sequence[Settled]) -> Iterator[Metric]:
    """Sampled tokens per answer over all efforts, and the share of answers that a limit cut."""
    answers = [t for settled in groups for t in settled.scored.group.trajectories if t.finish not in NOT_GENERATED]
    if answers:
        lengths = [int(np.count_nonzero(t.sampled)) for t in answers]
        yield Metric(name="response/tokens_mean", value=float(np.mean(lengths)), reduce="last")
        yield Metric(name="response/tokens_p95", value=float(np.quantile(lengths, 0.95)), reduce="last")
        yield Metric(
            name="response/truncated", value=sum(t.finish in CUT for t in answers) / len(answers), reduce="last"
        )


def _spread(mean: str, std: str, values: Sequence[float]) -> Iterable[Metric]:
    if values:
        yield Metric(name=mean, value=float(np.mean(values)), reduce="last")
        yield Metric(name=std, value=float(np.std(values)), reduce="last")


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
