"""What both sides of end_to_end_trl.py are asked to train. Light: our side loads no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from launch import recipe
from launch.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What both sides train. Round r uses the prompts that a run with seed r draws."""

    recipe: str
    overrides: list[str]
    rows: int  # of one forward pass
    rounds: int

    def text(self) -> str:
        return json.dumps(asdict(self))

    def config(self, seed: int = 0) -> RunConfig:
        return recipe.load(Path(self.recipe), [*self.overrides, f"run.seed={seed}"])

    def threads(self) -> int:
        return self.config().learner.threads_per_rank
