"""Settings of what a step trains on besides its fresh samples. Imports pydantic only."""

from __future__ import annotations

from rl.hybrid.config import DemonstrationsConfig, HintsConfig, TextConfig
from rl.losses.term_config import Settings
from rl.replay.config import ReplayConfig
from rl.reweight.config import RecapConfig


class MixConfig(Settings):
    """What joins the fresh samples of a step, and how domains are weighed; each part is off until it is named."""

    replay: ReplayConfig | None = None
    """Training again on trajectories of earlier steps, or later on left-over ones."""
    demonstrations: DemonstrationsConfig | None = None
    """Worked solutions where the policy fails."""
    hints: HintsConfig | None = None
    """Responses that begin with a part of the worked solution."""
    text: TextConfig | None = None
    """Plain text, next token by next token."""
    reweight: RecapConfig | None = None
    """Weights of domains and reward components that follow their rewards."""
