"""Thinking modes by name: what evaluation is asked to compare.

    high, low, ...   an effort of the recipe: its instruction and limits
    512              a numeric budget: at most so many thinking tokens, said in the prompt and kept in decoding
    auto             no instruction and no cap: the model decides
    on               as auto, but the thinking is opened for the model
    off              no thinking: it is opened and closed at once
    easy, hard       the response is made to begin with AdaCtrl's tag [Easy] or [Hard]

A recipe's effort goes before a word of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from budgets.config import PLACE, BudgetsConfig
from budgets.effort import token_budgets
from budgets.self_assessment import Tag, tag_text
from rollout.schema import TokenBudget

Kind = Literal["effort", "number", "auto", "on", "off", "easy", "hard"]
MAX_NUMBER = 2**24
NUMERIC_INSTRUCTION = "Use at most {tokens} tokens to think before you answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One way of thinking to be measured. `promised` is the thinking cap that the prompt speaks of or decoding keeps;
    None: there is none."""

    name: str
    kind: Kind
    budget: TokenBudget
    promised: int | None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "instruction": self.budget.instruction,
            "prefix": self.budget.prefix,
            "promised_thinking_tokens": self.promised,
            "max_thinking_tokens": self.budget.max_thinking_tokens,
            "max_answer_tokens": self.budget.max_answer_tokens,
        }


def parse_modes(
    text: str,
    config: BudgetsConfig,
    *,
    numeric_instruction: str | None = None,
    is_enforced: bool = True,
    can_begin: bool = True,
) -> list[Mode]:
    """Modes of a comma-separated list, in its order. Raises ValueError for a name that is none, or comes twice.

    `numeric_instruction` None takes that of the recipe's effort with numbers, or a plain sentence where there is none.
    `is_enforced` false leaves the caps of numeric budgets to the model: they are asked for and counted, not kept. Where
    `can_begin` is false, as with a server, modes that put text into the response are refused.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"name at least one mode, such as --modes {','.join(config.efforts)},auto")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"a mode can be measured once, {', '.join(twice)} comes twice")
    if numeric_instruction is None:
        trained = (e.instruction for e in config.efforts.values() if e.numbers is not None)
        numeric_instruction = next(trained, NUMERIC_INSTRUCTION)
    modes = [_mode(name, config, numeric_instruction, is_enforced) for name in names]
    if not can_begin and (begun := [mode.name for mode in modes if mode.budget.prefix]):
        raise ValueError(
            f"a server cannot be made to begin a response, as modes {', '.join(begun)} ask; leave them out, or "
            "evaluate the model itself"
        )
    return modes


def base_of(modes: Sequence[Mode], name: str | None) -> str:
    """The mode that the others are compared with: the one named, else the first effort, else the first mode."""
    names = [mode.name for mode in modes]
    if name is not None and name not in names:
        raise ValueError(f"the base must be one of the modes {', '.join(names)}, got {name!r}")
    return name or next((mode.name for mode in modes if mode.kind == "effort"), names[0])


def _mode(name: str, config: BudgetsConfig, numeric_instruction: str, is_enforced: bool) -> Mode:
    efforts = token_budgets(config)
    if name in efforts:
        return Mode(name=name, kind="effort", budget=efforts[name], promised=efforts[name].max_thinking_tokens)
    answer = max(budget.max_answer_tokens for budget in efforts.values())
    total = max(budget.max_answer_tokens + (budget.max_thinking_tokens or 0) for budget in efforts.values())
    if re.fullmatch(r"[0-9]{1,8}", name) and 0 < int(name) <= MAX_NUMBER:
        cap = int(name)
        instruction = numeric_instruction.replace(PLACE, name)
        budget = _budget(config, name, answer=answer, cap=cap, instruction=instruction)
        if not is_enforced:
            budget = _budget(config, name, answer=max(total, cap + answer), instruction=instruction)
        return Mode(name=name, kind="number", budget=budget, promised=cap)
    if name == "auto":
        return Mode(name=name, kind="auto", budget=_budget(config, name, answer=total), promised=None)
    if name == "on":
        return Mode(name=name, kind="on", budget=_budget(config, name, answer=total, is_opened=True), promised=None)
    if name == "off":
        return Mode(name=name, kind="off", budget=_budget(config, name, answer=answer, cap=0), promised=0)
    if name == "easy":
        return _tagged("easy", _budget(config, name, answer=total, prefix=tag_text("easy")))
    if name == "hard":
        return _tagged("hard", _budget(config, name, answer=total, prefix=tag_text("hard")))
    raise ValueError(
        f"unknown mode {name!r}: it must be an effort of the recipe ({', '.join(efforts)}), a number of thinking "
        f"tokens from 1 to {MAX_NUMBER}, auto, on, off, easy or hard"
    )


def _tagged(tag: Tag, budget: TokenBudget) -> Mode:
    return Mode(name=tag, kind=tag, budget=budget, promised=None)


def _budget(
    config: BudgetsConfig,
    name: str,
    *,
    answer: int,
    cap: int | None = None,
    instruction: str = "",
    is_opened: bool = False,
    prefix: str = "",
) -> TokenBudget:
    return TokenBudget(
        effort=name,
        max_prompt_tokens=config.max_prompt_tokens,
        max_thinking_tokens=cap,
        max_answer_tokens=answer,
        instruction=instruction,
        opens_thinking=is_opened,
        prefix=prefix,
        target_tokens=cap or None if instruction else None,
    )
