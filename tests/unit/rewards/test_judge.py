from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from rewards import verifier
from rewards.config import ComponentConfig, RewardsConfig, SandboxConfig
from rewards.judge import Judge
from rewards.outcome import Sample, samples_of
from rewards.routing import Routing, UnknownVerifierError, VerifierSettingsError
from rewards.sandbox import SandboxLoadError
from rewards.verifier import BUILT_IN_VERIFIERS, Traits
from rollout.schema import Finish, Outcome, Status
from tests.fakes.rewards import group, sample, task

VERIFIERS = {
    **BUILT_IN_VERIFIERS,
    "act": "tests.fakes.rewards:act",
    "die_once": "tests.fakes.rewards:die_once",
    "absent": "tests.no_such_module:verify",
}
SANDBOX = SandboxConfig(num_workers=1, max_seconds=0.7, max_memory_mib=1536)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(RewardsConfig(sandbox=SANDBOX), VERIFIERS)
    yield judge
    judge.close()


@pytest.fixture
async def fresh() -> AsyncIterator[Judge]:
    judge = Judge(RewardsConfig(sandbox=SandboxConfig(max_seconds=10), cache_size=2), VERIFIERS)
    yield judge
    judge.close()


@pytest.mark.parametrize(
    ("answer", "status", "score"),
    [
        ("7", Status.JUDGED, 1.0),
        ("8", Status.JUDGED, 0.0),
        ("hang", Status.TIMEOUT, None),
        ("exit", Status.CRASH, None),
        ("raise", Status.CRASH, None),
        ("memory", Status.CRASH, None),
        ("none", Status.CRASH, None),
        ("nan", Status.CRASH, None),
        ("above", Status.CRASH, None),
        ("true", Status.JUDGED, 1.0),
        ("number", Status.JUDGED, 1.0),
        ("huge", Status.CRASH, None),
    ],
)
async def test_a_foreign_verifier_that_fails_leaves_the_sample_unjudged(
    judge: Judge, answer: str, status: Status, score: float | None
) -> None:
    outcome, after = await judge.judge([sample(answer, verifier="act"), sample("7", verifier="act")])
    assert (outcome.status, outcome.score) == (status, score)
    assert outcome.reason or outcome.score is not None
    assert after.score == 1.0


async def test_a_reason_can_be_written_to_a_file_whatever_the_verifier_said(judge: Judge) -> None:
    (outcome,) = await judge.judge([sample("surrogate", verifier="act")])
    assert outcome.score == 1.0
    outcome.reason.encode()


async def test_a_sample_whose_worker_was_killed_is_tried_again(judge: Judge, tmp_path: object) -> None:
    (outcome,) = await judge.judge([sample("7", verifier="die_once", meta={"flag": f"{tmp_path}/flag"})])
    assert outcome.score == 1.0


async def test_what_was_not_generated_is_skipped_and_what_was_cut_is_judged(judge: Judge) -> None:
    skipped = [sample("", finish=finish) for finish in (Finish.ERROR, Finish.ABORTED, Finish.PROMPT_TOO_LONG)]
    outcomes = await judge.judge([*skipped, sample("", finish=Finish.LENGTH, closed=False)])
    assert [outcome.status for outcome in outcomes] == [Status.SKIPPED] * 3 + [Status.UNPARSEABLE_ANSWER]


async def test_an_answer_that_exhausts_the_math_verifier_is_wrong_not_unjudged(judge: Judge) -> None:
    """It slips past the screen, hangs twice, and the reference alone is fine: the answer is to blame."""
    bomb = r"\boxed{" + "(" * 20 + "x+y+z+1" + ")^{999}" * 20 + "}"
    outcome, after = await judge.judge([sample(bomb, r"\int_0^1 x dx", verifier="math"), sample("7", verifier="math")])
    assert (outcome.status, outcome.score) == (Status.UNPARSEABLE_ANSWER, 0.0)
    assert after.score == 1.0


async def test_an_unknown_verifier_is_unjudged_with_the_names_that_are_known(judge: Judge) -> None:
    (outcome,) = await judge.judge([sample("7", verifier="nobody")])
    assert outcome.status is Status.CRASH
    assert "'nobody'" in outcome.reason and "exact" in outcome.reason
    with pytest.raises(UnknownVerifierError, match="'nobody'"):
        Judge(RewardsConfig(components={"a": ComponentConfig(verifier="nobody")}), VERIFIERS)


async def test_equal_questions_are_asked_once_and_remembered_within_the_bound(fresh: Judge) -> None:
    def ask(answer: str) -> Sample:  # a reference that only the sandbox can read
        return sample(answer, r"\int_0^1 x dx", verifier="math")

    outcomes = await fresh.judge([ask(r"$\frac12$"), ask(r"so, \boxed{\frac12}"), ask(r"$\frac13$")])
    assert [outcome.score for outcome in outcomes] == [1.0, 1.0, 0.0]
    assert (fresh.stats()["sandboxed"], fresh.stats()["cached"]) == (2, 0)
    again = await fresh.judge([ask(r"$\frac13$")])
    assert again == [outcomes[2]]
    assert (fresh.stats()["sandboxed"], fresh.stats()["cached"]) == (2, 1)
    await fresh.judge([ask(r"$\frac15$")])  # evicts the one not used for longest
    await fresh.judge([ask(r"$\frac12$")])
    assert (fresh.stats()["sandboxed"], fresh.stats()["cache_missed"]) == (4, 5)
    # Foreign verifiers may read more than the answer: never remembered.
    await fresh.judge([sample("7", verifier="act")] * 2)
    assert fresh.stats()["sandboxed"] == 6


async def test_references_that_cannot_be_judged_against_are_named(judge: Judge) -> None:
    tasks = [
        task(answer="7"),
        task(answer=" "),
        task(answer=r"\frac{1}{", verifier="math"),
        task(answer="3/4", verifier="math"),
        task(answer="raise", verifier="act"),
    ]
    reasons = await judge.check_references([Sample.of_reference(item) for item in tasks])
    assert [reason is None for reason in reasons] == [True, False, False, True, False]
    assert "bad_reference" in str(reasons[2]) and "ZeroDivisionError" in str(reasons[4])


async def test_mistakes_in_the_set_up_are_raised_not_blamed_on_the_tasks(judge: Judge) -> None:
    with pytest.raises(SandboxLoadError, match="no_such_module"):
        await judge.check_references([Sample.of_reference(task(verifier="absent"))])
    with pytest.raises(UnknownVerifierError, match="'nobody'"):
        await judge.check_references([Sample.of_reference(task(verifier="nobody"))])


def test_the_quick_verdict_agrees_with_the_sandbox_or_abstains() -> None:
    components = {"answer": ComponentConfig(weight=3.0), "format": ComponentConfig(verifier="format", weight=1.0)}
    routing = Routing(RewardsConfig(components=components), VERIFIERS)
    right, wrong = routing.quick_verdict(sample("7")), routing.quick_verdict(sample("8", closed=False))
    assert right is not None and right.score == 1.0
    assert wrong is not None and wrong.score == 0.0
    assert routing.quick_verdict(sample("7", verifier="act")) is None
    assert routing.quick_verdict(sample("$x^2-1$", "(x-1)(x+1)", verifier="math")) is None


def test_a_sample_is_a_picklable_view_without_arrays() -> None:
    first, second = samples_of(group([("3+4", "7"), ("so", None)]))
    assert (first.thinking, first.answer, first.closed, first.reference) == ("3+4", "7", True, "7")
    assert (second.answer, second.closed, second.sibling) == ("", False, 1)
    assert pickle.loads(pickle.dumps(first)) == first
    assert replace(first, answer="7").with_reference_as_answer().answer == "7"


async def test_each_component_asks_its_verifier_with_its_own_settings() -> None:
    told = "tests.fakes.rewards:repeat_settings"
    config = RewardsConfig.model_validate(
        {
            "components": {
                "a": {"verifier": "told", "settings": {"n": 1}},
                "b": {"verifier": "told", "settings": {"n": 2}},
                "c": {},
            },
            "task_settings": {"told": {"n": 3}},
            "sandbox": SANDBOX,
        }
    )
    judge = Judge(config, {"told": told})
    try:
        (outcome,) = await judge.judge([sample("7", verifier="told")])
        assert outcome.reason == 'a: {"n": 1}; b: {"n": 2}; c: {"n": 3}'
    finally:
        judge.close()


async def test_a_verifier_may_be_given_more_time_than_the_sandbox_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    traits = Traits(max_seconds=lambda settings: settings["seconds"])
    monkeypatch.setattr(verifier, "TRAITS", {VERIFIERS["act"]: traits})
    settings = {"seconds": 0.2}
    config = RewardsConfig.model_validate({"components": {"a": {"verifier": "act", "settings": settings}}})
    judge = Judge(config, VERIFIERS)
    try:
        (outcome,) = await judge.judge([sample("hang")])
        assert outcome.reason == "a: the verifier took over 0.2 s"
    finally:
        judge.close()


def test_settings_that_a_verifier_does_not_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "TRAITS", {VERIFIERS["act"]: Traits(settings=SandboxConfig)})
    config = RewardsConfig.model_validate({"task_settings": {"act": {"num_worker": 2}}})
    with pytest.raises(VerifierSettingsError, match=r"task_settings.act .*num_worker: .*its settings are: num_workers"):
        Routing(config, VERIFIERS)


def test_other_weights_hold_here_and_travel_with_each_call() -> None:
    """Scores 1 and 0 under weights 1:1, 3:1, and 1:3 for one call: 0.5, 0.75, 0.25."""
    components = {"answer": ComponentConfig(verifier="task"), "style": ComponentConfig(verifier="task")}
    routing = Routing(RewardsConfig(components=components), VERIFIERS)
    outcomes = {
        "answer": Outcome(status=Status.JUDGED, score=1.0),
        "style": Outcome(status=Status.JUDGED, score=0.0),
    }
    assert routing.verdict(outcomes).score == 0.5
    routing.reweigh({"answer": 3.0, "style": 1.0})
    assert routing.verdict(outcomes).score == 0.75 and routing.weights == {"answer": 3.0, "style": 1.0}
    assert routing.verdict(outcomes, {"answer": 1.0, "style": 3.0}).score == 0.25
    with pytest.raises(ValueError, match="got weights of"):
        routing.reweigh({"answer": 1.0})


async def test_the_service_uses_the_weights_of_the_call(judge: Judge) -> None:
    """One component: whatever its weight, the verdict is its own; a name that is not there is no weight of it."""
    (alone,) = await judge.judge([sample(answer="7")], {"answer": 5.0})
    assert alone.score == 1.0
    with pytest.raises(KeyError):
        await judge.judge([sample(answer="7")], {"other": 1.0})
