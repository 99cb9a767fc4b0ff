"""Beam, lookahead, tree and revisions on a world of letters in which the best way is known."""

import asyncio
import math
from collections.abc import Sequence

import pytest

from prm.search.ports import Branch, distinct
from prm.search.revisions import revisions
from prm.search.step_beam import Found, step_beam
from prm.search.tree import Node, back_up, best_leaf, nodes, puct, select, step_prior, tree_search
from tests.fakes.search import LetterExtender, LetterValuer, branch_of

GOAL = "abba"


def on_the_way(text: str) -> float:
    return 1.0 if GOAL.startswith(text) else 0.0


def texts(found: Found) -> list[str]:
    return [branch.trajectory.text for branch in found.branches]


def beam(extender: LetterExtender, valuer: LetterValuer, num_beams: int, width: int, **more: int) -> Found:
    return asyncio.run(step_beam(extender, valuer, num_beams=num_beams, width=width, **more))


def test_a_value_that_knows_the_way_finds_it() -> None:
    extender = LetterExtender("ab", 4, seed=1)
    found = beam(extender, LetterValuer(on_the_way), 1, 8)
    assert texts(found) == [GOAL] and found.values == (1.0,)
    assert extender.num_tokens == 4 * 8 and len(extender.calls) == 4


def test_a_single_path_is_never_branched() -> None:
    extender = LetterExtender("ab", 6)
    beam(extender, LetterValuer(on_the_way), 1, 1)
    assert all(len(call) == 1 for call in extender.calls) and extender.num_tokens == 6


def test_beams_keep_their_places_and_equal_branches_are_one() -> None:
    extender = LetterExtender("a", 3)
    found = beam(extender, LetterValuer(lambda text: 1.0), 3, 2)
    assert texts(found) == ["aaa"]  # one letter: every branch is the same
    assert [len(call) for call in extender.calls] == [6, 2, 2]


class Uneven(LetterExtender):
    """`a` ends at once, everything else after four letters."""

    async def extend(
        self, branches: Sequence[Branch], *, num_steps: int | None = 1, greedy: bool = False
    ) -> list[Branch]:
        grown = await super().extend(branches, num_steps=num_steps, greedy=greedy)
        return [branch_of(b.trajectory.text, ended=b.ended or b.trajectory.text == "a") for b in grown]


def test_a_finished_beam_keeps_its_place_and_the_search_stops_when_all_are() -> None:
    extender = Uneven("ab", 4, seed=2)
    found = beam(extender, LetterValuer(lambda text: -len(text)), 2, 4)
    assert texts(found)[0] == "a" and len(found.branches) == 2
    assert len(extender.calls[1]) == 4  # one beam is open after the first step
    assert beam(Uneven("a", 4), LetterValuer(lambda text: 1.0), 2, 2).branches[0].trajectory.text == "a"


def test_what_is_unjudged_goes_on_only_when_nothing_else_can() -> None:
    judge = {"a": math.nan, "b": 0.0}
    found = beam(LetterExtender("ab", 1, seed=0), LetterValuer(lambda text: judge[text]), 1, 8)
    assert texts(found) == ["b"]
    found = beam(LetterExtender("ab", 3), LetterValuer(lambda text: math.nan), 1, 2)
    assert len(found.branches) == 1 and math.isnan(found.values[0])


def test_depth_is_bounded_and_what_is_open_is_written_to_its_end() -> None:
    extender = LetterExtender("ab", 5)
    found = beam(extender, LetterValuer(on_the_way), 2, 2, max_depth=2)
    assert all(branch.ended for branch in found.branches) and len(extender.calls) == 3


def test_lookahead_sees_what_a_step_leads_to_and_pays_for_it() -> None:
    """`b` looks better at first; only what follows shows that it is not. Greedy steps add `a`."""

    def trap(text: str) -> float:
        return 1.0 if text == "b" else float(text.count("a")) / 10

    blind, seeing = LetterExtender("ab", 3, seed=4), LetterExtender("ab", 3, seed=4)
    assert texts(beam(blind, LetterValuer(trap), 1, 6))[0].startswith("b")
    assert texts(beam(seeing, LetterValuer(trap), 1, 6, lookahead=2)) == ["aaa"]
    assert seeing.num_tokens > blind.num_tokens
    with pytest.raises(ValueError, match="lookahead >= 0"):
        beam(blind, LetterValuer(trap), 1, 1, lookahead=-1)


def test_puct_by_hand() -> None:
    assert puct(0.3, 0.4, 9, 3, 1.25) == pytest.approx(0.675)
    assert step_prior(branch_of("a"), branch_of("abc", logprob=-0.5)) == pytest.approx(math.exp(-0.5))
    assert step_prior(branch_of("a"), branch_of("a")) == 1.0


def test_values_are_backed_up_as_means() -> None:
    child = Node(branch=branch_of("a"))
    root = Node(branch=branch_of(""), children=[child])
    back_up([root, child], 1.0)
    assert child.mean == root.mean == 1.0
    back_up([root, child], -1.0)
    assert child.mean == 0.0 and root.visits == 2
    assert select(root, 1.25) == [root, child] and best_leaf(root) is child and nodes(root) == [root, child]


def tree(extender: LetterExtender, valuer: LetterValuer, **settings: int) -> Found:
    return asyncio.run(tree_search(extender, valuer, **settings))


def test_the_tree_finds_the_way_and_says_every_solution_it_saw() -> None:
    extender = LetterExtender("ab", 4, seed=0)
    found = tree(extender, LetterValuer(lambda text: 2 * on_the_way(text) - 1), num_simulations=30, num_children=4)
    assert texts(found)[0] == GOAL and found.values[0] == 1.0
    assert all(branch.ended for branch in found.branches) and len(set(texts(found))) == len(found.branches)


def test_a_tree_that_is_not_deep_enough_is_written_to_its_end() -> None:
    found = tree(LetterExtender("ab", 6), LetterValuer(on_the_way), num_simulations=6, num_children=2, max_depth=2)
    assert found.branches[0].ended and len(found.branches) == 1


def test_distinct_keeps_the_first_of_equal_branches() -> None:
    first, second = branch_of("ab"), branch_of("ab")
    assert distinct([first, branch_of("b"), second])[0] is first


class Counter:
    """Each attempt has one more letter than it was shown attempts."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    async def attempt(self, earlier: Sequence[Branch]) -> Branch:
        self.shown.append(len(earlier))
        return branch_of("a" * (len(self.shown)), ended=True)


def test_revisions_show_the_last_attempts_and_keep_them_all() -> None:
    reviser = Counter()
    found = asyncio.run(revisions(reviser, LetterValuer(lambda t: -len(t)), num_rounds=6, num_shown=2))
    assert reviser.shown == [0, 1, 2, 2, 2, 2]
    assert texts(found) == ["a" * n for n in range(1, 7)]  # a revision may be worse: the chain is ranked whole
    with pytest.raises(ValueError, match="num_rounds"):
        asyncio.run(revisions(reviser, LetterValuer(len), num_rounds=0))
