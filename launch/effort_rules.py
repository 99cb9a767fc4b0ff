"""Rules between the efforts and other sections: they fit the model, the cold start and the format."""

from __future__ import annotations

from collections.abc import Mapping

from budgets.config import BudgetsConfig
from rl.coldstart_config import SftConfig
from rollout.config import FormatConfig


def check(
    budgets: BudgetsConfig,
    format: FormatConfig,
    sft: SftConfig | None,
    *,
    limits: Mapping[str, int | None],
    engine_closes: bool,
) -> None:
    """Raise ValueError for an effort that cannot be run: rule, value, remedy.

    `limits`: the longest sequences that engines and model can hold, by the name of the setting. `engine_closes`: the
    engine keeps the thinking cap.
    """
    _sequences_fit(budgets, limits)
    _efforts_are_known(budgets, sft)
    _forced_texts_close(budgets, format)
    if engine_closes:
        _engine_can_close(budgets, format)


def _sequences_fit(budgets: BudgetsConfig, limits: Mapping[str, int | None]) -> None:
    """Prompt, thinking, forced mark and answer of every effort within what the engines and the model can hold."""
    for effort, settings in budgets.efforts.items():
        thinking, answer = settings.most_thinking_tokens or 0, settings.most_answer_tokens
        needed = budgets.max_prompt_tokens + thinking + answer
        for name, limit in limits.items():
            if limit is not None and needed > limit:
                raise ValueError(
                    f"{name} = {limit} is shorter than effort {effort!r} may become: budgets.max_prompt_tokens "
                    f"{budgets.max_prompt_tokens} + max_thinking_tokens {thinking} + max_answer_tokens "
                    f"{answer} = {needed}; raise {name} to {needed} or lower a budget"
                )


def _efforts_are_known(budgets: BudgetsConfig, sft: SftConfig | None) -> None:
    mix = (sft.mix or {}) if sft is not None else {}
    if unknown := sorted(set(mix) - set(budgets.efforts)):
        raise ValueError(
            f"sft.mix names unknown efforts {unknown}; budgets.efforts has {sorted(budgets.efforts)}: rename "
            f"or add them"
        )


def _forced_texts_close(budgets: BudgetsConfig, format: FormatConfig) -> None:
    closing = format.thinking_close
    for name, effort in budgets.efforts.items():
        if effort.forced_close and effort.forced_close.count(closing) != 1:
            raise ValueError(
                f"budgets.efforts.{name}.forced_close must contain format.thinking_close {closing!r} exactly once, got "
                f"{effort.forced_close!r}; add the mark, or leave it empty"
            )


def _engine_can_close(budgets: BudgetsConfig, format: FormatConfig) -> None:
    """An engine knows one closing text, which is also what it takes for the end of a thinking."""
    texts = {f"budgets.efforts.{name}.forced_close": e.forced_close for name, e in budgets.efforts.items()}
    for name, text in {"format.forced_close": format.forced_close, **texts}.items():
        if text not in ("", format.thinking_close):
            raise ValueError(
                f"rollout.thinking_cap = 'engine' closes with the mark alone, and {name} = {text!r} has more; set "
                "rollout.thinking_cap = 'two_phase', or leave that text empty"
            )
