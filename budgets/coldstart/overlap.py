"""Tasks that share their wording with evaluation tasks, which no cold start may show.

Two texts overlap if their words, lower-cased and without punctuation, are equal, or if they share a run of `ngram`
words. A number is a word of its own, so two arithmetic questions of one template do not overlap unless their numbers
do, while short questions are compared whole. What it is not: a test of meaning; a paraphrase passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rollout.schema import Task

_WORD = re.compile(r"\w+")


class Overlap:
    """Knows the wording of `tasks`."""

    def __init__(self, tasks: Iterable[Task], *, ngram: int = 13) -> None:
        self._ngram = ngram
        self._whole: set[tuple[str, ...]] = set()
        self._runs: set[tuple[str, ...]] = set()
        for task in tasks:
            words = _words(task)
            self._whole.add(words)
            self._runs.update(self._of(words))

    def has(self, task: Task) -> bool:
        words = _words(task)
        return words in self._whole or not self._runs.isdisjoint(self._of(words))

    def _of(self, words: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
        return (words[at : at + self._ngram] for at in range(len(words) - self._ngram + 1))


def _words(task: Task) -> tuple[str, ...]:
    said = " ".join(m.content for m in task.prompt if m.role != "system")
    return tuple(_WORD.findall(said.casefold()))
