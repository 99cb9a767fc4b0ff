"""Every kind of instruction: a text that follows it, one that does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.instructions.counting import count_sentences, words_of
from rewards.instructions.verify import KINDS, check_reference, verify
from rollout.schema import Status
from tests.fakes.rewards import sample

TABLE: dict[str, list[tuple[dict[str, object], str, str]]] = {
    "keywords:existence": [({"keywords": ["cat", "dog house"]}, "A Cat in a dog house.", "A category, a dog house.")],
    "keywords:frequency": [
        ({"keyword": "go", "frequency": 2}, "Go, go!", "Go, ago, going"),
        ({"keyword": "go", "frequency": 2, "relation": "less than"}, "Go!", "Go, go"),
    ],
    "keywords:forbidden_words": [({"forbidden_words": ["but"]}, "A button.", "All but one.")],
    "keywords:letter_frequency": [
        ({"letter": "e", "let_frequency": 3, "let_relation": "exactly"}, "Eel, egg", "eel eel"),
    ],
    "length_constraints:number_words": [
        ({"num_words": 3, "relation": "at least"}, "I don't know", "well-known fact"),
        ({"num_words": 3, "relation": "less than"}, "two - words", "one two three"),
        ({"num_words": 2, "relation": "at most"}, "one two", "one two three"),
    ],
    "length_constraints:number_sentences": [
        ({"num_sentences": 2, "relation": "exactly"}, "Dr. No met A. Bond at 3.5 km. Then he left!", "One. Two. Three"),
    ],
    "length_constraints:number_paragraphs": [
        ({"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
        ({"num_paragraphs": 2}, "a\n* * *\nb", "a\n***\n"),
    ],
    "length_constraints:nth_paragraph_first_word": [
        ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "So"}, "Well.\n\n\"so it is", "So.\n\nWell"),
    ],
    "change_case:capital_word_frequency": [
        ({"capital_frequency": 2, "capital_relation": "at least"}, "NASA and ESA", "NASA and Esa"),
    ],
    "change_case:english_capital": [({}, "ALL OF IT, 100 %", "All of it")],
    "change_case:english_lowercase": [({}, "all of it", "All of it")],
    "punctuation:no_comma": [({}, "one; two", "one, two")],
    "language:response_language": [({"language": "de"}, "Das ist heute ein guter Tag gewesen.", "It was a fine day.")],
    "detectable_content:number_placeholders": [({"num_placeholders": 2}, "[name], [street]", "[name] []")],
    "detectable_content:postscript": [({"postscript_marker": "P.S."}, "Bye.\np. s. one more", "P.S.")],
    "detectable_format:number_bullet_lists": [({"num_bullets": 2}, "* a\n- b", "* a\n- b\n* c")],
    "detectable_format:constrained_response": [({}, "My answer is no.", "No.")],
    "detectable_format:number_highlighted_sections": [
        ({"num_highlights": 2}, "*one* and **two**", "2 * 3 * 4 and **one**"),
    ],
    "detectable_format:multiple_sections": [
        ({"section_spliter": "Section", "num_sections": 2}, "Section 1\na\n**Section 2**", "See Section 1.\nSection 2"),
    ],
    "detectable_format:json_format": [({}, "```json\n{\"a\": 1}\n```", "{a: 1}"), ({}, "[1]", "so: ```json\n1\n```")],
    "detectable_format:title": [({}, "<<Of joy>>\nText", "<< >>\nText")],
    "combination:two_responses": [({}, "one\n******\ntwo", "one\n******\none")],
    "combination:repeat_prompt": [({"prompt_to_repeat": "Say  it."}, "say it. I do.", "I say it.")],
    "startend:end_checker": [({"end_phrase": "Any questions?"}, "So. any questions?\"", "Any questions? No.")],
    "startend:quotation": [({}, "\"All of it.\"", "\"All\" of it.")],
}  # fmt: skip
ROWS = [(kind, *row) for kind, rows in TABLE.items() for row in rows]


def reference(*rows: dict[str, object]) -> str:
    return json.dumps(rows)


def test_the_table_is_complete() -> None:
    assert TABLE.keys() == KINDS.keys()
    assert len(KINDS) == 25


@pytest.mark.parametrize(("kind", "arguments", "good", "bad"), ROWS)
def test_each_kind(kind: str, arguments: dict[str, object], good: str, bad: str) -> None:
    wanted = reference({"kind": kind, **arguments})
    assert verify(sample(good, wanted)).score == 1.0
    assert verify(sample(bad, wanted)).score == 0.0


def test_all_must_be_followed_and_the_share_is_kept() -> None:
    rows = ({"kind": "punctuation:no_comma"}, {"kind": "change_case:english_lowercase"})
    outcome = verify(sample("one, two", reference(*rows)))
    assert (outcome.score, outcome.parts["pass_rate"]) == (0.0, 0.5)
    assert outcome.reason == "not followed: punctuation:no_comma"


def test_the_columns_of_public_sets() -> None:
    columns = {
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{"num_words": None}, {"num_words": 2.0, "relation": "at least", "keyword": None}],
    }
    assert verify(sample("one two", json.dumps(columns))).score == 1.0


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("no", "not JSON"),
        ("[]", "list of objects"),
        ('{"a": 1}', "list of objects"),
        (reference({"kind": "sing"}), "no such kind"),
        (reference({"kind": "keywords:existence"}), "needs the argument 'keywords'"),
        (reference({"kind": "keywords:existence", "keywords": "cat"}), "list of words"),
        (reference({"kind": "punctuation:no_comma", "n": 1}), "unexpected keyword argument 'n'"),
        (reference({"kind": "length_constraints:number_words", "num_words": 1.5}), "whole number"),
        (reference({"kind": "length_constraints:number_words", "num_words": 1, "relation": "about"}), "a relation is"),
        (reference({"kind": "language:response_language", "language": "xx"}), "ISO 639"),
        (reference({"kind": "startend:end_checker", "end_phrase": 3}), "has no attribute"),
        ('{"instruction_id_list": ["a"], "kwargs": []}', "one length"),
        ('[{"kind": "length_constraints:number_words", "num_words": Infinity}]', "whole number"),
    ],
)
def test_bad_instructions_leave_the_answer_unjudged(wanted: str, message: str) -> None:
    outcome = verify(sample("text", wanted))
    assert outcome.status is Status.BAD_REFERENCE
    assert message in outcome.reason
    assert check_reference(sample("", wanted)).status is Status.BAD_REFERENCE


def test_answers_that_cannot_be_read() -> None:
    wanted = reference({"kind": "punctuation:no_comma"})
    assert verify(sample(" ", wanted)).status is Status.UNPARSEABLE_ANSWER
    assert verify(sample("x" * 200_000, wanted)).status is Status.UNPARSEABLE_ANSWER


def test_words_and_sentences() -> None:
    assert words_of("It's a well-known fact: 3 x_y!") == ["It's", "a", "well-known", "fact", "3", "x", "y"]
    assert count_sentences("Really?! Yes... \u4f60\u597d\u3002") == 3
    assert count_sentences("Title\n\nOne line.") == 2


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_no_text_makes_a_kind_raise(text: str) -> None:
    rows = [{"kind": kind, **arguments} for kind, arguments, _, _ in ROWS]
    verify(sample(text, reference(*rows)))
