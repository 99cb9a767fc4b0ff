"""Worked numbers of a step's metrics: rewards by source, groups, lengths, advantages by length, staleness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rl.batch import TrainingBatch
from rl.metrics import reduce_metrics
from rl.record import Fate, Settled
from rl.step_metrics import batch_metrics, group_metrics
from rollout.schema import Finish
from tests.fakes.learner import training_sample
from tests.fakes.loop import make_job, make_scored, make_tasks


def settled(
    source: str,
    scores: Sequence[float | None],
    *,
    lengths: Sequence[int] = (),
    finishes: Sequence[Finish] = (),
    shaped: dict[str, Sequence[float]] | None = None,
) -> Settled:
    task = replace(make_tasks(1)[0], source=source)
    scored = make_scored(scores, shaped=shaped, job=make_job(num_siblings=len(scores), task=task))
    trajectories = list(scored.group.trajectories)
    for i, length in enumerate(lengths):
        trajectories[i] = make_scored([1.0], length=length).group.trajectories[0]
        trajectories[i] = replace(trajectories[i], sibling=i)
    for i, finish in enumerate(finishes):
        trajectories[i] = replace(trajectories[i], finish=finish)
    group = replace(scored.group, trajectories=tuple(trajectories))
    return Settled(scored=replace(scored, group=group), fate=Fate(name="trained", step=1))


def test_rewards_by_source_and_accuracy_apart_from_shaping() -> None:
    groups = [
        settled("sums", [1.0, 0.0], shaped={"length": [-0.5, 0.0]}),
        settled("proofs", [1.0, None, 1.0]),
    ]
    values = reduce_metrics(group_metrics(groups))
    assert values["source/sums/reward_mean"] == 0.25 and values["source/sums/reward_std"] == 0.25
    assert values["source/sums/accuracy"] == 0.5
    assert values["source/proofs/reward_mean"] == 1.0 and values["source/proofs/reward_std"] == 0.0
    assert values["train/accuracy"] == 0.75
    assert values["reward/mean"] == pytest.approx(0.625)  # 0.5, 0, 1, 1: the unjudged answer is not a zero
    assert values["reward/std"] == pytest.approx(np.std([0.5, 0.0, 1.0, 1.0]))


def test_shares_of_groups_without_contrast_leave_out_groups_with_one_verdict() -> None:
    groups = [settled("x", s) for s in ([1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, None], [None, None])]
    values = reduce_metrics(group_metrics(groups))
    assert (values["groups/all_right"], values["groups/all_wrong"]) == (0.25, 0.5)


def test_nothing_judged_means_no_reward_at_all() -> None:
    values = reduce_metrics(group_metrics([settled("x", [None, None])]))
    assert not [name for name in values if name.startswith(("reward/", "source/", "groups/all", "train/accuracy"))]


def test_response_lengths_leave_out_what_was_never_generated() -> None:
    stop, cut = Finish.STOP, Finish.LENGTH
    group = settled(
        "x",
        [1.0, 0.0, 0.0, 1.0, None],
        lengths=[2, 4, 6, 20, 1],
        finishes=[stop, stop, Finish.THINKING_CUT, cut, Finish.ERROR],
    )
    values = reduce_metrics(group_metrics([group]))
    assert values["response/tokens_mean"] == 8.0
    assert values["response/tokens_p95"] == pytest.approx(6 + 0.85 * 14)  # rank 0.95 * 3 between the last two
    assert values["response/truncated"] == 0.5


def batch(lengths: Sequence[int], advantages: Sequence[float]) -> TrainingBatch:
    samples = tuple(
        training_sample(i, length=3 + length, advantage=advantage)
        for i, (length, advantage) in enumerate(zip(lengths, advantages, strict=True))
    )
    return TrainingBatch(step=1, version=0, samples=samples, num_groups=1)


def test_advantages_by_length_quarter() -> None:
    """Lengths 1 to 8: two samples a quarter. Every sample counts once, however long it is."""
    made = batch([8, 1, 3, 5, 2, 4, 7, 6], [-1.0, 1.0, 0.5, 0.0, 1.0, -0.5, 1.0, 0.0])
    values = reduce_metrics(batch_metrics(made, [0] * 8))
    quarters = ("shortest", "shorter", "longer", "longest")
    assert [values[f"advantage/mean_of_{q}"] for q in quarters] == [1.0, 0.0, 0.0, 0.0]
    assert [values[f"advantage/size_of_{q}"] for q in quarters] == [1.0, 0.5, 0.0, 1.0]


def test_answers_of_one_length_share_a_quarter() -> None:
    values = reduce_metrics(batch_metrics(batch([5, 5, 5, 5, 9], [1.0, -1.0, 1.0, 1.0, 3.0]), [0] * 5))
    assert values["advantage/mean_of_shortest"] == 0.5 and values["advantage/mean_of_longest"] == 3.0
    assert "advantage/mean_of_shorter" not in values and "advantage/mean_of_longer" not in values


def test_staleness_is_a_histogram_over_samples() -> None:
    values = reduce_metrics(batch_metrics(batch([2, 2, 2, 2], [1.0] * 4), [0, 2, 2, 1]))
    assert {n: v for n, v in values.items() if n.startswith("staleness/")} == {
        "staleness/lag_0": 0.25,
        "staleness/lag_1": 0.25,
        "staleness/lag_2": 0.5,
    }
    assert values["buffer/max_staleness"] == 2


def test_an_empty_batch_has_no_distribution() -> None:
    empty = TrainingBatch(step=1, version=0, samples=(), num_groups=1)
    assert set(reduce_metrics(batch_metrics(empty, []))) == {
        "batch/samples",
        "batch/loss_tokens",
        "buffer/max_staleness",
    }
