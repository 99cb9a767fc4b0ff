"""Whatever crosses a process survives it: equal content, same shapes, arrays still frozen where they were."""

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from rl.batch import StepResult, TrainingBatch, TrainingSample
from rollout.schema import (
    Finish,
    Group,
    Job,
    Message,
    Metric,
    Outcome,
    PolicySpan,
    Purpose,
    Sampling,
    ScoredGroup,
    ScoreKind,
    Status,
    StepScores,
    StepSpan,
    Task,
    TokenBudget,
    Trajectory,
)

TASK = Task(
    key="0123",
    prompt=(Message(role="user", content="1+2="),),
    answer="3",
    verifier="exact",
    source="test",
    meta={"a": [1]},
)
BUDGET = TokenBudget(
    effort="high", max_prompt_tokens=8, max_thinking_tokens=4, max_answer_tokens=2, instruction="<high>"
)
JOB = Job(group_id="g1", task=TASK, num_siblings=1, budget=BUDGET, sampling=Sampling(seed=7), purpose=Purpose.EVAL)
TRAJECTORY = Trajectory(
    group_id="g1",
    sibling=0,
    token_ids=np.array([1, 2, 3], dtype=np.int32),
    sampled=np.array([False, True, True]),
    sampler_logprobs=np.array([0, -0.5, -1], dtype=np.float32),
    char_ends=np.array([0, 1, 2], dtype=np.int32),
    prompt_len=1,
    text="ab",
    thinking=(0, 1),
    answer=(1, 2),
    finish=Finish.STOP,
    policy=PolicySpan(start=1, end=2),
)
STEPS = StepScores(
    spans=(StepSpan(start=1, end=2),), scores=np.array([1], dtype=np.float32), kind=ScoreKind.PROB, scorer="exact"
)
GROUP = Group(job=JOB, trajectories=(TRAJECTORY,))
OUTCOME = Outcome(status=Status.JUDGED, score=1.0, parts={"answer": 1.0})
SAMPLE = TrainingSample(
    group_id="g1",
    sibling=0,
    effort="high",
    token_ids=TRAJECTORY.token_ids,
    loss_mask=TRAJECTORY.sampled,
    advantages=np.zeros(3, dtype=np.float32),
    sampler_logprobs=TRAJECTORY.sampler_logprobs,
    policy=TRAJECTORY.policy,
)
METRIC = Metric(name="reward", value=0.5, weight=8.0)
VALUES = [
    TASK,
    BUDGET,
    JOB,
    TRAJECTORY,
    STEPS,
    OUTCOME,
    GROUP,
    ScoredGroup(group=GROUP, outcomes=(OUTCOME,), steps=(STEPS,), shaped={"length": np.zeros(1, dtype=np.float32)}),
    ScoredGroup(
        group=GROUP,
        outcomes=(OUTCOME,),
        steps=(None,),
        token_rewards=(np.zeros(3, dtype=np.float32),),
        greedy=ScoredGroup(group=GROUP, outcomes=(OUTCOME,), steps=(None,)),
    ),
    METRIC,
    SAMPLE,
    TrainingBatch(step=1, version=0, samples=(SAMPLE,), num_groups=1),
    StepResult(version=1, seconds=0.5, metrics=(METRIC,)),
]


def plain(value: Any) -> Any:
    """The content as nested built-in values, so that types that hold arrays can be compared."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_border_type_survives_pickling(value: Any) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert type(copy) is type(value)
    assert plain(copy) == plain(value)
