"""Which call shape a reward function has, by the names of its parameters. Refuses to guess."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, get_args

from rewards.config import AdapterName
from rewards.outcome import Sample
from rewards.plugins.contract import FORM_OF_PARAMETER, declared_by

Parameters = Mapping[str, inspect.Parameter]

# Plurals that verifiers hands to a group function, and that could as well be columns of a TRL data set.
_GROUP_PLURALS = frozenset({"answers", "states", "infos", "tasks"})
_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class ShapeError(ValueError):
    """A function whose call shape cannot be told."""


def parameters_of(function: Callable[..., Any]) -> Parameters:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{function!r} has no signature that can be read; wrap it in a function") from error


def detect(function: Callable[..., Any]) -> AdapterName:
    """The adapter for a function. Raises ShapeError, with the remedy, when none or more than one fits."""
    parameters = parameters_of(function)
    names = set(parameters)
    found: list[AdapterName] = []
    if _is_native(function, parameters):
        found.append("native")
    if "solution_str" in names:
        found.append("verl")
    if "queries" in names:
        found.append("openrlhf")
    if "completions" in names:
        found.append(_by_text(function, parameters, "completions", "trl", "trl_chat"))
        if names & _GROUP_PLURALS:
            found.append("verifiers")
    if "completion" in names:
        found.append(_by_text(function, parameters, "completion", "verifiers_text", "verifiers"))
    if len(found) == 1:
        return found[0]
    where = f"{getattr(function, '__name__', function)}({', '.join(parameters)})"
    if found:
        raise ShapeError(
            f"{where} could be called as {' or as '.join(found)}; name the right one: adapter = {found[0]!r}"
        )
    raise ShapeError(
        f"{where} has no call shape that is known: a parameter sample, samples or group (native), solution_str (verl), "
        f"completions (TRL), queries (OpenRLHF) or completion (verifiers); rename it, or name one of "
        f"{', '.join(get_args(AdapterName))}: adapter = 'native'"
    )


def _is_native(function: Callable[..., Any], parameters: Parameters) -> bool:
    """One required parameter that is called after a native form, or annotated as a sample."""
    required = [p for p in parameters.values() if p.default is p.empty and p.kind not in _VARIADIC]
    if len(required) != 1:
        return False
    if required[0].name in FORM_OF_PARAMETER or declared_by(function).needs_group:
        return True
    return _annotation(function, required[0]) is Sample


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The annotation, evaluated where that is possible."""
    try:
        return typing.get_type_hints(function).get(parameter.name, parameter.annotation)
    except Exception:  # noqa: BLE001 - a foreign annotation may name what only a type checker imports
        return parameter.annotation


def _by_text(
    function: Callable[..., Any], parameters: Parameters, name: str, text: AdapterName, chat: AdapterName
) -> AdapterName:
    """Whether a function takes completions as texts or as lists of messages.

    By the annotation; else by whether its code, or a function of its module that it calls, mentions a message's
    "content"; verifiers' own parser takes messages too.
    """
    hint = str(_annotation(function, parameters[name])).lower()
    if any(mark in hint for mark in ("dict", "message")):
        return chat
    if hint in ("str", "<class 'str'>") or "[str]" in hint:
        return text
    return chat if "parser" in parameters or _mentions_content(function) else text


def _mentions_content(function: Callable[..., Any]) -> bool:
    target = inspect.unwrap(function)
    code = getattr(target, "__code__", None) or getattr(vars(type(target)).get("__call__"), "__code__", None)
    if not isinstance(code, CodeType):
        return False
    scope: Mapping[str, Any] = getattr(target, "__globals__", {})
    helpers = [getattr(scope.get(name), "__code__", None) for name in _texts(code)]
    return any("content" in _texts(found) for found in (code, *helpers) if isinstance(found, CodeType))


def _texts(code: CodeType) -> set[str]:
    """Texts that a function's code holds as constants or attributes, inner functions included."""
    texts = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, str):
            texts.add(constant)
        elif isinstance(constant, CodeType):
            texts |= _texts(constant)
    return texts
