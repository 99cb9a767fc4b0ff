"""Whether the scores that the [prm] section gives are the ones that [credit] reads."""

from __future__ import annotations

from typing import Any

from prm.models.config import ImplicitPrmConfig
from rl.credit.process_config import ProcessSection, Progress
from rl.credit.steps.kinds import require_kind


def check(credit: Any, prm: Any) -> None:
    """Raises ValueError for step credit without step scores, or with scores that its rule cannot read."""
    if not getattr(credit, "reads_steps", False):
        return
    process = getattr(credit, "process", None)
    name = "credit.weights.process" if process is None else "credit.process"
    if prm.type == "none":
        raise ValueError(
            f"{name} needs step scores, and prm.type is 'none'; set prm.type = 'exact', or leave {name} out"
        )
    if prm.type == "plugin" or not isinstance(process, ProcessSection):
        return
    require_kind(process, prm.kind if isinstance(prm, ImplicitPrmConfig) else "prob")
    if isinstance(process, Progress) and prm.type == "exact":
        raise ValueError(
            "credit.process.type = 'progress' reads values of unfinished answers, and prm.type = 'exact' says whether "
            "one step is right; use prm.type = 'value', or 'implicit' with kind = 'q', or credit.process.type = 'delta'"
        )
