"""Cold-start solutions from a scripted policy: cuts, tags, modes, verification, balance, overlap."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.coldstart.attempts import Attempt, success_rate
from budgets.coldstart.five_modes import SIZES, Modes, five_modes, plain_analysis, shares
from budgets.coldstart.overlap import Overlap
from budgets.coldstart.solutions import Solution, Solutions, balanced, report
from budgets.coldstart.tags import Tagging, tagged
from budgets.coldstart.truncation import RATIOS, Truncation, cut, truncated
from budgets.self_assessment import analysis_text, decision_of
from rollout.schema import Job
from tests.fakes.budgets import attempt
from tests.fakes.coldstart import Said, budget_of, scripted, task_of

BUDGETS = {name: budget_of(name) for name in RATIOS}
LONG = "One two. Three four. Five six. Seven."  # 37 tokens of one character
HOW = Truncation(ratios=RATIOS, remarks={"low": "Enough."}, samples=3)


def chain(thinking: str, answer: str = "4") -> Attempt:
    length = len(thinking) + len(answer) + 1
    return Attempt(trajectory=attempt(0, length=length, answer=answer, thinking=thinking), fault=None)


# ---------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize(
    ("ratio", "kept"),
    [(0.5, "One two."), (0.6, "One two. Three four."), (0.25, "One two."), (0.1, "One "), (0.0, ""), (0.01, "")],
)
def test_thinking_is_cut_at_the_last_sentence_that_fits(ratio: float, kept: str) -> None:
    assert cut(chain(LONG), ratio) == kept


def test_steps_and_lines_are_ends_too() -> None:
    assert cut(chain("8+5+7;13+7;20"), 0.8) == "8+5+7;"
    assert cut(chain("first\nsecond\nthird"), 0.6) == "first"


@given(st.text(alphabet="ab.; \n", min_size=1, max_size=40), st.floats(0, 0.99))
def test_a_cut_is_a_beginning_within_the_ratio(thinking: str, ratio: float) -> None:
    kept = cut(chain(thinking), ratio)
    assert thinking.startswith(kept) and len(kept) <= round(ratio * len(thinking))


def test_answers_are_written_anew_to_the_cut_thinking() -> None:
    def script(job: Job, sibling: int) -> Said:
        if job.budget.prefix:  # begins with the cut thinking; the first answer is wrong
            return job.budget.prefix[1:-1], "7" if sibling else "8"
        return (LONG if sibling == 1 else "Short."), "7"

    sampler, jobs = scripted(script)
    found = asyncio.run(truncated(task_of(7), BUDGETS, sampler, HOW))
    assert {effort: s.thinking for effort, s in found.by_effort.items()} == {
        "high": LONG,
        "medium": "One two.",
        "low": "One two.\n\nEnough.",
    }
    assert {s.answer for s in found.by_effort.values()} == {"7"}
    assert [job.budget.prefix for job in jobs] == ["", "<One two.>", "<One two.\n\nEnough.>"]
    assert all(job.budget.max_thinking_tokens is None for job in jobs[1:])
    assert [job.budget.effort for job in jobs] == ["high", "medium", "low"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (("so", "8"), "high: wrong"),
        (("so", None), "high: incomplete"),
        (("so", "wait 7"), "high: leak"),
        (("so", "< 7"), "high: leak"),
    ],
)
def test_a_chain_that_is_not_good_teaches_nothing(said: Said, reason: str) -> None:
    sampler, _ = scripted(lambda job, sibling: said)
    assert asyncio.run(truncated(task_of(7), BUDGETS, sampler, HOW)).reason == reason


def test_a_task_needs_every_effort_and_an_unjudged_chain_is_no_chain() -> None:
    sampler, _ = scripted(lambda job, sibling: (LONG, "8" if job.budget.effort == "low" else "7"))
    found = asyncio.run(truncated(task_of(7), BUDGETS, sampler, HOW))
    assert (found.reason, found.by_effort) == ("low: wrong", {})
    sampler, _ = scripted(lambda job, sibling: (LONG, "7"), unjudged=(0, 1, 2))
    assert asyncio.run(truncated(task_of(7), BUDGETS, sampler, HOW)).reason == "high: unjudged"


@pytest.mark.parametrize("ratios", [{}, {"high": 0.5}, {"high": 1, "low": 1}, {"high": 1, "low": -0.1}])
def test_impossible_ratios_are_refused(ratios: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ratio 1 for the first effort"):
        Truncation(ratios=ratios, remarks={})


# ---------------------------------------------------------------------------------------- tags and modes


def answers(right: int, *, brief: str = "b") -> object:
    """The first `right` of 8 attempts are right; thinking grows with the sibling."""

    def script(job: Job, sibling: int) -> Said:
        answer = "7" if sibling < right else "8"
        return (brief if job.budget.effort == "low" else "t" * (sibling + 2)), answer

    return script


@pytest.mark.parametrize(("right", "tag"), [(5, "hard"), (6, "easy")])
def test_the_tag_is_the_measured_difficulty(right: int, tag: str) -> None:
    sampler, _ = scripted(answers(right))  # type: ignore[arg-type]
    found = asyncio.run(tagged(task_of(7), budget_of("high"), budget_of("low"), sampler, Tagging()))
    assert found.label == tag and found.by_effort["auto"] == found.by_effort[tag]
    assert (found.by_effort["easy"].preface, found.by_effort["easy"].thinking) == ("[Easy]", "b")
    assert (found.by_effort["hard"].preface, found.by_effort["hard"].thinking) == ("[Hard]", "t" * (right + 1))


def test_unjudged_attempts_are_no_failures() -> None:
    sampler, _ = scripted(answers(8), unjudged=(0, 1, 2))  # type: ignore[arg-type]
    attempts = asyncio.run(sampler.attempts(task_of(7), budget_of("high"), 8))
    assert success_rate(attempts) == 1.0
    assert success_rate(attempts[:3]) is None
    none = asyncio.run(tagged(task_of(9), budget_of("high"), None, sampler, Tagging()))
    assert none.by_effort == {} and none.reason.startswith("high: ")


@pytest.mark.parametrize(("right", "decision"), [(8, "no_think"), (2, "think"), (0, "think")])
def test_auto_think_thinks_where_it_is_needed(right: int, decision: str) -> None:
    def script(job: Job, sibling: int) -> Said:
        if job.budget.effort == "off":
            return "", "7" if sibling < right else "8"
        return "t" * (sibling + 1), "7"

    sampler, _ = scripted(script)
    found = asyncio.run(
        five_modes(task_of(7), budget_of("high"), budget_of("off"), sampler, Modes(), plain_analysis)
    ).by_effort
    auto = found["auto_think"]
    assert decision_of(auto.preface) == decision
    assert auto.thinking == ("" if decision == "no_think" else "t" * 8)
    assert found["think"].thinking == "t" * 8 and ("no_think" in found) == (right > 0)


def test_an_analysis_names_the_mode_it_goes_on_in() -> None:
    for decision in ("think", "no_think"):
        text = analysis_text("Easy or not?", decision)  # type: ignore[arg-type]
        assert decision_of(text + "<think></think>7") == decision
    assert decision_of("<think>/think</think>") is None
    assert decision_of("<analysis>undecided</analysis>7") is None


def test_streams_are_mixed_by_their_published_sizes() -> None:
    assert shares({"no_think": 5, "think": 9, "auto_think": 1}) == {
        "no_think": pytest.approx(330 / 580, abs=1e-4),
        "think": pytest.approx(230 / 580, abs=1e-4),
        "auto_think": pytest.approx(20 / 580, abs=1e-4),
    }
    assert set(shares(dict.fromkeys(SIZES, 1))) == set(SIZES)
    assert set(shares({"think": 3, "video": 0})) == {"think"}
    with pytest.raises(ValueError, match=r"streams are no_think, .* got audio"):
        shares({"audio": 1})


# ---------------------------------------------------------------------------------------- the set


def solved(number: int, label: str, tokens: int) -> Solutions:
    made = {
        "high": Solution(thinking="t", answer="7", num_tokens=2 * tokens),
        "low": Solution(thinking="t", answer="7", num_tokens=tokens),
    }
    return Solutions(task=task_of(number), by_effort=made, label=label)


def test_labels_get_equal_parts_and_the_report_says_what_was_left_out() -> None:
    found = [solved(i, "easy" if i < 5 else "hard", 10 + i) for i in range(8)]
    found += [Solutions.none(task_of(20 + i), "high: wrong") for i in range(4)]
    kept = balanced(found)
    assert [s.task.key for s in kept] == ["0", "1", "2", "5", "6", "7"]
    said = report(found, kept, num_overlapping=3)
    assert (said["num_tasks"], said["num_kept"], said["num_overlapping"], said["num_balanced_away"]) == (15, 6, 3, 2)
    assert said["left_out"] == {"high: wrong": 4} and said["labels"] == {"easy": 3, "hard": 3}
    assert said["efforts"]["low"]["ratio"] == 0.5 and said["efforts"]["high"]["num_solutions"] == 6
    assert balanced([Solutions.none(task_of(1), "x")]) == []


def test_tasks_with_the_wording_of_an_evaluation_are_found() -> None:
    shown = "A farmer has twelve hens and each of them lays two eggs on every day of June."
    overlap = Overlap([task_of(1, question=shown)], ngram=8)
    assert overlap.has(task_of(2, question=shown.upper().replace(".", " !")))
    assert overlap.has(task_of(3, question=f"Listen: {shown} How many eggs are that?"))
    assert not overlap.has(task_of(4, question="A farmer has twelve hens. How many eggs?"))
    short = Overlap([task_of(5, question="3+4=")])
    assert short.has(task_of(6, question="3 + 4 =")) and not short.has(task_of(7, question="4+3="))
