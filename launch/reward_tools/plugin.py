"""A reward function as the command line names it."""

from __future__ import annotations

from collections.abc import Sequence

from launch import plugins
from rewards.config import PluginConfig, RewardsConfig
from rewards.plugins.spec import PluginSpec
from rewards.routing import plugin_spec


def spec_of(
    name: str,
    *,
    adapter: str | None = None,
    score_range: Sequence[float] | None = None,
    answer_only: bool = False,
    max_seconds: float | None = None,
) -> PluginSpec:
    """A registered name, dotted path, file or address with settings as `rewards.plugins` would hold them.

    Raises PluginError for a name that nothing answers to, ValueError for settings that do not fit.
    """
    settings = PluginConfig.model_validate(
        {
            "adapter": adapter,
            "reads_thinking": False if answer_only else None,
            "range": tuple(score_range) if score_range else (0.0, 1.0),
            "max_seconds": max_seconds,
        }
    )
    config = RewardsConfig(plugins={name: settings}, deadline_s=max(60.0, max_seconds or 0.0))
    return plugin_spec(name, plugins.verifier_place(name), config)
