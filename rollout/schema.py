"""The types that cross rooms: what a task, a trajectory and a verdict are.

Every room may import this module and nothing else of another room, so it needs only the standard library and numpy.

Axis letters used in shapes, here and everywhere:
    L  tokens of one trajectory (prompt and response together)
    S  steps of one trajectory
    G  siblings of one group
    T  packed tokens of one micro-batch row
    N  sequences

All types are frozen, slotted, keyword-only and picklable. Arrays are checked for dtype and shape on construction and
made read-only, so a service cannot change what another one has stored. `eq=False` wherever an array is held: identity
is what a caller may rely on, and comparing arrays by accident is a bug.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rollout.policy_span import PolicySpan as PolicySpan

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
CharSpan = tuple[int, int]  # half-open [start, end) in characters of `Trajectory.text`

NO_META: Mapping[str, Any] = {}


def _checked(name: str, array: Any, dtype: type[np.generic], length: int | None) -> None:
    """Raise TypeError or ValueError unless `array` is one-dimensional, of `dtype`, and `length` long; then freeze
    it."""
    if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype):
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be a numpy array of {np.dtype(dtype)}, got {got}")
    if array.ndim != 1 or (length is not None and array.shape[0] != length):
        raise ValueError(f"{name} must have shape ({'*' if length is None else length},), got {array.shape}")
    array.setflags(write=False)


def _span_inside(name: str, span: CharSpan | None, length: int) -> None:
    if span is not None and not 0 <= span[0] <= span[1] <= length:
        raise ValueError(f"{name} must lie in [0, {length}], got {span}")


# ------------------------------------------------------------------------------------------------ tasks and jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A problem. `answer` is the reference that `verifier` (a registered name) judges against."""

    key: str
    prompt: tuple[Message, ...]
    answer: str
    verifier: str
    source: str
    skills: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError(f"a task needs at least one message, got none (source {self.source!r})")


def task_key(prompt: tuple[Message, ...], answer: str) -> str:
    """Content hash of a task, 16 hexadecimal digits: equal content has an equal key on every machine."""
    content = json.dumps([[(m.role, m.content) for m in prompt], answer], ensure_ascii=False)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBudget:
    """How long the model may think and answer in one effort mode. Counts are tokens; None means no separate cap.

    What is put in for the model is unsampled: `prefix` at the beginning of the response, then with `opens_thinking`
    the opening mark, and at the thinking cap `forced_close`, or what the format says where that is empty.
    `target_tokens` is the number of tokens that the instruction names.
    """

    effort: str
    max_prompt_tokens: int
    max_thinking_tokens: int | None
    max_answer_tokens: int
    instruction: str = ""
    opens_thinking: bool = False
    prefix: str = ""
    forced_close: str = ""
    target_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_prompt_tokens < 1 or self.max_answer_tokens < 1:
            raise ValueError(f"effort {self.effort!r}: prompt and answer limits must be at least 1 token")
        if self.max_thinking_tokens is not None and self.max_thinking_tokens < 0:
            raise ValueError(
                f"effort {self.effort!r}: max_thinking_tokens must be >= 0, got {self.max_thinking_tokens}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Decoding settings. temperature 0 is greedy; top_k 0 is off; seed None leaves it to the engine's own generator."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


class Purpose(enum.StrEnum):
    """Why a job is run. Only TRAIN jobs hold buffer slots and reach the learner; a BASELINE job is the greedy attempt
    that one of them is compared with."""

    TRAIN = "train"
    BASELINE = "baseline"
    EVAL = "eval"
    LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A task with its budget and sampling: what an engine is asked to do. One job makes one group."""

    group_id: str
    task: Task
    num_siblings: int
    budget: TokenBudget
    sampling: Sampling
    purpose: Purpose = Purpose.TRAIN

    def __post_init__(self) -> None:
        if self.num_siblings < 1:
            raise ValueError(f"num_siblings must be at least 1, got {self.num_siblings}")


# ------------------------------------------------------------------------------------------------ trajectories


class Finish(enum.StrEnum):
    """Why a trajectory ended. THINKING_CUT: the thinking cap closed the thinking by force, then an answer was
    sampled."""

    STOP = "stop"
    LENGTH = "length"
    THINKING_CUT = "thinking_cut"
    PROMPT_TOO_LONG = "prompt_too_long"
    ABORTED = "aborted"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """One attempt at a task, token-exact: prompt and response in one flat sequence with a mask.

    `sampled[t]` is True only for tokens the policy itself drew; prompt tokens, forced end-of-thinking tokens and
    injected text are False and carry no loss and no ratio. `sampler_logprobs[t]` is the natural-log probability that
    the engine reported for token t, after temperature; 0.0 where not sampled. `text` is the response decoded with its
    special tokens kept; `char_ends[t]` is the end of token t in `text` (0 for prompt tokens). The trailing end-of-
    sequence token, when sampled, is part of the sequence and of `text`'s character map but the spans below never
    include it.
    """

    group_id: str
    sibling: int
    token_ids: Int32Array  # [L]
    sampled: BoolArray  # [L]
    sampler_logprobs: Float32Array  # [L]
    char_ends: Int32Array  # [L]
    prompt_len: int
    text: str
    thinking: CharSpan | None  # inside the thinking marks, marks excluded; None when thinking was never opened
    answer: CharSpan | None  # after the closing mark; None when the thinking was never closed
    finish: Finish
    policy: PolicySpan
    error: str | None = None

    def __post_init__(self) -> None:
        length = len(self.token_ids)
        _checked("token_ids", self.token_ids, np.int32, None)
        _checked("sampled", self.sampled, np.bool_, length)
        _checked("sampler_logprobs", self.sampler_logprobs, np.float32, length)
        _checked("char_ends", self.char_ends, np.int32, length)
        if not 0 <= self.prompt_len <= length:
            raise ValueError(f"prompt_len must lie in [0, {length}], got {self.prompt_len}")
        if self.sampled[: self.prompt_len].any():
            raise ValueError("prompt tokens cannot be marked as sampled")
        if not np.isfinite(self.sampler_logprobs[self.sampled]).all():
            raise ValueError("sampler_logprobs must be finite where sampled")
        ends = self.char_ends
        if length and ((ends[1:] < ends[:-1]).any() or int(ends[-1]) > len(self.text)):
            raise ValueError("char_ends must not decrease and must stay inside text")
        _span_inside("thinking", self.thinking, len(self.text))
        _span_inside("answer", self.answer, len(self.text))

    @property
    def num_response_tokens(self) -> int:
        """Tokens after the prompt, forced ones included."""
        return len(self.token_ids) - self.prompt_len

    @property
    def thinking_text(self) -> str:
        return "" if self.thinking is None else self.text[self.thinking[0] : self.thinking[1]]

    @property
    def answer_text(self) -> str:
        return "" if self.answer is None else self.text[self.answer[0] : self.answer[1]]

    @property
    def num_thinking_tokens(self) -> int:
        """Sampled tokens inside the thinking marks: the quantity that a thinking cap limits."""
        if self.thinking is None:
            return 0
        start, end = self.tokens_of(self.thinking)
        return int(np.count_nonzero(self.sampled[start:end]))

    def tokens_of(self, span: CharSpan) -> tuple[int, int]:
        """Half-open token range whose characters lie in `span`; a token straddling the start belongs to the range."""
        ends = self.char_ends[self.prompt_len :]
        start = int(ends.searchsorted(span[0], side="right"))
        end = int(ends.searchsorted(span[1], side="left")) + 1 if span[1] > span[0] else start
        return self.prompt_len + start, min(self.prompt_len + end, len(self.token_ids))


# ------------------------------------------------------------------------------------------------ verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpan:
    """Half-open token range of one step, in token positions of the whole trajectory."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a step must hold at least one token, got [{self.start}, {self.end})")


class ScoreKind(enum.StrEnum):
    """What a step score means. PROB: P(step good) in [0, 1]. LOGRATIO: increment of beta*log-ratio. Q: cumulative
    value."""

    PROB = "prob"
    LOGRATIO = "logratio"
    Q = "q"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepScores:
    """Scores of the steps of one trajectory. NaN marks a step that the scorer could not judge; it is never read as
    0."""

    spans: tuple[StepSpan, ...]
    scores: Float32Array  # [S]
    kind: ScoreKind
    scorer: str
    version: int = 0
    truncated: bool = False
    notes: tuple[str, ...] = ()  # [S] or empty: why each step got its score, for reports

    def __post_init__(self) -> None:
        _checked("scores", self.scores, np.float32, len(self.spans))
        if any(a.end > b.start for a, b in zip(self.spans, self.spans[1:], strict=False)):
            raise ValueError("step spans must be ordered and disjoint")
        if self.kind is ScoreKind.PROB and any(score < 0 or score > 1 for score in self.scores.tolist()):
            raise ValueError(f"scores of kind prob must lie in [0, 1], got {self.scores}")
        if self.notes and len(self.notes) != len(self.spans):
            raise ValueError(f"notes must be empty or one per step, got {len(self.notes)} for {len(self.spans)} steps")


class Status(enum.StrEnum):
    """What happened when a trajectory was judged. Only JUDGED and UNPARSEABLE_ANSWER carry a score.

    UNPARSEABLE_ANSWER is the policy's fault (no answer, wrong format, an answer built to explode) and scores 0. The
    others are ours or the data's: the trajectory leaves its group's baseline and gets no advantage.
    """

    JUDGED = "judged"
    UNPARSEABLE_ANSWER = "unparseable_answer"
    BAD_REFERENCE = "bad_reference"
    TIMEOUT = "timeout"
    CRASH = "crash"
    SKIPPED = "skipped"


SCORED_STATUSES = frozenset({Status.JUDGED, Status.UNPARSEABLE_ANSWER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The verdict on one trajectory. `score` is in [0, 1], or None exactly when the status is not a scored one."""

    status: Status
    score: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.status in SCORED_STATUSES) != (self.score is not None):
            raise ValueError(f"status {self.status} and score {self.score} contradict each other")
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score must lie in [0, 1], got {self.score}")

    @property
    def is_scored(self) -> bool:
        return self.score is not None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """All siblings of one job, in sibling order."""

    job: Job
    trajectories: tuple[Trajectory, ...]  # [G]

    def __post_init__(self) -> None:
        if [t.sibling for t in self.trajectories] != list(range(self.job.num_siblings)):
            got = [t.sibling for t in self.trajectories]
            raise ValueError(f"a group needs siblings 0..{self.job.num_siblings - 1} in order, got {got}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredGroup:
    """A group with its verdicts. `shaped` holds one [G] float32 array per shaping term, added to the outcome score.

    `token_rewards` holds rewards that belong to a token, such as a KL penalty: one [L] float32 array per sibling, or
    nothing at all. `greedy` is the group of one greedy attempt at the same job, where an estimator asks for it.
    """

    group: Group
    outcomes: tuple[Outcome, ...]  # [G]
    steps: tuple[StepScores | None, ...]  # [G]; None: no step scorer, or it failed on this trajectory
    shaped: Mapping[str, Float32Array] = field(default_factory=dict)
    token_rewards: tuple[Float32Array, ...] = ()  # [G] of [L], or empty
    greedy: ScoredGroup | None = None

    def __post_init__(self) -> None:
        size = self.group.job.num_siblings
        if len(self.outcomes) != size or len(self.steps) != size:
            raise ValueError(
                f"expected {size} outcomes and step scores, got {len(self.outcomes)} and {len(self.steps)}"
            )
        for name, values in self.shaped.items():
            _checked(f"shaped[{name!r}]", values, np.float32, size)
        if self.token_rewards and len(self.token_rewards) != size:
            raise ValueError(f"expected token rewards of {size} siblings or none, got {len(self.token_rewards)}")
        for trajectory, rewards in zip(self.group.trajectories, self.token_rewards, strict=False):
            _checked("token_rewards", rewards, np.float32, len(trajectory.token_ids))

    @property
    def outcome_scores(self) -> Float32Array:
        """[G] outcome scores, NaN where unjudged."""
        scores = [np.nan if o.score is None else o.score for o in self.outcomes]
        return np.asarray(scores, dtype=np.float32)


# ------------------------------------------------------------------------------------------------ metrics

Reduce = Literal["mean", "sum", "max", "min", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that knows how it combines with its peers: 'mean' is weighted by `weight`."""

    name: str
    value: float
    weight: float = 1.0
    reduce: Reduce = "mean"
