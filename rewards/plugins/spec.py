"""Which plugin, and with which settings: what the service tells a worker to bind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rewards.config import AdapterName

MAKER = "rewards.plugins.host:bind!"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSpec:
    """`place` is 'module:attribute', '/path/file.py:attribute' or the address of a remote reward model.

    `adapter` None detects the call shape. `low` and `high` are the range of the plugin's numbers, mapped to [0, 1].
    None elsewhere leaves it to what the plugin declares, and `default_seconds` holds where it declares no time.
    """

    name: str
    place: str
    adapter: AdapterName | None = None
    reads_thinking: bool | None = None
    low: float = 0.0
    high: float = 1.0
    max_seconds: float | None = None
    default_seconds: float = 3.0
    batch_size: int | None = None

    def target(self) -> str:
        """The function bound to these settings, in the form that a worker can load."""
        return MAKER + json.dumps(asdict(self))

    @classmethod
    def of_target(cls, target: str) -> PluginSpec | None:
        """The plugin behind a worker's target; None for a built-in function."""
        return cls(**json.loads(target.removeprefix(MAKER))) if target.startswith(MAKER) else None
