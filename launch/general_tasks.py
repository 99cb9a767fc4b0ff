"""`[tasks.general]` spelled out: other domains beside the one that is trained, so that they are not forgotten.

    tasks.train          a mixture of what was there (called `target`, unless it is a mixture already) and the domains
    sampling.sampler     quotas: the domains together have `share` of the groups; the sampler that was there chooses
                         inside of each
    mix.demonstrations   with learn = "sft": groups of these domains learn from their worked solutions, always
    mix.reweight         with reweight = true: RECAP over domains, with its statistics

The setting is RECAP's (2025, arXiv 2510.21978), whose replay is of general data beside reasoning data, and not of old
trajectories. What a run reads is the resolved form, so it holds nothing that the sections themselves do not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TARGET = "target"
GROUP_SIZE = 8  # of rollout, where the recipe does not say


def spelled_out(tables: Any) -> Any:
    """The tables of a recipe without `tasks.general`; what is no such table is returned as it is.

    Raises ValueError for domains that cannot be mixed in: rule, value, remedy.
    """
    tasks = tables.get("tasks") if isinstance(tables, Mapping) else None
    general = tasks.get("general") if isinstance(tasks, Mapping) else None
    if not isinstance(tasks, Mapping) or not isinstance(general, Mapping) or not _is_whole(tasks, general):
        return tables
    train = tasks["train"]
    own = dict(train["sources"]) if train.get("type") == "mixture" else {TARGET: dict(train)}
    domains: Mapping[str, Any] = general["sources"]
    if both := sorted(own.keys() & domains.keys()):
        raise ValueError(
            f"tasks.general.sources names {', '.join(both)}, which the training tasks have already; use other names"
        )
    sampling = dict(tables.get("sampling") or {})
    sampling["sampler"] = _quotas(sampling.get("sampler"), list(own), list(domains), general.get("share", 0.25))
    mixture = {"type": "mixture", "sources": {**own, **domains}}
    return {
        **tables,
        "tasks": {**{k: v for k, v in tasks.items() if k != "general"}, "train": mixture},
        "sampling": sampling,
        "mix": _mix(tables, list(domains), general),
    }


def _is_whole(tasks: Mapping[str, Any], general: Mapping[str, Any]) -> bool:
    """Whether nothing is missing or of another form; what is, the settings themselves refuse by name."""
    share = general.get("share", 0.25)
    return (
        isinstance(tasks.get("train"), Mapping)
        and isinstance(general.get("sources"), Mapping)
        and bool(general["sources"])
        and isinstance(share, int | float)
        and 0 < share < 1
        and general.get("learn", "rl") in ("rl", "sft")
        and isinstance(general.get("reweight", True), bool)
        and set(general) <= {"sources", "share", "learn", "reweight"}
    )


def _quotas(sampler: Any, own: list[str], domains: list[str], share: float) -> dict[str, Any]:
    """A sampler of type `quotas` over all domains."""
    known = dict(sampler or {"type": "uniform"})
    if known.get("type") == "plugin":
        raise ValueError(
            "tasks.general shares the groups out among domains, and sampling.sampler is a plugin, which does so "
            "itself; name the domains in a mixture (tasks.train) and leave tasks.general out"
        )
    shares = dict.fromkeys(own, 1.0)
    inner = known
    if known.get("type") == "quotas":
        shares, inner = dict(known["shares"]), dict(known.get("inner") or {"type": "uniform"})
        if known.get("by", "source") != "source" or set(shares) != set(own):
            raise ValueError(
                f"tasks.general adds domains to those of the sampler, so its shares must be by source and name "
                f"{', '.join(own)}, got {', '.join(shares)}; name them, or leave the sampler out"
            )
    total = sum(shares.values())
    return {
        "type": "quotas",
        "shares": {name: (1 - share) * part / total for name, part in shares.items()}
        | dict.fromkeys(domains, share / len(domains)),
        "inner": inner,
    }


def _mix(tables: Mapping[str, Any], domains: list[str], general: Mapping[str, Any]) -> dict[str, Any]:
    mix = dict(tables.get("mix") or {})
    if general.get("learn", "rl") == "sft":
        always = (tables.get("rollout") or {}).get("group_size", GROUP_SIZE)
        shown = dict(mix.get("demonstrations") or {"gate": -1})
        shown["gates"] = {**(shown.get("gates") or {}), **dict.fromkeys(domains, always)}
        mix["demonstrations"] = shown
    if general.get("reweight", True):
        mix["reweight"] = dict(mix.get("reweight") or {})
    return mix
