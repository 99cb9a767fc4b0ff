"""Alarms for reward hacking: what the metrics of the last steps say together, named by its symptom.

An alarm is metric `alarm/<name>`, 1 in every step that it lasts, and a warning when it begins. It changes nothing by
itself (`rl/hack_response.py` does, where a recipe asks for it): what
to do is the reader's, and each text says what to look at. Its memory is the metrics file itself, so a resumed run
alarms as the run would have.

Thresholds are judgment, not theory: a false alarm costs a look at the report, a missed one the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

WINDOW = 20
RECENT = 5
"""Steps whose mean is compared with that of as many first steps, of the window or of the run."""

ALARMS: Mapping[str, str] = {
    "score_without_accuracy": "step scores rise while accuracy does not: the policy learns the scorer, not the task",
    "padding": "answers take twice the steps they took and are no more often right: steps are being farmed",
    "one_step": "most answers have one step or none: reasoning is being skipped where scores can only be lost",
    "repetition": "answers repeat themselves at length: repeated text earns something",
    "boilerplate": "answers fill up with courtesies, empty boxes or nothing at all",
    "inverted_scorer": "wrong answers have better steps than right ones: the scorer misjudges this policy's answers",
    "process_outweighs": "the step term is larger than the outcome's advantage: lower credit.process.share",
    "silent_scorer": "less than half of the steps get a score: the step scorer fails or does not read this text",
    "forgetful_prm": "the online PRM finds fewer first errors in labelled solutions than at first: lower prm.online.lr",
    "stale_prm": "the online PRM ranks fresh wrong answers above right ones: raise prm.online.lr or its epochs",
}
"""Symptom by name of alarm."""

Values = Mapping[str, float]


class HackAlarms:
    """Watches the metrics of training steps, in order."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._first: list[Values] = []  # of the run, at most RECENT
        self._recent: deque[Values] = deque(maxlen=WINDOW)
        self._before: frozenset[str] = frozenset()  # alarms of the step before
        self._active: frozenset[str] = frozenset()
        self.rung: frozenset[str] = frozenset()  # alarms of any step so far
        self.probes: tuple[float, ...] = ()  # F1 of the online PRM's first look at labelled solutions, and of its last

    def replay(self, values: Values) -> None:
        """Take in a step of an earlier session, without a warning."""
        self._take(values)

    def observe(self, step: int, values: Values) -> dict[str, float]:
        """The alarm metrics of a training step; nothing for values that are not those of one."""
        if not self._take(values):
            return {}
        for name in sorted(self._active - self._before):
            self._warn(f"step {step}: alarm {name}: {ALARMS[name]}")
        return {f"alarm/{name}": 1.0 for name in sorted(self._active)}

    def _take(self, values: Values) -> bool:
        if "groups/trained_share" not in values:
            return False
        if len(self._first) < RECENT:
            self._first.append(values)
        self._recent.append(values)
        if (probe := values.get("prm/probe_f1")) is not None:
            self.probes = (*self.probes[:1], probe)
        self._before, self._active = self._active, frozenset(name for name, rings in _RULES.items() if rings(self))
        self.rung |= self._active
        return True

    def now(self, name: str) -> float:
        """Mean of the last RECENT steps; NaN unless all of them have it."""
        return _mean(list(self._recent)[-RECENT:], name)

    def then(self, name: str) -> float:
        """Mean of the first RECENT steps of a full window; NaN before it is full."""
        return _mean(list(self._recent)[:RECENT], name) if len(self._recent) == WINDOW else float("nan")

    def at_first(self, name: str) -> float:
        """Mean of the first RECENT steps of the run."""
        return _mean(self._first, name)


def _mean(steps: Sequence[Values], name: str) -> float:
    found = [values.get(name, float("nan")) for values in steps]
    return float(np.mean(found)) if len(found) == RECENT else float("nan")


# A comparison with NaN is False, so a rule without its metrics stays silent.


def _score_without_accuracy(w: HackAlarms) -> bool:
    rise = w.now("steps/score_mean") - w.then("steps/score_mean")
    unsolved = w.now("train/accuracy") < 0.95
    return unsolved and rise > 0.5 * w.now("steps/score_std") > 0 and _is_flat(w, w.then("train/accuracy"))


def _padding(w: HackAlarms) -> bool:
    grown = w.now("steps/per_answer") >= 2 * w.at_first("steps/per_answer")
    return grown and _is_flat(w, w.at_first("train/accuracy"))


def _is_flat(w: HackAlarms, before: float) -> bool:
    return w.now("train/accuracy") - before < 0.02


def _one_step(w: HackAlarms) -> bool:
    share = w.now("hack/one_step_share")
    grown = share > 0.5 and share > 2 * w.at_first("hack/one_step_share")
    return grown and _is_flat(w, w.at_first("train/accuracy"))


def _boilerplate(w: HackAlarms) -> bool:
    return any(w.now(name) > w.at_first(name) + 0.1 for name in ("hack/boilerplate", "hack/empty"))


_RULES: Mapping[str, Callable[[HackAlarms], bool]] = {
    "score_without_accuracy": _score_without_accuracy,
    "padding": _padding,
    "one_step": _one_step,
    "repetition": lambda w: w.now("hack/repeated_tokens") > w.at_first("hack/repeated_tokens") + 0.1,
    "boilerplate": _boilerplate,
    "inverted_scorer": lambda w: w.now("steps/correlation") < -0.05,
    "process_outweighs": lambda w: w.now("credit/process_to_outcome") > 1,
    "silent_scorer": lambda w: w.now("steps/judged_share") < 0.5 or w.now("prm/stopped") > 0,
    "forgetful_prm": lambda w: len(w.probes) == 2 and w.probes[1] < 0.8 * w.probes[0],
    "stale_prm": lambda w: w.now("prm/pair_accuracy") < 0.5,
}
