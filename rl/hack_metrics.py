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

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from rl.record import Settled
from rl.segments import Segments
from rl.verdict import is_correct
from rollout.schema import Finish, Metric, StepScores, Trajectory

NGRAM = 20
SHORT = 512  # tokens
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_NOT_GENERATED = (Finish.PROMPT_TOO_LONG, Finish.ABORTED, Finish.ERROR)
_BOILERPLATE = re.compile(r"\bthank(?:s| you)\b|\byou'?re welcome\b|\bhappy to help\b|\bhello\b|\\boxed\{\s*\}", re.I)
_BOILERPLATE_WORDS = ("thank", "welcome", "happy to help", "hello", "boxed{")
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
    scored = [(_mean(steps), float(right)) for _, steps, right in answers if steps is not None and right is not None]
    return [
        *_of_answers([trajectory for trajectory, _, _ in answers]),
        *_of_steps([steps for _, steps, _ in answers if steps is not None]),
        *_of_scores(np.asarray([pair for pair in scored if not math.isnan(pair[0])]).reshape(-1, 2)),
    ]


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


def may_repeat(token_ids: npt.NDArray[np.int32], answers: Segments, n: int = NGRAM) -> npt.NDArray[np.bool_]:
    """[N] whether an answer may have a run of `n` tokens twice: False is certain. `token_ids` of all end to end.

    Every run gets a hash of its tokens and its answer, all answers at once, and few answers have one twice.
    """
    num_runs = np.maximum(answers.lengths - n + 1, 0)
    if not num_runs.any():
        return num_runs > 0
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        hashes = _run_hashes(token_ids, n)
        runs = Segments(num_runs)
        owner = np.repeat(np.arange(num_runs.size), num_runs)
        place = np.arange(owner.size) + (answers.starts - runs.starts)[owner]
        marked = (hashes[place] ^ (owner.astype(np.uint64) * _MIX)) * _BASE
    in_order = np.sort(marked)
    twice = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    found = np.zeros(num_runs.size, dtype=np.bool_)
    if twice.size:
        found[owner[np.isin(marked, twice)]] = True
    return found


def _run_hashes(token_ids: npt.NDArray[np.int32], n: int) -> npt.NDArray[np.uint64]:
    """[L] polynomial hash of the `n` tokens from each place on, by doubling; at the last places it means nothing."""
    power = token_ids.astype(np.uint64) + np.uint64(1)  # hash of the next `size` tokens
    total, taken, size = np.zeros(len(token_ids), dtype=np.uint64), 0, 1
    while True:
        if n & size:
            total = total * np.uint64(pow(int(_BASE), size, 1 << 64)) + _moved(power, taken)
            taken += size
        if taken == n:
            return total
        power = power * np.uint64(pow(int(_BASE), size, 1 << 64)) + _moved(power, size)
        size *= 2


def _moved(values: npt.NDArray[np.uint64], by: int) -> npt.NDArray[np.uint64]:
    """[L] what stands `by` places later."""
    return np.concatenate([values[by:], values[: min(by, len(values))]]) if by else values


def _of_answers(trajectories: Sequence[Trajectory]) -> Iterator[Metric]:
    """Means over the answers, one metric each."""
    if not trajectories:
        return
    num, sampled = len(trajectories), np.concatenate([t.sampled for t in trajectories])
    tokens = np.concatenate([t.token_ids for t in trajectories])[sampled]
    answers = Segments.of([t.token_ids for t in trajectories]).within(sampled)
    share, longest = 0.0, 0.0
    for i in np.flatnonzero(may_repeat(tokens, answers)).tolist():
        mask = repeated(tokens[answers.starts[i] : answers.ends[i]])
        share += float(mask.sum()) / len(mask)
        longest += longest_run(mask) / len(mask)
    yield Metric(name="hack/repeated_tokens", value=share / num, weight=num)
    yield Metric(name="hack/longest_repeat", value=longest / num, weight=num)
    yield Metric(name="hack/boilerplate", value=sum(map(_has_boilerplate, trajectories)) / num, weight=num)
    empty = sum(not (t.thinking_text.strip() or t.answer_text.strip()) for t in trajectories)
    yield Metric(name="hack/empty", value=empty / num, weight=num)


def _has_boilerplate(trajectory: Trajectory) -> bool:
    lower = trajectory.text.lower()  # one of these words is in whatever the expression finds, and is looked for faster
    return any(word in lower for word in _BOILERPLATE_WORDS) and _BOILERPLATE.search(trajectory.text) is not None


def _of_steps(scored: Sequence[StepScores]) -> Iterator[Metric]:
    if not scored:
        return
    one_step = sum(len(steps.spans) <= 1 for steps in scored)
    yield Metric(name="hack/one_step_share", value=one_step / len(scored), weight=len(scored))
    lengths = [span.end - span.start for steps in scored for span in steps.spans]
    if lengths:
        yield Metric(name="hack/tokens_per_step", value=sum(lengths) / len(lengths), weight=len(lengths))
    worst_is_last = [is_last for steps in scored if (is_last := _worst_is_last(steps)) is not None]
    if worst_is_last:
        share = sum(worst_is_last) / len(worst_is_last)
        yield Metric(name="steps/worst_is_last", value=share, weight=len(worst_is_last))


def _worst_is_last(steps: StepScores) -> bool | None:
    """Whether the lowest score is the last one; None where no single score is the lowest of several."""
    known = [score for score in steps.scores.tolist() if score == score]  # the others are NaN
    if len(known) < 2 or known.count(lowest := min(known)) > 1:
        return None
    return bool(known[-1] == lowest)


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
    known = [score for score in steps.scores.tolist() if score == score]  # the others are NaN
    return sum(known) / len(known) if known else math.nan
