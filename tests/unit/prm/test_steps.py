from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm.config import BlankLineSplitter, NewlineSplitter, SeparatorSplitter
from prm.steps import Splitter, cut_steps, split_steps
from tests.fakes.rewards import OPEN, trajectory

# Four prompt tokens and the opening mark come first, so thinking character i is token 5 + i.
FIRST = 5


def spans(
    thinking: str, splitter: Splitter, answer: str | None = "7", *, include_answer: bool = False
) -> list[tuple[int, int]]:
    steps = split_steps(trajectory(thinking, answer), splitter, include_answer=include_answer)
    return [(step.start - FIRST, step.end - FIRST) for step in steps]


def texts(thinking: str, splitter: Splitter) -> list[str]:
    return [step.text for step in cut_steps(trajectory(thinking, "7"), splitter)]


def test_a_separator_belongs_to_the_step_it_ends_and_the_closing_mark_to_none() -> None:
    assert spans("8+5;13;", SeparatorSplitter()) == [(0, 4), (4, 7)]
    assert texts("8+5;13;", SeparatorSplitter()) == ["8+5", "13"]


def test_the_answer_can_be_one_more_step() -> None:
    # 3 thinking tokens, the closing mark as token 3, the answer from token 4 on.
    assert spans("8+5", SeparatorSplitter(), "13", include_answer=True) == [(0, 3), (4, 6)]
    assert spans("8+5", SeparatorSplitter(), None, include_answer=True) == [(0, 3)]


def test_steps_of_white_space_only_are_dropped() -> None:
    assert texts("a\n\n  \nb", NewlineSplitter()) == ["a", "b"]
    assert spans("a\n\n  \nb", NewlineSplitter()) == [(0, 2), (6, 7)]
    assert spans("", NewlineSplitter()) == []
    assert spans(" \n ", NewlineSplitter()) == []


def test_blank_lines_cut_paragraphs_but_not_code_or_formulas() -> None:
    assert texts("a\nb\n\nc", BlankLineSplitter()) == ["a\nb", "c"]
    assert texts("```\nx\n\ny\n```\n\nz", BlankLineSplitter()) == ["```\nx\n\ny\n```", "z"]
    assert texts("$$x\n\ny$$\n\nz", BlankLineSplitter()) == ["$$x\n\ny$$", "z"]
    assert texts("\\[x\n\ny\\]\n\nz", BlankLineSplitter()) == ["\\[x\n\ny\\]", "z"]


def test_a_region_that_is_never_closed_protects_nothing() -> None:
    assert texts("a\n\n$$b\n\nc", BlankLineSplitter()) == ["a", "$$b", "c"]


def test_a_token_across_a_boundary_belongs_to_the_step_it_completes() -> None:
    thinking = "a.\n\nBc"
    attempt = trajectory(thinking, "7", pieces=["a", ".\n\nB", "c"])
    steps = cut_steps(attempt, BlankLineSplitter())
    assert [(step.span.start, step.span.end) for step in steps] == [(5, 7), (7, 8)]
    assert [step.text for step in steps] == ["a.", "Bc"]


def test_a_step_without_a_token_of_its_own_joins_the_one_before() -> None:
    attempt = trajectory("1;2;3", "7", pieces=["1;2;", "3"])
    steps = cut_steps(attempt, SeparatorSplitter())
    assert [(step.span.start, step.span.end, step.text) for step in steps] == [(5, 6, "1 2"), (6, 7, "3")]


@pytest.mark.parametrize("splitter", [NewlineSplitter(), BlankLineSplitter(), SeparatorSplitter()])
@given(thinking=st.text(alphabet="a;\n $`\\[]", max_size=60), data=st.data())
def test_spans_are_ordered_disjoint_and_hold_all_that_is_not_blank(
    splitter: Splitter, thinking: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(thinking) - 1)), max_size=10)))
    edges = [0, *[cut for cut in cuts if cut < len(thinking)], len(thinking)]
    pieces = [thinking[a:b] for a, b in itertools.pairwise(edges) if a < b]
    attempt = trajectory(thinking, "7", pieces=pieces or None)
    steps = cut_steps(attempt, splitter)
    covered = {token for step in steps for token in range(step.span.start, step.span.end)}
    assert len(covered) == sum(step.span.end - step.span.start for step in steps)
    assert [step.span.start for step in steps] == sorted(step.span.start for step in steps)
    end = len(OPEN)
    for index, piece in enumerate(pieces):
        end += len(piece)
        is_content = bool(piece.strip(" \n;"))
        assert not is_content or FIRST + index in covered


@given(st.text(alphabet="ab;", min_size=1, max_size=40))
def test_spans_are_what_the_trajectory_itself_would_say(thinking: str) -> None:
    attempt = trajectory(thinking, "7")
    offset = len(OPEN)
    expected, start = [], 0
    for end in [i + 1 for i, char in enumerate(thinking) if char == ";"] + [len(thinking)]:
        if thinking[start:end].strip(";"):
            expected.append(attempt.tokens_of((offset + start, offset + end)))
        start = end
    assert [(step.start, step.end) for step in split_steps(attempt, SeparatorSplitter())] == expected
