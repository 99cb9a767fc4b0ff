"""Which verifiers fail, on what, and when it is too much: `FailureWatch`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.config import QuotaConfig
from rewards.outcome import Sample
from rollout.schema import Outcome, Status

FAULTS = frozenset({Status.CRASH, Status.TIMEOUT})
_KEPT_PER_VERIFIER = 8  # offending samples worth looking at; more of them repeat the same story


class QuotaError(RuntimeError):
    """A verifier failed too often for the run to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One sample that a verifier failed on."""

    verifier: str
    status: Status
    reason: str
    sample: Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A verifier past its quota, and what to tell about it."""

    verifier: str
    text: str


class FailureWatch:
    """Counts the failures of each verifier over its last `window` verdicts and keeps its first offending samples."""

    def __init__(self, config: QuotaConfig) -> None:
        self._config = config
        self._recent: dict[str, deque[bool]] = {}
        self._counts: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._fresh: list[Failure] = []
        self._last: dict[str, str] = {}

    def observe(self, verifier: str, samples: Sequence[Sample], outcomes: Sequence[Outcome]) -> None:
        """Book the verdicts of one verifier."""
        recent = self._recent.setdefault(verifier, deque(maxlen=self._config.window))
        for sample, outcome in zip(samples, outcomes, strict=True):
            is_fault = outcome.status in FAULTS
            recent.append(is_fault)
            if not is_fault:
                continue
            self._counts[verifier] += 1
            self._last[verifier] = outcome.reason
            if self._kept[verifier] < _KEPT_PER_VERIFIER:
                self._kept[verifier] += 1
                failure = Failure(verifier=verifier, status=outcome.status, reason=outcome.reason, sample=sample)
                self._fresh.append(failure)

    def take(self) -> list[Failure]:
        """Offending samples kept since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def counts(self) -> dict[str, int]:
        """Failures of each verifier since the start."""
        return dict(self._counts)

    def breach(self) -> Breach | None:
        """Which verifier is past the quota, with its last failure and what to do; None while all are within."""
        limit, window = self._config.max_share, self._config.window
        for verifier, recent in self._recent.items():
            failed = sum(recent)
            if limit < 1 and len(recent) == window and failed > limit * window:
                text = (
                    f"verifier {verifier!r} failed on {failed} of its last {window} samples, more than "
                    f"rewards.quota.max_share = {limit:g} allows; the last time: {self._last[verifier]}"
                )
                return Breach(verifier=verifier, text=text)
        return None
