"""What a policy that farms its step scores, or its verifier, looks like: numbers of every step, from its groups.

    hack/one_step_share         share of answers of at most one step, of those that have step scores
    hack/tokens_per_step        mean
    hack/repeated_tokens        share of an answer's tokens that stand in a run of NGRAM tokens seen before in it; mean
    hack/longest_repeat         tokens of the longest such stretch over the tokens of the answer; mean
    hack/boilerplate            share of answers with a courtesy, a greeting or an empty box
    hack/empty                  share of answers without a visible character
    steps/score_mean, score_std mean step score of an answer: mean and deviation over the judged answers of the step
    steps/worst_is_last         share of answers whose lowest score is the last step's, of those with two scored steps
                                and one lowest; high where most answers are right: answers are judged, not steps
    steps/correlation           correlation of that with the outcome; of the fresh answers, so it shows a stale scorer
Of all generated answers, dropped groups included. `rl/hack_alarms.py` turns them into alarms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from rl.record import Settled
from rl.verdict import is_correct
from rollout.schema import Finish, Metric, StepScores, Trajectory

NGRAM = 20
SHORT = 512  # tokens
_BASE = np.uint64(0x9E3779B97F4A7C15)
_NOT_GENERATED = (Finish.PROMPT_TOO_LONG, Finish.ABORTED, Finish.ERROR)
_BOILERPLATE = re.compile(r"\bthank(?:s| you)\b|\byou'?re welcome\b|\bhappy to help\b|\bhello\b|\\boxed\{\s*\}", re.I)
_MIN_PAIRS = 8
"""Judged and scored answers below which a correlation says nothing."""


def hack_metrics(groups: Sequence[Settled]) -> list[Metric]:
    """Metrics of the groups that were settled in one step."""
    answers = [
        (trajectory, steps, is_correct(outcome))
        for settled in groups
        for trajectory, steps, outcome in zip(
            settled.scored.group.trajectories, settled.scored.steps, settled.scored.outcomes, strict=True
        )
        if trajectory.finish not in _NOT_GENERATED
    ]
    metrics = [metric for trajectory, _, _ in answers for metric in _of_answer(trajectory)]
    metrics += [metric for _, steps, _ in answers if steps is not None for metric in _of_steps(steps)]
    scored = [(_mean(steps), float(right)) for _, steps, right in answers if steps is not None and right is not None]
    return [*metrics, *_of_scores(np.asarray([pair for pair in scored if not np.isnan(pair[0])]).reshape(-1, 2))]


def repeated(token_ids: npt.NDArray[np.int32], n: int = NGRAM) -> npt.NDArray[np.bool_]:
    """[L] True at tokens of runs of `n` tokens that stand earlier in the same sequence, too."""
    mask = np.zeros(len(token_ids), dtype=np.bool_)
    if len(token_ids) < n + 1:
        return mask
    if len(token_ids) <= SHORT:  # the same by a set of windows, which costs a fifth there
        return _repeated_in_short(token_ids, n)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64: windows are compared by a polynomial hash
        hashes = np.zeros(len(token_ids) - n + 1, dtype=np.uint64)
        for offset in range(n):
            hashes = hashes * _BASE + token_ids[offset : offset + len(hashes)].astype(np.uint64) + np.uint64(1)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    starts = np.flatnonzero(first[inverse] < np.arange(len(hashes)))
    edges = np.zeros(len(token_ids) + 1, dtype=np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + n, -1)
    found: npt.NDArray[np.bool_] = np.cumsum(edges[:-1]) > 0
    return found


def _repeated_in_short(token_ids: npt.NDArray[np.int32], n: int) -> npt.NDArray[np.bool_]:
    size = token_ids.itemsize
    text, seen, starts = token_ids.tobytes(), set(), []
    for start in range(len(token_ids) - n + 1):
        window = text[start * size : (start + n) * size]
        if window in seen:
            starts.append(start)
        else:
            seen.add(window)
    mask = np.zeros(len(token_ids), dtype=np.bool_)
    for start in starts:
        mask[start : start + n] = True
    return mask


def longest_run(mask: npt.NDArray[np.bool_]) -> int:
    """Length of the longest stretch of True."""
    if not mask.any():
        return 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _of_answer(trajectory: Trajectory) -> Iterator[Metric]:
    tokens = trajectory.token_ids[trajectory.sampled]
    mask = repeated(tokens)
    size = max(1, len(tokens))
    yield Metric(name="hack/repeated_tokens", value=float(mask.sum()) / size)
    yield Metric(name="hack/longest_repeat", value=longest_run(mask) / size)
    yield Metric(name="hack/boilerplate", value=float(_BOILERPLATE.search(trajectory.text) is not None))
    visible = trajectory.thinking_text.strip() or trajectory.answer_text.strip()
    yield Metric(name="hack/empty", value=float(not visible))


def _of_steps(steps: StepScores) -> Iterator[Metric]:
    yield Metric(name="hack/one_step_share", value=float(len(steps.spans) <= 1))
    if steps.spans:
        lengths = [span.end - span.start for span in steps.spans]
        yield Metric(name="hack/tokens_per_step", value=float(np.mean(lengths)), weight=len(lengths))
    known = steps.scores[~np.isnan(steps.scores)]
    lowest = np.flatnonzero(known == known.min()) if known.size > 1 else known[:0]
    if lowest.size == 1:
        yield Metric(name="steps/worst_is_last", value=float(lowest[0] == known.size - 1))


def _of_scores(pairs: npt.NDArray[np.float64]) -> Iterator[Metric]:
    """`pairs` [N, 2]: mean step score and verdict of each answer that has both."""
    if not len(pairs):
        return
    scores, verdicts = pairs.T
    yield Metric(name="steps/score_mean", value=float(scores.mean()), reduce="last")
    yield Metric(name="steps/score_std", value=float(scores.std()), reduce="last")
    if len(pairs) >= _MIN_PAIRS and scores.std() > 0 and verdicts.std() > 0:
        yield Metric(name="steps/correlation", value=float(np.corrcoef(scores, verdicts)[0, 1]), reduce="last")


def _mean(steps: StepScores) -> float:
    known = steps.scores[~np.isnan(steps.scores)]
    return float(known.mean(dtype=np.float64)) if known.size else float("nan")
