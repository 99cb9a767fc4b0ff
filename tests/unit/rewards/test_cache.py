from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rewards.cache import VerdictCache
from rewards.outcome import judged, unjudged, unparseable
from rollout.schema import Status


def test_only_verdicts_are_kept_and_only_so_many() -> None:
    cache = VerdictCache(2)
    cache.put("late", unjudged(Status.TIMEOUT, "over 3 s"))
    assert cache.get("late") is None
    cache.put("a", judged(1.0))
    cache.put("b", unparseable("no answer"))
    assert cache.get("a") == judged(1.0)
    cache.put("c", judged(0.0))  # b was used longest ago
    assert cache.get("b") is None and cache.get("a") is not None and len(cache) == 2
    assert (cache.hits, cache.misses) == (2, 2)


def test_size_zero_keeps_nothing() -> None:
    cache = VerdictCache(0)
    cache.put("a", judged(1.0))
    assert cache.get("a") is None and len(cache) == 0


@given(st.lists(st.integers(0, 9), max_size=200), st.integers(0, 5))
def test_it_is_bounded_and_never_wrong(questions: list[int], size: int) -> None:
    cache = VerdictCache(size)
    for question in questions:
        found = cache.get(question)
        assert found is None or found.score == question / 10
        cache.put(question, judged(question / 10))
        assert len(cache) <= size
    assert cache.hits + cache.misses == len(questions)
