"""Detection of call shapes, what each adapter hands over, and what may come back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rewards.outcome import Sample, judged, unjudged
from rewards.plugins.adapters import adapt
from rewards.plugins.contract import declare
from rewards.plugins.returns import NotANumberError, to_outcome
from rewards.plugins.shapes import ShapeError, detect
from rollout.schema import Finish, Message, Outcome, Status

SAMPLE = Sample(
    task_key="k",
    prompt=(Message(role="system", content="Be short."), Message(role="user", content="3+4=?")),
    reference="7",
    verifier="v",
    thinking="3+4 is 7",
    answer="\\boxed{7}",
    closed=True,
    text="<think>3+4 is 7</think>\\boxed{7}<eos>",
    end=32,
    finish=Finish.STOP,
    effort="high",
    meta={"level": 2},
    source="sums",
    token_ids=(5, 6),
)
TEXT = "<think>3+4 is 7</think>\\boxed{7}"
REPLY = [{"role": "assistant", "content": TEXT}]
PROMPT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "3+4=?"}]


def test_the_sample_ends_before_the_end_of_sequence_mark() -> None:
    assert SAMPLE.completion == TEXT and SAMPLE.text.endswith("<eos>")


def native(sample: Sample) -> Outcome: ...  # type: ignore[empty-body]
def by_annotation(attempt: Sample, strict: bool = False) -> float: ...  # type: ignore[empty-body]
def batch(samples: Any) -> Any: ...
def siblings(group: Any) -> Any: ...
@declare(needs_group=True)
def declared(attempts: Any) -> Any: ...
def verl(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any: ...
def trl(completions: list[str], **kwargs: Any) -> Any: ...
def trl_unhinted(prompts, completions, answer):  # type: ignore[no-untyped-def]
    return [len(completion) for completion in completions]


def trl_messages(completions, **kwargs):  # type: ignore[no-untyped-def]
    return [completion[0]["content"] for completion in completions]


def trl_by_helper(completions):  # type: ignore[no-untyped-def]
    return [_first(completion) for completion in completions]


def _first(completion):  # type: ignore[no-untyped-def]
    return completion[0]["content"]


def trl_hinted(completions: list[list[dict[str, str]]]) -> Any: ...
def openrlhf(queries: Any, prompts: Any, labels: Any) -> Any: ...
def rubric(completion: Any, answer: str, state: Any) -> Any: ...
def rubric_of_messages(parser, completion, answer):  # type: ignore[no-untyped-def]
    ...
def rubric_of_text(completion: str, answer: str) -> Any: ...


@pytest.mark.parametrize(
    ("function", "adapter"),
    [
        (native, "native"), (by_annotation, "native"), (batch, "native"), (siblings, "native"), (declared, "native"),
        (verl, "verl"), (trl, "trl"), (trl_unhinted, "trl"), (trl_messages, "trl_chat"), (trl_by_helper, "trl_chat"),
        (trl_hinted, "trl_chat"), (openrlhf, "openrlhf"), (rubric_of_messages, "verifiers"),
        (rubric_of_text, "verifiers_text"),
    ],
)  # fmt: skip
def test_the_shape_is_told_by_the_parameters(function: Callable[..., Any], adapter: str) -> None:
    assert detect(function) == adapter


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda completions, answers: 0, r"as trl or as verifiers; name the right one: adapter = 'trl'"),
        (lambda completions, states: 0, "as trl or as verifiers"),
        (lambda solution_str, completion: 0, "as verl or as verifiers_text"),
        (lambda text: 0, r"\(text\) has no call shape that is known"),
        (lambda **kwargs: 0, "adapter = 'native'"),
        (lambda: 0, "no call shape"),
    ],
)
def test_what_could_be_two_things_or_none_is_refused_with_the_remedy(
    function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        detect(function)


def seen(adapter: Any, function: Callable[..., Any], *samples: Sample) -> dict[str, Any]:
    """The arguments that an adapter calls a function with."""
    arguments: dict[str, Any] = adapt(adapter, function).call(samples or (SAMPLE,))
    return arguments


def test_verl_gets_its_four_arguments_or_those_it_takes() -> None:
    whole = SAMPLE.completion
    found = seen("verl", lambda data_source, solution_str, ground_truth, extra_info: locals())
    assert found == {
        "data_source": "sums", "solution_str": whole, "ground_truth": "7", "extra_info": {"level": 2}
    }  # fmt: skip
    assert seen("verl", lambda solution_str, ground_truth: locals()) == {"solution_str": whole, "ground_truth": "7"}


def test_trl_gets_lists_with_every_column_and_the_reference_under_its_usual_names() -> None:
    found = seen("trl", lambda prompts, completions, level, solution, **rest: locals(), SAMPLE, SAMPLE)
    assert found["prompts"] == ["Be short.\n\n3+4=?"] * 2
    assert found["completions"] == [SAMPLE.completion] * 2
    assert (found["level"], found["solution"]) == ([2, 2], ["7", "7"])
    assert found["rest"]["completion_ids"] == [[5, 6], [5, 6]] and found["rest"]["trainer_state"] is None
    chat = seen("trl_chat", lambda prompts, completions: locals())
    assert chat["prompts"] == [PROMPT] and chat["completions"][0][0]["content"] == SAMPLE.completion


def test_trl_metrics_become_parts_and_none_leaves_a_sample_out() -> None:
    def score(completions: list[str], log_metric: Callable[[str, float], None], log_extra: Any) -> list[float | None]:
        log_metric("length", 3.0)
        log_extra("note", ["a", "b"])
        return [1.0, None]

    adapter = adapt("trl", score)
    values = adapter.split(adapter.call((SAMPLE, SAMPLE)), 2)
    outcomes = [to_outcome(value, none=adapter.none) for value in values]
    assert outcomes[0].parts == {"length": 3.0} and outcomes[0].score == 1.0
    assert (outcomes[1].status, outcomes[1].score) == (Status.SKIPPED, None)


def test_openrlhf_gets_lists_of_one_and_its_dict_is_read() -> None:
    found = seen("openrlhf", lambda queries, prompts, labels: locals())
    assert found["labels"] == ["7"] and found["queries"] == [found["prompts"][0] + SAMPLE.completion]
    adapter = adapt("openrlhf", lambda queries: None)
    (value,) = adapter.split({"rewards": np.array([0.5]), "scores": [0.1], "extra_logs": {"n": np.array([2])}}, 1)
    assert to_outcome(value).score == 0.5 and to_outcome(value).parts == {"n": 2.0}
    with pytest.raises(NotANumberError, match="without 'rewards'"):
        adapter.split({"r": 1}, 1)


def test_a_rubric_gets_what_it_names_and_a_group_function_the_plurals() -> None:
    found = seen("verifiers", lambda completion, answer, state, info, task: locals())
    assert found["completion"][-1]["content"] == SAMPLE.completion and found["answer"] == "7"
    assert found["state"]["prompt"] == PROMPT and found["info"] == {"level": 2} and found["task"] == "sums"
    (parsed,) = [seen("verifiers", lambda parser, completion: {"p": parser.parse_answer(completion)})]
    assert parsed["p"] == "\\boxed{7}"
    group = seen("verifiers_text", lambda completions, answers, infos: locals(), SAMPLE, SAMPLE)
    assert group["completions"] == [SAMPLE.completion] * 2 and group["infos"] == [{"level": 2}] * 2
    assert adapt("verifiers", lambda completions, answers: 0).form == "group"


@pytest.mark.parametrize("value", [[1.0], [1.0, 0.0, 1.0], 1.0, "ab", None, {"a": 1}])
def test_a_batch_of_the_wrong_length_or_kind_is_refused(value: Any) -> None:
    with pytest.raises(NotANumberError):
        adapt("trl", trl).split(value, 2)


def test_arrays_and_tensors_are_lists() -> None:
    torch = pytest.importorskip("torch")
    assert list(adapt("trl", trl).split(np.array([0.0, 1.0]), 2)) == [0.0, 1.0]
    assert list(adapt("trl", trl).split(torch.tensor([0.0, 1.0]), 2)) == [0.0, 1.0]
    assert to_outcome(torch.tensor([0.25])).score == 0.25
    assert "shape (2,)" in to_outcome(torch.tensor([0.0, 1.0])).reason


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (1, 1.0), (True, 1.0), (False, 0.0), (0.25, 0.25), (np.float32(0.5), 0.5), (np.bool_(True), 1.0),
        (np.int64(1), 1.0), (np.array(0.5), 0.5), (np.array([[0.5]]), 0.5), ({"score": np.float64(0.5)}, 0.5),
        ({"reward": 1}, 1.0), (judged(0.3), 0.3), (1 + 1e-9, 1.0), ({"score": True, "reason": "ok"}, 1.0),
    ],
)  # fmt: skip
def test_what_is_a_number_is_read_as_one(value: Any, score: float) -> None:
    assert to_outcome(value).score == pytest.approx(score)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "returned None"), (math.nan, "nan"), (math.inf, "inf"), (np.float32("nan"), "nan"), ("1", "a str"),
        ([1.0], "a list"), ((1.0, {}), "a tuple"), (1j, "a complex"), (object(), "a object"),
        (2.0, "outside its range"), (np.array([1.0, 0.0]), "shape (2,)"), ({}, "without 'score'"),
        ({"score": None}, "None"), (10**400, "beyond"),
        ({"score": math.nan}, "nan"), (-0.01, "outside"), (np.array(["x"]), "not a number"), (b"1", "a bytes"),
    ],
)  # fmt: skip
def test_what_is_no_number_in_range_is_unjudged_with_the_reason(value: Any, reason: str) -> None:
    outcome = to_outcome(value)
    assert (outcome.status, outcome.score) == (Status.CRASH, None)
    assert reason in outcome.reason


def test_a_range_is_mapped_to_zero_and_one_and_further_numbers_are_parts() -> None:
    assert to_outcome(-1, low=-1, high=3).score == 0.0
    assert to_outcome(1, low=-1, high=3).score == 0.5
    outcome = to_outcome({"score": 3, "n": np.int32(4), "bad": math.nan, "text": "x"}, low=-1, high=3)
    assert outcome.score == 1.0 and outcome.parts == {"n": 4.0}
    assert to_outcome(unjudged(Status.BAD_REFERENCE, "x")).status is Status.BAD_REFERENCE
