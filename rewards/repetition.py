"""Does the text go round in circles?

With N words, n-grams g_1 .. g_M (M = N - n + 1) and D different ones, the repeated share is 1 - D / M: 0 for a text
without repetition, near 1 for a loop. A word is a run of letters or digits, one character of a script that is written
without spaces, or one mark of punctuation. Not a judgement of style: a table or a poem repeats too, so leave
`max_share` well above what good answers have.
"""

from __future__ import annotations

import re

from rewards.outcome import Sample
from rewards.settings import RepetitionSettings
from rollout.schema import Outcome, Status

MAX_CHARS = 400_000
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W_]+|[^\w\s]")


def verify(sample: Sample) -> Outcome:
    """1 up to `max_share`; beyond it 0, or falling to 0 when graded. The part `repeated` is the share itself."""
    settings = RepetitionSettings.model_validate(sample.settings)
    parts = {"answer": [sample.answer], "thinking": [sample.thinking], "both": [sample.thinking, sample.answer]}
    share = repeated_share("\n".join(parts[settings.reads])[-MAX_CHARS:], settings.ngram)
    if share <= settings.max_share:
        score = 1.0
    else:
        score = (1.0 - share) / (1.0 - settings.max_share) if settings.graded else 0.0
    return Outcome(status=Status.JUDGED, score=score, parts={"repeated": share})


def repeated_share(text: str, ngram: int) -> float:
    """Share of the n-grams of words that were there before, in [0, 1); 0 for a text of fewer than n words."""
    words = _WORD.findall(text.casefold())
    count = len(words) - ngram + 1
    if count < 1:
        return 0.0
    return 1.0 - len({tuple(words[at : at + ngram]) for at in range(count)}) / count
