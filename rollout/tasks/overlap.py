"""Which training tasks repeat an evaluation task, in the same words or nearly.

A question is reduced to its words, numbers and operators (Unicode NFKC, case folded, other punctuation left out). A
training task overlaps with an evaluation task if

    the two reduced texts are equal, or
    of the distinct n-grams of the shorter one at least `share` occur in the other

Assumption: contamination is copying, with edits. What it is not: a search for paraphrases or translations. Texts of
fewer than n tokens are compared whole only, because a short n-gram says nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rollout.schema import Task

TOKEN = re.compile(r"[^\W_]+|[-+*/=<>^%]")

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A training task and the evaluation task that it repeats; `share` is 1 where the texts are the same."""

    task: Task
    evaluation: Task
    kind: Literal["same_text", "ngrams"]
    share: float


def reduced(task: Task) -> Tokens:
    """The words, numbers and operators of the question; system messages are not part of it."""
    text = " ".join(message.content for message in task.prompt if message.role != "system")
    return tuple(TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()))


def find_overlaps(
    tasks: Sequence[Task], evaluation: Sequence[Task], *, ngram: int = 13, share: float = 0.5
) -> list[Overlap]:
    """The training tasks that overlap with an evaluation task, each with the closest one, in their order."""
    texts = [reduced(task) for task in evaluation]
    whole = {text: number for number, text in reversed(list(enumerate(texts)))}
    grams = [_ngrams(text, ngram) for text in texts]
    holders: defaultdict[Tokens, list[int]] = defaultdict(list)
    for number, mine in enumerate(grams):
        for gram in mine:
            holders[gram].append(number)
    found: list[Overlap] = []
    for task in tasks:
        text = reduced(task)
        if text in whole:
            found.append(Overlap(task=task, evaluation=evaluation[whole[text]], kind="same_text", share=1.0))
            continue
        mine = _ngrams(text, ngram)
        hits = Counter(number for gram in mine for number in holders.get(gram, ()))
        shares = {number: count / min(len(mine), len(grams[number])) for number, count in hits.items()}
        closest = max(shares, key=lambda number: (shares[number], -number), default=None)
        if closest is not None and shares[closest] >= share:
            found.append(Overlap(task=task, evaluation=evaluation[closest], kind="ngrams", share=shares[closest]))
    return found


def twins(tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
    """Tasks whose questions are the same when reduced, in groups of two or more."""
    groups: defaultdict[Tokens, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[reduced(task)].append(task)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _ngrams(text: Tokens, size: int) -> frozenset[Tokens]:
    return frozenset(text[i : i + size] for i in range(len(text) - size + 1))
