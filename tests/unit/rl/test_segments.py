"""What is computed for all answers of a step at once is what was computed for each of them."""

from __future__ import annotations

import random

import numpy as np

from rl.hack_metrics import NGRAM, may_repeat, repeated
from rl.segments import Segments, joined, thinking_tokens
from rollout.schema import Finish, PolicySpan, Trajectory


def test_counts_sums_and_parts_of_sequences_some_of_them_empty() -> None:
    sequences = [np.asarray(s, dtype=np.float64) for s in ([1.0, 2.0], [], [-3.0], [4.0, 5.0, -6.0], [])]
    segments, flat = Segments.of(sequences), np.concatenate(sequences)
    assert segments.counts(flat > 0).tolist() == [2, 0, 0, 2, 0]
    assert segments.reduce(np.add, flat, 0.0).tolist() == [3.0, 0.0, -3.0, 3.0, 0.0]
    assert segments.reduce(np.minimum, flat, 9.0).tolist() == [1.0, 9.0, -3.0, -6.0, 9.0]
    assert [part.tolist() for part in segments.split(flat)] == [s.tolist() for s in sequences]
    positive = segments.within(flat > 0)
    assert positive.reduce(np.add, flat[flat > 0], 0.0).tolist() == [3.0, 0.0, 0.0, 9.0, 0.0]


def test_nothing_at_all() -> None:
    none = Segments.of([])
    assert joined([], np.float32).dtype == np.float32 and none.split(joined([], np.float32)) == []
    assert none.counts(np.zeros(0, dtype=np.bool_)).tolist() == [] and thinking_tokens([]).tolist() == []
    assert none.reduce(np.add, np.zeros(0), 0.0).tolist() == []


def attempt(chance: random.Random) -> Trajectory:
    """Any texts, tokens and spans: tokens without characters, empty spans and forced tokens among them."""
    prompt_len, size = chance.randrange(3), chance.randrange(12)
    ends = np.cumsum([chance.choice((0, 1, 1, 3)) for _ in range(size)]).tolist()
    num_chars = (ends[-1] if ends else 0) + chance.randrange(2)
    cuts = sorted(chance.randrange(num_chars + 1) for _ in range(2))
    return Trajectory(
        group_id="g",
        sibling=0,
        token_ids=np.arange(prompt_len + size, dtype=np.int32),
        sampled=np.asarray([False] * prompt_len + [chance.random() < 0.8 for _ in range(size)], dtype=np.bool_),
        sampler_logprobs=np.zeros(prompt_len + size, dtype=np.float32),
        char_ends=np.asarray([0] * prompt_len + ends, dtype=np.int32),
        prompt_len=prompt_len,
        text="x" * num_chars,
        thinking=chance.choice((None, (cuts[0], cuts[1]), (cuts[0], cuts[1]))),
        answer=None,
        finish=Finish.STOP,
        policy=PolicySpan(start=0, end=0),
    )


def test_thinking_tokens_of_many_are_those_of_each() -> None:
    chance = random.Random(0)
    attempts = [attempt(chance) for _ in range(2_000)]
    assert thinking_tokens(attempts).tolist() == [t.num_thinking_tokens for t in attempts]


def test_an_answer_that_repeats_itself_is_always_found() -> None:
    chance = np.random.default_rng(0)
    answers = [chance.integers(0, 2 if i % 3 else 50, size=chance.integers(0, 70)).astype(np.int32) for i in range(400)]
    answers += [np.tile(chance.integers(0, 900, 30), 2).astype(np.int32), answers[-1], answers[-1]]
    repeats = np.asarray([bool(repeated(ids).any()) for ids in answers])
    found = may_repeat(np.concatenate(answers), Segments.of(answers))
    assert repeats.any() and not repeats.all()
    assert found.tolist() == repeats.tolist()  # a false alarm costs only time; of so few hashes it would be a fault
    assert not may_repeat(np.zeros(NGRAM, dtype=np.int32), Segments([NGRAM])).any()
