"""Regression fixtures of the computer-algebra path: what math-verify alone gets wrong, and what it must get right."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rewards.sandbox import Reply, ReplyStatus, WorkerPool
from tests.fakes.rewards import sample
from tests.unit.rewards.math_cases import MATH_VERIFY_GRANTS_WRONGLY, MATH_VERIFY_REFUSES_WRONGLY, cases

VERIFY = "rewards.math_answer:verify"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(num_workers=1, max_seconds=3, max_memory_mib=1536)
    yield pool
    pool.close()


def verdicts(pool: WorkerPool, pairs: list[tuple[str, str]]) -> list[tuple[str, float | None]]:
    replies = pool.call(VERIFY, [sample(rf"\boxed{{{answer}}}", reference) for answer, reference in pairs])
    return [_verdict(reply) for reply in replies]


def _verdict(reply: Reply) -> tuple[str, float | None]:
    assert reply.status is ReplyStatus.OK, reply
    return reply.value["status"], reply.value["score"]


def test_equal_in_value(pool: WorkerPool) -> None:
    pairs = cases("equal")
    got = verdicts(pool, pairs)
    assert len(pairs) > 150
    assert [pair for pair, verdict in zip(pairs, got, strict=True) if verdict != ("judged", 1.0)] == []


def test_different_in_value(pool: WorkerPool) -> None:
    pairs = cases("different")
    got = verdicts(pool, pairs)
    assert len(pairs) > 100
    assert [pair for pair, (_, score) in zip(pairs, got, strict=True) if score != 0.0] == []


def test_every_reference_of_the_cases_can_be_judged_against(pool: WorkerPool) -> None:
    references = sorted({reference for verdict in ("equal", "different") for _, reference in cases(verdict)})
    replies = pool.call("rewards.math_answer:check_reference", [sample("", reference) for reference in references])
    assert [r for r, reply in zip(references, replies, strict=True) if _verdict(reply) != ("judged", 1.0)] == []
    assert [s for s, _ in verdicts(pool, [(r, r) for r in references])] == ["judged"] * len(references)


def test_the_verdicts_that_math_verify_gets_wrong(pool: WorkerPool) -> None:
    """As they were measured: whole texts, dollar signs included."""
    pairs = [*MATH_VERIFY_GRANTS_WRONGLY, *MATH_VERIFY_REFUSES_WRONGLY]
    replies = pool.call(VERIFY, [sample(text, reference) for reference, text in pairs])
    wanted = [0.0] * len(MATH_VERIFY_GRANTS_WRONGLY) + [1.0] * len(MATH_VERIFY_REFUSES_WRONGLY)
    assert [(p, _verdict(r)) for p, r, w in zip(pairs, replies, wanted, strict=True) if _verdict(r)[1] != w] == []


def test_references_outside_the_grammar_are_read_by_math_verify(pool: WorkerPool) -> None:
    integral = r"\int_0^1 x^2 dx"
    assert verdicts(pool, [(r"\frac{1}{3}", integral), (r"\frac{1}{4}", integral)]) == [
        ("judged", 1.0),
        ("judged", 0.0),
    ]


def test_a_bad_reference_is_unjudged_for_every_answer(pool: WorkerPool) -> None:
    garbage = r"\frac{1}{"
    assert verdicts(pool, [("7", garbage), (garbage, garbage)]) == [("bad_reference", None)] * 2


def test_an_answer_that_hands_the_question_back_is_the_policys_fault(pool: WorkerPool) -> None:
    pairs = [(r"\int_0^1 x^2 dx", r"\frac{1}{3}"), (r"9^{9^{9^9}}", "8"), ("", "8"), (r"\frac{1", "8")]
    assert verdicts(pool, pairs) == [("unparseable_answer", 0.0)] * 4


def test_program_text_is_not_run(pool: WorkerPool, tmp_path: object) -> None:
    mark = f"{tmp_path}/touched"
    codes = [f"__import__('os').system('touch {mark}')", f"open('{mark}','w')", f"Symbol.__class__.mro('{mark}')"]
    for code in codes:
        for text in (code, rf"\boxed{{{code}}}", f"${code}$"):
            (reply,) = pool.call(VERIFY, [sample(text, r"\sqrt{2}")])
            assert reply.value["score"] == 0.0
    assert not os.path.exists(mark)


def test_references_are_checked_by_parsing_not_by_spelling(pool: WorkerPool) -> None:
    references = ["8", r"\text{Evelyn}", r"\frac{\pi}{2}", r"\frac{1}{", "", r"9^{9^{9^9}}"]
    replies = pool.call("rewards.math_answer:check_reference", [sample("", reference) for reference in references])
    assert [_verdict(reply)[0] for reply in replies] == ["judged"] * 3 + ["bad_reference"] * 3


def test_reasoning_gym_scores_are_its_own_and_fractional(pool: WorkerPool) -> None:
    target = "rewards.reasoning_gym_scorer:verify"
    meta = {"family": "chain_sum", "metadata": {"source_dataset": "chain_sum", "expression": "4 - 1 - 7"}}
    items = [
        sample("-4", "-4", meta=meta),
        sample("-5", "-4", meta=meta),
        sample("", "-4", meta=meta),
        sample("-4", "-4"),
        sample("-4", "-4", meta=meta | {"family": "no_such_family"}),
    ]
    replies = pool.call(target, items)
    assert _verdict(replies[0]) == ("judged", 1.0)
    status, score = _verdict(replies[1])
    assert status == "judged" and score is not None and 0.0 <= score < 1.0
    assert _verdict(replies[2]) == ("unparseable_answer", 0.0)
    assert _verdict(replies[3]) == ("bad_reference", None)
    assert replies[4].status is ReplyStatus.RAISED and "no_such_family" in replies[4].detail


def test_a_family_that_names_no_answer_can_be_judged_and_another_cannot(pool: WorkerPool) -> None:
    check = "rewards.reasoning_gym_scorer:check_reference"
    puzzle = {"vertices": [0, 1], "edges": [(0, 1)], "num_colors": 2, "color_options": [1, 2]}
    items = [
        sample("", "", meta={"family": "graph_color", "metadata": {"puzzle": puzzle}}),
        sample("", "", meta={"family": "chain_sum", "metadata": {}}),
        sample("", "-4", meta={"family": "chain_sum", "metadata": {}}),
    ]
    got = [_verdict(reply) for reply in pool.call(check, items)]
    assert got == [("judged", 1.0), ("bad_reference", None), ("judged", 1.0)]
