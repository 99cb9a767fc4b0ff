"""What the learner refuses to do."""

from __future__ import annotations


class LearnerDiedError(RuntimeError):
    """A learner process ended by itself. Its last words are in the log that the message names."""


class ReferenceDiedError(RuntimeError):
    """The process of the reference model ended by itself. Its last words are in the log that the message names."""


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite. Every rank raises it before the update: the weights are still good."""
