"""What a run does about an alarm, where its recipe says more than `warn`: steps lose their say, or the run ends.

The rule is a function of the alarms that have rung, and these of the metrics file, so a resumed run is where it was. A
batch is given its credit before the step that it is part of is written: an alarm of step n counts from step n + 1 on,
with buffer.max_lag > 0 from the next batch that is packed.
"""

from __future__ import annotations

from collections.abc import Sequence

from rl.hack_alarms import ALARMS, HackAlarms
from rl.ports import Credit
from rl.run import PlannedStop
from rollout.schema import Float32Array, Metric, ScoredGroup

IGNORED = frozenset({"silent_scorer"})
"""Alarms that say that there is no step credit, not that it is farmed."""


class HackingStop(PlannedStop):
    """The recipe ends the run at an alarm."""


class AlarmedCredit:
    """Implements `rl.ports.Credit`: `with_steps` until an alarm rings, then `outcome` alone, or the end of the run."""

    def __init__(self, with_steps: Credit, outcome: Credit, alarms: HackAlarms, *, stops: bool) -> None:
        self.name = with_steps.name
        self.needs_greedy_baseline = with_steps.needs_greedy_baseline
        self._with_steps = with_steps
        self._outcome = outcome
        self._alarms = alarms
        self._stops = stops

    def __call__(self, groups: Sequence[ScoredGroup]) -> Sequence[tuple[Float32Array | None, ...]]:
        """Raises HackingStop where the recipe says so."""
        rung = sorted(self._alarms.rung - IGNORED)
        if rung and self._stops:
            named = "; ".join(f"{name}: {ALARMS[name]}" for name in rung)
            raise HackingStop(
                f"credit.process.on_alarm = 'stop', and an alarm rang: {named}. Look at the report; a new run with "
                "on_alarm = 'off' goes on with outcomes alone, with 'warn' as before"
            )
        return (self._outcome if rung else self._with_steps)(groups)

    def metrics(self) -> list[Metric]:
        """Of the credit that was given last, and whether steps have lost their say."""
        is_off = bool(self._alarms.rung - IGNORED)
        of_steps = getattr(self._with_steps, "metrics", list)
        return [*([] if is_off else of_steps()), Metric(name="credit/process_off", value=float(is_off), reduce="last")]
