"""Text, JSON, patterns, language and repetition: worked examples of each."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import json_schema, language, regular_expression, repetition, text
from rewards.repetition import repeated_share
from rollout.schema import Outcome, Status
from tests.fakes.rewards import sample

ENGLISH = "The train was late again this morning, so most of us walked the last mile to the office."
GERMAN = "Der Zug kam heute Morgen wieder zu sp\u00e4t, deshalb sind die meisten von uns zu Fu\u00df gegangen."
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


# ------------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("answer", "reference", "options", "score"),
    [
        ("New York", "new  york.", {}, 1.0),
        ("New York", "new york", {"case_sensitive": True}, 0.0),
        ("don't", "dont", {}, 0.0),
        ("Well: yes", "well yes", {}, 1.0),
        ("yes!", "yes", {"punctuation": True}, 0.0),
        ("\uff11\uff12", "12", {}, 1.0),
        ("I think so.\nNYC", '["New York", "NYC"]', {"take": "last_line"}, 1.0),
        ("so \\boxed{NYC}", "NYC", {"take": "box"}, 1.0),
        ("colour", "color", {}, 0.0),
        ("colour", "color", {"min_similarity": 0.9}, 1.0),
        ("colour", "color", {"min_similarity": 0.95}, 0.0),
        ("York New", "New York", {"min_similarity": 0.99, "measure": "words"}, 1.0),
        ("the city of New York", "New York", {"min_similarity": 0.99, "measure": "word_set"}, 1.0),
    ],
)
def test_texts(answer: str, reference: str, options: dict[str, object], score: float) -> None:
    assert text.verify(sample(answer, reference, settings=options)).score == score


def test_similarity_is_twice_the_common_characters_over_all() -> None:
    outcome = text.verify(sample("colour", "color", settings={"min_similarity": 0.5, "graded": True}))
    assert outcome.score == outcome.parts["similarity"] == pytest.approx(10 / 11)


def test_texts_without_words() -> None:
    assert text.verify(sample("a", " . ")).status is Status.BAD_REFERENCE
    assert text.check_reference(sample("", "")).status is Status.BAD_REFERENCE
    assert text.verify(sample(" ! ", "a")).status is Status.UNPARSEABLE_ANSWER
    assert text.verify(sample("a", "a", settings={"take": "box"})).status is Status.UNPARSEABLE_ANSWER
    assert "characters" in text.verify(sample("a" * 30_000, "a")).reason


# ------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("answer", "score", "reason"),
    [
        ('{"name": "Ada", "age": 36}', 1.0, ""),
        ('Here:\n```json\n{"name": "Ada", "age": 36}\n```\nDone.', 1.0, ""),
        ('{"name": "Ada", "age": -1}', 0.0, "$.age: -1 is less than the minimum of 0"),
        ('{"name": "Ada"}', 0.0, "$: 'age' is a required property"),
        ('{"name": "Ada", "age": 36, "x": 1}', 0.0, "x"),
        ('{"name": "Ada", "age": 36, "age": 37}', 0.0, "a key occurs twice"),
        ('{"name": "Ada", "age": NaN}', 0.0, "NaN is not JSON"),
        ("{'name': 'Ada', 'age': 36}", 0.0, "not JSON"),
        ("", 0.0, "not JSON"),
        ("[" * 50_000, 0.0, "not JSON"),
        ("9" * 200_000, 0.0, "characters"),
    ],
)
def test_answers_in_json(answer: str, score: float, reason: str) -> None:
    outcome = json_schema.verify(sample(answer, SCHEMA))
    assert outcome.score == score
    assert reason in outcome.reason


@pytest.mark.parametrize(
    "schema", ["", "{", "[]", "{}", '{"type": "text"}', '{"minimum": "a"}', '{"$ref": "http://127.0.0.1:9/a.json"}']
)
def test_what_is_no_schema_leaves_the_answer_unjudged(schema: str) -> None:
    assert json_schema.verify(sample("1", schema)).status is Status.BAD_REFERENCE


# --------------------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("answer", "pattern", "options", "status", "score"),
    [
        ("2024-05-06\n", r"\d{4}-\d\d-\d\d", {}, Status.JUDGED, 1.0),
        ("on 2024-05-06", r"\d{4}-\d\d-\d\d", {}, Status.JUDGED, 0.0),
        ("on 2024-05-06", r"\d{4}-\d\d-\d\d", {"whole": False}, Status.JUDGED, 1.0),
        ("YES", "yes", {"ignore_case": True}, Status.JUDGED, 1.0),
        ("YES", "yes", {}, Status.JUDGED, 0.0),
        ("x" * 60, "(?:x|xx)+[yz]", {"max_seconds": 0.2}, Status.UNPARSEABLE_ANSWER, 0.0),
        ("x" * 200_000, "x*", {}, Status.UNPARSEABLE_ANSWER, 0.0),
        ("x", "(", {}, Status.BAD_REFERENCE, None),
        ("x", "", {}, Status.BAD_REFERENCE, None),
    ],
)
def test_patterns(answer: str, pattern: str, options: dict[str, object], status: Status, score: float | None) -> None:
    outcome = regular_expression.verify(sample(answer, pattern, settings=options))
    assert (outcome.status, outcome.score) == (status, score)


# --------------------------------------------------------------------------------------------------- language


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [
        (ENGLISH, "en", 1.0),
        (ENGLISH, "de", 0.0),
        (GERMAN, "de", 1.0),
        ("\u4eca\u5929\u65e9\u4e0a\u706b\u8f66\u53c8\u665a\u70b9\u4e86" * 4, "zh", 1.0),
        ("42", "de", 1.0),
        (f"{ENGLISH}\n```python\nfor element in liste: print(element)\n```\n$\\alpha + \\beta$", "en", 1.0),
    ],
)  # fmt: skip
def test_languages(answer: str, wanted: str, score: float) -> None:
    assert language.verify(sample(answer, wanted)).score == score


def test_a_change_of_language_costs_its_share() -> None:
    outcome = language.verify(sample(f"{ENGLISH}\n{GERMAN}", settings={"language": "en"}))
    letters = [sum(map(str.isalpha, part)) for part in (ENGLISH, GERMAN)]
    assert outcome.score == pytest.approx(letters[0] / sum(letters))
    for least, score in ((0.4, 1.0), (0.6, 0.0)):
        options = {"language": "en", "min_share": least}
        assert language.verify(sample(f"{ENGLISH}\n{GERMAN}", settings=options)).score == score


def test_the_language_of_the_thinking() -> None:
    mixed = sample(ENGLISH, thinking=GERMAN, settings={"language": "de", "reads": "thinking"})
    assert language.verify(mixed).score == 1.0


def test_a_language_nobody_knows_is_a_bad_reference() -> None:
    assert language.verify(sample(ENGLISH, "xx")).status is Status.BAD_REFERENCE
    assert language.check_reference(sample("", "xx")).status is Status.BAD_REFERENCE
    assert language.check_reference(sample("", "fr")).score == 1.0


# ------------------------------------------------------------------------------------------------- repetition


@pytest.mark.parametrize(
    ("words", "ngram", "share"),
    [
        ("a b c d", 2, 0.0),
        ("a b a b a b", 2, 1 - 2 / 5),  # ab ba ab ba ab
        ("a a a a", 1, 1 - 1 / 4),
        ("a b", 3, 0.0),
        ("", 1, 0.0),
        ("\u4f60\u597d\u4f60\u597d", 2, 1 - 2 / 3),
    ],
)
def test_the_repeated_share(words: str, ngram: int, share: float) -> None:
    assert repeated_share(words, ngram) == pytest.approx(share)


def loops(times: int, **options: object) -> Outcome:
    return repetition.verify(sample("x", thinking="Wait, let me check that again. " * times, settings=options))


def test_a_loop_scores_0_and_prose_1() -> None:
    assert repetition.verify(sample(ENGLISH)).score == 1.0
    assert loops(1).score == 1.0
    assert loops(50).score == 0.0
    assert loops(50, reads="answer").score == 1.0
    graded = loops(50, graded=True)
    assert graded.score == pytest.approx((1 - graded.parts["repeated"]) / 0.8)


@settings(max_examples=50)
@given(st.text(max_size=400), st.integers(1, 10))
def test_the_share_is_one_below_1(words: str, ngram: int) -> None:
    assert 0.0 <= repeated_share(words, ngram) < 1.0


@settings(max_examples=50)
@given(st.text(max_size=200), st.text(max_size=30))
def test_nothing_raises(answer: str, reference: str) -> None:
    for verifier in (text, json_schema, regular_expression, language, repetition):
        verifier.verify(sample(answer, reference))
