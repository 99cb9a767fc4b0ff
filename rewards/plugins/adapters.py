"""How the reward functions of other systems are called, so that they run unchanged: one adapter for each call shape.

All hand over `Sample.completion`, thinking included, as those systems do. With `reads_thinking = false` it is the
answer alone, for every adapter. What an adapter cannot offer is said in its docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.config import AdapterName
from rewards.outcome import Sample
from rewards.plugins.contract import DEFAULT_BATCH, FORM_OF_PARAMETER, Form, declared_by
from rewards.plugins.returns import NotANumberError, parts_of
from rewards.plugins.shapes import Parameters, parameters_of
from rollout.schema import Status

# Names under which TRL data sets keep the reference; a column of the task's own of that name goes before.
REFERENCE_COLUMNS = ("answer", "solution", "ground_truth", "reference", "target", "label", "gold")

Keywords = dict[str, Any]
Message = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One call shape bound to one function.

    `call` gets the samples of one call and returns what the function returned (an awaitable for an async one); `split`
    makes one raw value per sample of it. `none` is what a None means: a fault in a function of our own, and in the
    systems that know it a sample left out on purpose.
    """

    name: AdapterName
    form: Form
    batch_size: int
    call: Callable[[Sequence[Sample]], Any]
    split: Callable[[Any, int], Sequence[Any]]
    none: Status


def adapt(name: AdapterName, function: Callable[..., Any]) -> Adapter:
    """The adapter called `name` for a function. Raises ShapeError when it has no readable signature."""
    return _MAKERS[name](name, function, parameters_of(function))


def accepted(parameters: Parameters, offered: Mapping[str, Any]) -> Keywords:
    """Of the arguments on offer those that the function takes; all of them where it has **kwargs."""
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return dict(offered)
    return {name: offered[name] for name in parameters if name in offered}


def one(value: Any, count: int) -> Sequence[Any]:
    return [value]


def each(value: Any, count: int) -> Sequence[Any]:
    """A list, array or tensor of `count` values. Raises NotANumberError for anything else."""
    if not isinstance(value, Sequence) and callable(getattr(value, "tolist", None)):
        value = value.tolist()
        value = value if isinstance(value, list) else [value]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise NotANumberError(f"a {type(value).__name__} for {count} attempts, where a list of {count} is due")
    if len(value) != count:
        raise NotANumberError(f"{len(value)} values for {count} attempts")
    return value


# ------------------------------------------------------------------------------------------------ one per call shape


def _native(name: AdapterName, function: Callable[..., Any], parameters: Parameters) -> Adapter:
    """`verify(sample)`, `verify(samples)` or `verify(group)`, see `rewards.plugins.contract`."""
    declared = declared_by(function)
    parameter = next((p for p in parameters if p in FORM_OF_PARAMETER), "sample")
    form: Form = "group" if declared.needs_group else FORM_OF_PARAMETER[parameter]

    def call(samples: Sequence[Sample]) -> Any:
        return function(samples[0] if form == "sample" else tuple(samples))

    return Adapter(
        name=name,
        form=form,
        batch_size=DEFAULT_BATCH,
        call=call,
        split=one if form == "sample" else each,
        none=Status.CRASH,
    )


def _verl(name: AdapterName, function: Callable[..., Any], parameters: Parameters) -> Adapter:
    """verl's `compute_score(data_source, solution_str, ground_truth, extra_info)`, by keyword, one attempt a call.

    `data_source` and `extra_info` are the task's columns of that name; else its source, and all its columns.
    """

    def call(samples: Sequence[Sample]) -> Any:
        (sample,) = samples
        offered = {
            "data_source": sample.meta.get("data_source", sample.source),
            "solution_str": sample.completion,
            "ground_truth": sample.meta.get("ground_truth", sample.reference),
            "extra_info": sample.meta.get("extra_info", dict(sample.meta)),
        }
        return function(**accepted(parameters, offered))

    return Adapter(name=name, form="sample", batch_size=DEFAULT_BATCH, call=call, split=one, none=Status.SKIPPED)


def _trl(name: AdapterName, function: Callable[..., Any], parameters: Parameters) -> Adapter:
    """TRL's `f(prompts, completions, **columns)`: lists over one group, texts (`trl`) or message lists (`trl_chat`).

    Every column of the task is a list; the reference stands under the usual names as well. `log_metric` keeps numbers
    as parts of every attempt of the call; `log_extra` is taken and dropped; `trainer_state` is None.
    """
    is_chat = name == "trl_chat"
    metrics: dict[str, Any] = {}

    def call(samples: Sequence[Sample]) -> Any:
        metrics.clear()
        columns = {key: [s.meta.get(key) for s in samples] for key in {key for s in samples for key in s.meta}}
        references = {key: [s.reference for s in samples] for key in REFERENCE_COLUMNS}
        own = {
            "prompts": [_messages(s) if is_chat else s.question for s in samples],
            "completions": [_reply(s) if is_chat else s.completion for s in samples],
            "completion_ids": [list(s.token_ids) for s in samples],
            "trainer_state": None,
            "log_extra": lambda *args, **kwargs: None,
            "log_metric": metrics.__setitem__,
        }
        return function(**accepted(parameters, references | columns | own))

    def split(value: Any, count: int) -> Sequence[Any]:
        values, parts = each(value, count), parts_of(metrics)
        return [{"score": item, **parts} for item in values] if parts else values

    return Adapter(name=name, form="batch", batch_size=DEFAULT_BATCH, call=call, split=split, none=Status.SKIPPED)


def _openrlhf(name: AdapterName, function: Callable[..., Any], parameters: Parameters) -> Adapter:
    """OpenRLHF's `reward_func(queries, prompts, labels)`: lists of one attempt, as its own rollout calls it.

    A query is prompt and completion. The prompt is the messages' contents joined by blank lines, as chat templates are
    not known here. Returns a number, a list of one, or a dict of "rewards" (or "scores") and "extra_logs".
    """

    def call(samples: Sequence[Sample]) -> Any:
        (sample,) = samples
        offered = {
            "queries": [sample.question + sample.completion],
            "prompts": [sample.question],
            "labels": [sample.reference],
        }
        return function(**accepted(parameters, offered))

    return Adapter(
        name=name, form="sample", batch_size=DEFAULT_BATCH, call=call, split=openrlhf_value, none=Status.SKIPPED
    )


def openrlhf_value(value: Any, count: int) -> Sequence[Any]:
    """One raw value out of what an OpenRLHF reward gave for one attempt."""
    if not isinstance(value, Mapping):
        return [_first(value)]
    key = next((key for key in ("rewards", "scores", "score") if key in value), None)
    if key is None:
        raise NotANumberError(f"a dict without 'rewards'; it has {sorted(map(str, value))[:8]}")
    logs = value.get("extra_logs")
    parts = {k: _first(v) for k, v in logs.items()} if isinstance(logs, Mapping) else {}
    return [{**parts_of(parts), "score": _first(value[key])}]


def _first(value: Any) -> Any:
    return each(value, 1)[0] if isinstance(value, list | tuple) else value


def _verifiers(name: AdapterName, function: Callable[..., Any], parameters: Parameters) -> Adapter:
    """A rubric function of verifiers: arguments by name out of prompt, completion, answer, state, info, task, parser.

    Prompt and completion are message lists (`verifiers`) or texts (`verifiers_text`). The plurals make it a function
    of a whole group. `state` is a fresh dict in every call; there are no tool turns.
    """
    is_chat = name == "verifiers"
    is_group = "completions" in parameters

    def fields(sample: Sample) -> Keywords:
        prompt: Any = _messages(sample) if is_chat else sample.question
        completion: Any = _reply(sample) if is_chat else sample.completion
        info = sample.meta.get("info", dict(sample.meta))
        task = sample.meta.get("task", sample.source)
        plain = {"prompt": prompt, "completion": completion, "answer": sample.reference, "info": info, "task": task}
        return {**plain, "state": dict(plain)}

    def call(samples: Sequence[Sample]) -> Any:
        found = [fields(sample) for sample in samples]
        if not is_group:
            offered = {**found[0], "parser": AnswerParser(samples)}
        else:
            offered = {f"{key}s": [item[key] for item in found] for key in found[0]}
            offered["parser"] = AnswerParser(samples)
        return function(**accepted(parameters, offered))

    return Adapter(
        name=name,
        form="group" if is_group else "sample",
        batch_size=DEFAULT_BATCH,
        call=call,
        split=each if is_group else one,
        none=Status.SKIPPED,
    )


class AnswerParser:
    """The parser that verifiers' functions ask for: the answer is what follows the thinking."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._answers = {sample.completion: sample.answer for sample in samples}

    def parse(self, text: str) -> str:
        return self._answers.get(text, text).strip()

    def parse_answer(self, completion: str | list[Message]) -> str:
        return self.parse(completion if isinstance(completion, str) else completion[-1]["content"])

    def get_assistant_messages(self, completion: list[Message]) -> list[Message]:
        return [message for message in completion if message["role"] == "assistant"]


def _messages(sample: Sample) -> list[Message]:
    return [{"role": message.role, "content": message.content} for message in sample.prompt]


def _reply(sample: Sample) -> list[Message]:
    return [{"role": "assistant", "content": sample.completion}]


_MAKERS: Mapping[AdapterName, Callable[[AdapterName, Callable[..., Any], Parameters], Adapter]] = {
    "native": _native,
    "verl": _verl,
    "trl": _trl,
    "trl_chat": _trl,
    "openrlhf": _openrlhf,
    "openrlhf_http": _openrlhf,
    "verifiers": _verifiers,
    "verifiers_text": _verifiers,
}
