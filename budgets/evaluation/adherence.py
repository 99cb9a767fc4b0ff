"""Does the model keep to its budget by itself?

For a mode that allows T thinking tokens, over the attempts with a response:

    kept    share that closed the thinking, or never opened it, within T tokens without being forced
    forced  share whose thinking the engine closed at T
    over    share that thought longer than T (possible only where the cap is asked for and not enforced)
    use     mean thinking tokens / T; None for T = 0

An attempt cut inside its thinking by another limit is none of the three. What it is not: the enforcement. A cap in
decoding holds always; adherence says how often it was needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from budgets.evaluation.attempt import Attempt
from rollout.schema import Finish


def adherence(attempts: Sequence[Attempt], cap: int) -> dict[str, float | None]:
    """All four figures; None without attempts."""
    seen = [a for a in attempts if a.has_response]
    if not seen:
        return dict.fromkeys(("kept", "forced", "over", "use"))
    forced = sum(a.finish is Finish.THINKING_CUT for a in seen)
    over = sum(a.thinking_tokens > cap for a in seen)
    kept = sum(a.answer is not None and a.finish is not Finish.THINKING_CUT and a.thinking_tokens <= cap for a in seen)
    size = len(seen)
    use = sum(a.thinking_tokens for a in seen) / size / cap if cap else None
    return {"kept": kept / size, "forced": forced / size, "over": over / size, "use": use}
