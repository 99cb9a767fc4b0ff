"""The sampling section of a recipe: the loop's own settings, and the sampler, which may be a plugin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from launch.plugin_section import PluginSection
from rl.config import SamplingConfig
from rl.sampling.config import SamplerConfig, UniformSampling


class SamplingSection(SamplingConfig):
    """Which task comes next, which groups may train, and what happens when one may not."""

    sampler: Annotated[SamplerConfig | PluginSection, Field(discriminator="type")] = UniformSampling()
    """Which task comes next."""
