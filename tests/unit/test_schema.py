"""The border types refuse what they must, survive pickling, and point at exact tokens."""

import pickle

import numpy as np
import pytest

from rollout.schema import (
    Finish,
    Message,
    Outcome,
    PolicySpan,
    ScoreKind,
    Status,
    StepScores,
    StepSpan,
    TokenBudget,
    Trajectory,
    task_key,
)


def trajectory(**changes: object) -> Trajectory:
    """Prompt of two tokens, then `<t>` `ab` `c` `</t>` `9`: text '<t>abc</t>9'."""
    fields: dict[str, object] = {
        "group_id": "g",
        "sibling": 0,
        "token_ids": np.array([1, 2, 10, 11, 12, 13, 14], dtype=np.int32),
        "sampled": np.array([0, 0, 1, 1, 1, 0, 1], dtype=bool),
        "sampler_logprobs": np.array([0, 0, -1, -1, -1, 0, -1], dtype=np.float32),
        "char_ends": np.array([0, 0, 3, 5, 6, 10, 11], dtype=np.int32),
        "prompt_len": 2,
        "text": "<t>abc</t>9",
        "thinking": (3, 6),
        "answer": (10, 11),
        "finish": Finish.STOP,
        "policy": PolicySpan(start=3, end=4),
    }
    return Trajectory(**(fields | changes))  # type: ignore[arg-type]


def test_spans_point_at_exact_tokens() -> None:
    one = trajectory()
    assert (one.thinking_text, one.answer_text) == ("abc", "9")
    assert one.tokens_of((3, 6)) == (3, 5)
    assert one.tokens_of((3, 5)) == (3, 4)
    assert one.tokens_of((4, 6)) == (3, 5)  # a token straddling the start belongs to the range
    assert one.tokens_of((10, 11)) == (6, 7)
    assert one.tokens_of((3, 3)) == (3, 3)
    assert one.num_thinking_tokens == 2


def test_forced_tokens_do_not_count_as_thinking() -> None:
    one = trajectory(sampled=np.array([0, 0, 1, 1, 0, 0, 1], dtype=bool))
    assert one.num_thinking_tokens == 1


def test_arrays_are_frozen_and_checked() -> None:
    with pytest.raises(ValueError, match="read-only"):
        trajectory().token_ids[0] = 5
    with pytest.raises(TypeError, match="int32"):
        trajectory(token_ids=np.arange(7))
    with pytest.raises(ValueError, match="prompt tokens"):
        trajectory(sampled=np.ones(7, dtype=bool))
    with pytest.raises(ValueError, match="finite"):
        trajectory(sampler_logprobs=np.full(7, np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match="char_ends"):
        trajectory(char_ends=np.array([0, 0, 3, 2, 6, 10, 11], dtype=np.int32))
    with pytest.raises(ValueError, match="answer"):
        trajectory(answer=(10, 12))


@pytest.mark.parametrize("status", list(Status))
def test_a_score_exists_exactly_for_scored_statuses(status: Status) -> None:
    scored = status in {Status.JUDGED, Status.UNPARSEABLE_ANSWER}
    assert Outcome(status=status, score=0.0 if scored else None).is_scored is scored
    with pytest.raises(ValueError, match="contradict"):
        Outcome(status=status, score=None if scored else 0.0)


def test_step_scores_keep_unjudged_apart_from_zero() -> None:
    spans = (StepSpan(start=2, end=4), StepSpan(start=4, end=5))
    steps = StepScores(spans=spans, scores=np.array([np.nan, 1], dtype=np.float32), kind=ScoreKind.PROB, scorer="x")
    assert np.isnan(steps.scores[0])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        StepScores(spans=spans, scores=np.array([0, 2], dtype=np.float32), kind=ScoreKind.PROB, scorer="x")
    with pytest.raises(ValueError, match="disjoint"):
        StepScores(spans=spans[::-1], scores=np.zeros(2, dtype=np.float32), kind=ScoreKind.PROB, scorer="x")


def test_everything_that_crosses_a_process_pickles() -> None:
    one = pickle.loads(pickle.dumps(trajectory()))
    assert one.text == "<t>abc</t>9"
    np.testing.assert_array_equal(one.token_ids, trajectory().token_ids)
    budget = TokenBudget(effort="low", max_prompt_tokens=8, max_thinking_tokens=0, max_answer_tokens=4)
    assert pickle.loads(pickle.dumps(budget)) == budget


def test_task_keys_depend_on_content_only() -> None:
    prompt = (Message(role="user", content="1+1="),)
    assert task_key(prompt, "2") == task_key((Message(role="user", content="1+1="),), "2")
    assert task_key(prompt, "2") != task_key(prompt, "3")
    assert len(task_key(prompt, "2")) == 16


def test_a_policy_span_knows_the_version_of_every_token() -> None:
    span = PolicySpan.of([3, 3, 5, 5, 6], [4, 5, 7, 8, 9])  # token 6 was put in
    assert (span.start, span.end, span.switches) == (3, 6, ((7, 5), (9, 6)))
    assert span.at(np.arange(4, 11)).tolist() == [3, 3, 3, 5, 5, 6, 6]
    assert PolicySpan.of([2], [0]) == PolicySpan(start=2, end=2)
    assert PolicySpan(start=1, end=3).at(np.array([0, 50])).tolist() == [1, 1]  # not known where: as old as the oldest


@pytest.mark.parametrize("switches", [((7, 5),), ((7, 6), (7, 6)), ((9, 5), (7, 6)), ((7, 3), (8, 6)), ((-1, 6),)])
def test_switches_must_rise_from_start_to_end(switches: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="switches must rise"):
        PolicySpan(start=3, end=6, switches=switches)
