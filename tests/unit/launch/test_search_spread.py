"""The order in which a verifier looks at samples, and how many checks it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from launch.search.plan import SAMPLES
from launch.search.spread import checks, in_words, order_of, report
from launch.search.store import Searched
from tests.fakes.search import branch_of
from tests.unit.launch.test_eval_search import ByLetter, solution


def test_checks_by_hand() -> None:
    assert checks((2, 0, 1), (False, False, True)) == (1, 2.0)
    assert checks((0, 1, 2, 3), (False, None, False, True)) == (3, 2.0)  # the unjudged one is no check
    assert checks((0, 1), (True, True)) is None and checks((0, 1), (None, False)) is None
    pool = tuple(solution("7", right) for right in (False, True, False))
    orders = {"a": (1, 0, 2), "b": (0, 2, 1)}
    found = {
        t: Searched(task=t, strategy=SAMPLES, tokens=30, kind="", solutions=pool, order=o) for t, o in orders.items()
    }
    told = report(found, ["a", "b"], seed=0)
    assert told is not None
    assert (told["checks"]["value"], told["random_checks"]["value"], told["difference"]["value"]) == (2.0, 2.0, 0.0)
    assert "after 2.00 checks, in random order after 2.00" in in_words(told)
    assert report(found | {"a": replace(found["a"], order=None)}, ["a", "b"], seed=0) is None and in_words(None) == ""


async def test_a_sample_without_a_token_is_looked_at_last() -> None:
    silent = replace(branch_of("aa").trajectory, sampled=np.zeros(2, dtype=np.bool_))
    texts = [silent, *(branch_of(text).trajectory for text in ("aab", "bbb", "aab"))]
    order = await order_of(ByLetter(), texts, "name")
    assert order[-1] == 0 and sorted(order) == [0, 1, 2, 3]
    assert order == await order_of(ByLetter(), texts, "name")
