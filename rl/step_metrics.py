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
from rl.segments import Segments, joined, thinking_tokens
from rl.verdict import final_rewards, is_correct
from rollout.schema import Finish, Metric, ScoredGroup, ScoreKind, StepScores

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
    return [*_of_groups(groups), *_of_rewards(groups), *_of_responses(groups), *hack_metrics(groups)]


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
    masks = joined([s.loss_mask for s in batch.samples], np.bool_)
    if masks.any():
        tokens = joined([s.advantages for s in batch.samples], np.float32)[masks].astype(np.float64)
        rms = float(np.sqrt(np.mean(tokens**2)))
        metrics.append(Metric(name="batch/advantage_rms", value=rms, reduce="last"))
        metrics += _of_advantages(tokens, Segments.of([s.loss_mask for s in batch.samples]).within(masks))
    return metrics


def labelled(batch: TrainingBatch, metrics: Iterable[Metric]) -> Iterable[Metric]:
    """The learner's metrics of a batch, under the batch's label if it has one."""
    return [replace(m, name=f"{batch.label}/{m.name}") for m in metrics] if batch.label else metrics


def _of_advantages(tokens: npt.NDArray[np.float64], samples: Segments) -> Iterator[Metric]:
    """Mean advantage and mean |advantage| of the samples of each quarter, by response length.

    A sample counts once, with the mean over its loss tokens. Samples of one length share a quarter, however they are
    ordered, so a quarter may be empty; it has no metric then.
    """
    some = samples.lengths > 0
    lengths = samples.lengths[some]
    means = samples.reduce(np.add, tokens, 0.0)[some] / lengths
    sizes = samples.reduce(np.add, np.abs(tokens), 0.0)[some] / lengths
    quarters = np.searchsorted(np.quantile(lengths, [0.25, 0.5, 0.75]), lengths, side="left")
    for number, quarter in enumerate(LENGTH_QUARTERS):
        inside = quarters == number
        if inside.any():
            yield Metric(name=f"advantage/mean_of_{quarter}", value=float(means[inside].mean()), reduce="last")
            yield Metric(name=f"advantage/size_of_{quarter}", value=float(sizes[inside].mean()), reduce="last")


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


class _Tally:
    """Means and counts by name, in order of first appearance: one metric a name, not one an answer."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}  # name -> sum of weight * value, sum of weights
        self._counts: Counter[str] = Counter()

    def mean(self, name: str, value: float, weight: float = 1.0) -> None:
        sums = self._sums.get(name)
        if sums is None:
            sums = self._sums[name] = [0.0, 0.0]
        sums[0] += weight * value
        sums[1] += weight

    def count(self, name: str) -> None:
        self._counts[name] += 1

    def metrics(self) -> Iterator[Metric]:
        for name, (total, weight) in self._sums.items():
            yield Metric(name=name, value=total / weight, weight=weight)
        for name, count in self._counts.items():
            yield Metric(name=name, value=count, reduce="sum")


def _of_groups(groups: Sequence[Settled]) -> Iterator[Metric]:
    tally = _Tally()
    thinking = iter(thinking_tokens([t for settled in groups for t in settled.scored.group.trajectories]).tolist())
    for settled in groups:
        scored = settled.scored
        if settled.fate.name == "dropped":
            tally.count(f"dropped/{settled.fate.reason}")
        tally.mean("groups/trained_share", settled.fate.name == "trained")
        verdicts = [v for v in map(is_correct, scored.outcomes) if v is not None]
        if len(verdicts) >= MIN_JUDGED:
            tally.mean("groups/all_right", all(verdicts))
            tally.mean("groups/all_wrong", not any(verdicts))
        _of_answers(tally, scored, thinking)
    yield from tally.metrics()


def _of_answers(tally: _Tally, scored: ScoredGroup, thinking: Iterator[int]) -> None:
    job = scored.group.job
    effort = f"train/{job.budget.effort}"
    tokens_name, cut_name, accuracy_name = f"{effort}/thinking_tokens", f"{effort}/truncated", f"{effort}/accuracy"
    source_name = f"source/{job.task.source}/accuracy"
    shaped = [(f"reward/parts/{name}", values.tolist()) for name, values in scored.shaped.items()]
    for sibling, (trajectory, outcome) in enumerate(zip(scored.group.trajectories, scored.outcomes, strict=True)):
        tally.mean(tokens_name, next(thinking))
        tally.mean(cut_name, trajectory.finish in CUT)
        right = is_correct(outcome)
        if right is None:
            tally.count(f"unjudged/{outcome.status}")
            continue
        tally.mean(accuracy_name, right)
        tally.mean("train/accuracy", right)
        tally.mean(source_name, right)
        for name, value in outcome.parts.items():
            tally.mean(f"reward/parts/{name}", value)
        for name, values in shaped:
            tally.mean(name, values[sibling])
        if (steps := scored.steps[sibling]) is not None:
            _of_steps(tally, steps, right)


def _of_rewards(groups: Sequence[Settled]) -> Iterator[Metric]:
    """Mean and standard deviation of the judged rewards, of all answers and of each source of tasks."""
    by_source: defaultdict[str, list[float]] = defaultdict(list)
    for settled in groups:
        rewards = final_rewards(settled.scored).tolist()
        by_source[settled.scored.group.job.task.source].extend(r for r in rewards if r == r)  # NaN where unjudged
    yield from _spread("reward/mean", "reward/std", [r for values in by_source.values() for r in values])
    for source, values in by_source.items():
        yield from _spread(f"source/{source}/reward_mean", f"source/{source}/reward_std", values)


def _of_responses(groups: Sequence[Settled]) -> Iterator[Metric]:
    """Sampled tokens per answer over all efforts, and the share of answers that a limit cut."""
    answers = [t for settled in groups for t in settled.scored.group.trajectories if t.finish not in NOT_GENERATED]
    if answers:
        sampled = np.concatenate([t.sampled for t in answers])
        lengths = Segments.of([t.sampled for t in answers]).counts(sampled)
        yield Metric(name="response/tokens_mean", value=float(np.mean(lengths)), reduce="last")
        yield Metric(name="response/tokens_p95", value=float(np.quantile(lengths, 0.95)), reduce="last")
        yield Metric(
            name="response/truncated", value=sum(t.finish in CUT for t in answers) / len(answers), reduce="last"
        )


def _spread(mean: str, std: str, values: Sequence[float]) -> Iterable[Metric]:
    if values:
        yield Metric(name=mean, value=float(np.mean(values)), reduce="last")
        yield Metric(name=std, value=float(np.std(values)), reduce="last")


def _of_steps(tally: _Tally, steps: StepScores, right: bool) -> None:
    scores = steps.scores.tolist()
    judged = [score for score in scores if score == score]  # the others are NaN
    tally.mean("steps/per_answer", len(scores))
    if scores:
        tally.mean("steps/judged_share", len(judged) / len(scores), len(scores))
    if judged:
        tally.mean(f"steps/score_of_{'right' if right else 'wrong'}_answers", sum(judged) / len(judged), len(judged))
        if steps.kind is ScoreKind.PROB:
            tally.mean("steps/agree_with_outcome", (min(judged) >= 0.5) == right)
