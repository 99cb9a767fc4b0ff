"""Which kinds of step scores a rule reads. Settings are checked with it, so it imports no numpy."""

from __future__ import annotations

from rl.credit.process_config import ProcessSection


def require_kind(section: ProcessSection, kind: str) -> None:
    """Raises ValueError when the rule cannot read scores of this kind."""
    if kind not in section.score_kinds:
        name = getattr(section, "type", type(section).__name__)
        raise ValueError(
            f"credit.process.type = {name!r} reads step scores of kind {' or '.join(sorted(section.score_kinds))}, "
            f"and the scorer gives {kind!r}; {section.kind_remedy}"
        )
