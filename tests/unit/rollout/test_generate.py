"""Jobs to trajectories on a scripted engine: the process that the thinking cap defines, masks, spans, failures."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout import generate
from rollout.engine import EngineDeadError
from rollout.generate import ThinkingCapError, generate_group
from rollout.render import Renderer
from rollout.schema import Finish, Job, Message, Purpose, Sampling, Task, TokenBudget, Trajectory
from tests.fakes.rollout import ScriptedEngine

MakeRenderer = Callable[..., Renderer]


def make_job(*, cap: int | None, answer: int, siblings: int = 1, prompt: str = "1+1=", **settings: Any) -> Job:
    task = Task(key="k", prompt=(Message(role="user", content=prompt),), answer="2", verifier="math", source="test")
    budget = TokenBudget(effort="high", max_prompt_tokens=50, max_thinking_tokens=cap, max_answer_tokens=answer)
    return Job(
        group_id="g",
        task=task,
        num_siblings=siblings,
        budget=budget,
        sampling=Sampling(**settings),
        purpose=Purpose.EVAL,
    )


def run(job: Job, engine: ScriptedEngine, renderer: Renderer) -> list[Trajectory]:
    return list(asyncio.run(generate_group(job, engine, renderer)).trajectories)


def saying(renderer: Renderer, text: str, *, prompt: str = "1+1=") -> Callable[[tuple[int, ...]], int]:
    """A policy that writes `text` and ends, token by token, going on with it after anything put in."""
    prompt_size = len(renderer.prompt_ids((Message(role="user", content=prompt),), ""))
    ids = [*renderer._encode(text), renderer.eos_ids[0]]
    return lambda context: ids[min(len(context) - prompt_size, len(ids) - 1)]


# ---------------------------------------------------------------------------------------- the process, token by token


def reference_process(job: Job, policy: Any, renderer: Renderer, *, room: int) -> tuple[list[int], list[bool], Finish]:
    """The process in the words of `rollout/generate.py`, one token a time, for marks of one token."""
    opening, closing = renderer.opening.token_id, renderer.closing.token_id
    cap, limit = job.budget.max_thinking_tokens, job.budget.max_answer_tokens
    prompt = renderer.prompt_ids(job.task.prompt, "")
    ids = [*renderer._encode(job.budget.prefix)]
    sampled = [False] * len(ids)
    state = "thinking" if renderer.is_prefilled else "before"
    if job.budget.opens_thinking and state == "before":
        ids, sampled, state = [*ids, opening], [*sampled, False], "thinking"
    ids, sampled = ids[:room], sampled[:room]
    num_thinking = num_outside = 0
    is_cut = False
    assert cap is not None
    while True:
        must_close = (state == "thinking" and num_thinking == cap) or (state == "before" and cap == 0)
        if must_close:
            close = renderer._encode(job.budget.forced_close) if job.budget.forced_close else renderer.close_ids
            forced = [*([opening] if state == "before" else []), *close]
            if len(ids) + len(forced) >= room:
                return ids, sampled, Finish.LENGTH
            ids, sampled, state, is_cut = [*ids, *forced], [*sampled, *([False] * len(forced))], "after", True
        if (state != "thinking" and num_outside == limit) or len(ids) == room:
            return ids, sampled, Finish.LENGTH
        token = policy((*prompt, *ids))
        ids, sampled = [*ids, token], [*sampled, True]
        if token in renderer.eos_ids:
            return ids, sampled, Finish.THINKING_CUT if is_cut else Finish.STOP
        if state == "before" and token == opening:
            state = "thinking"
        elif state == "thinking" and token == closing:
            state = "after"
        elif state == "thinking":
            num_thinking += 1
        else:
            num_outside += 1


@settings(deadline=None, max_examples=150)
@given(
    prefill=st.booleans(),
    forced=st.sampled_from(["", "!!</think>", "</think>\n"]),
    cap=st.integers(0, 9),
    limit=st.integers(1, 9),
    room=st.integers(1, 25),
    run_on=st.sampled_from([-100, 0, 256, None]),
    put_in=st.tuples(st.sampled_from(["", "A", "BAB"]), st.booleans(), st.sampled_from(["", "BA</think>"])),
    weights=st.tuples(*[st.integers(0, 6)] * 4),
    seed=st.integers(0, 10**6),
)
def test_requests_draw_from_the_defined_process(
    make_renderer: MakeRenderer, prefill: bool, forced: str, cap: int, limit: int, room: int, run_on: int | None,
    put_in: tuple[str, bool, str], weights: tuple[int, ...], seed: int,
) -> None:  # fmt: skip
    """Running on and dropping, stopping at the mark, or an engine that closes the thinking itself (run_on None): the
    same tokens, masks and ends as one token at a time."""
    renderer = make_renderer(prefill_thinking=prefill, forced_close=forced)
    alphabet = [65, 66, renderer.opening.ids[0], renderer.closing.ids[0], renderer.eos_ids[0]]

    def policy(context: tuple[int, ...]) -> int:
        return random.Random(hash((seed, context))).choices(alphabet, weights=[4, *weights])[0]

    job = make_job(cap=cap, answer=limit)
    prefix, opens, close = put_in
    job = replace(job, budget=replace(job.budget, prefix=prefix, opens_thinking=opens, forced_close=close))
    prompt_len = len(renderer.prompt_ids(job.task.prompt, ""))
    marks = (renderer.opening.ids[0], renderer.closing.ids[0]) if run_on is None else None
    engine = ScriptedEngine(policy, max_model_len=prompt_len + room, marks=marks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "RUN_ON_TOKENS", 256 if run_on is None else run_on)
        (got,) = run(job, engine, renderer)
    ids, sampled, finish = reference_process(job, policy, renderer, room=room)
    assert got.token_ids[prompt_len:].tolist() == ids
    assert got.sampled[prompt_len:].tolist() == sampled
    assert got.finish is finish
    assert got.num_thinking_tokens <= cap
    expected = -np.arange(len(got.token_ids), dtype=np.float32) * got.sampled
    assert np.array_equal(got.sampler_logprobs, expected)


# ---------------------------------------------------------------------------------------- cases by hand


def test_a_close_drawn_exactly_at_the_cap_is_forced_all_the_same(make_renderer: MakeRenderer) -> None:
    """The second request, for the answer's limit, runs past the cap; what it drew there must not count."""
    renderer = make_renderer()
    job = make_job(cap=1, answer=6)
    (got,) = run(job, ScriptedEngine(saying(renderer, "ab<think>c</think>d")), renderer)
    close = renderer.closing.ids[0]
    place = got.token_ids.tolist().index(close)
    assert not got.sampled[place] and got.finish is Finish.THINKING_CUT and got.thinking_text == "c"


def test_thinking_and_answer_are_found(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    (got,) = run(make_job(cap=20, answer=5), ScriptedEngine(saying(renderer, "<think>1+1</think>2")), renderer)
    assert (got.text, got.thinking_text, got.answer_text) == ("<think>1+1</think>2<eos>", "1+1", "2")
    assert (got.finish, got.num_thinking_tokens, got.prompt_len) == (Finish.STOP, 3, 4)
    assert got.char_ends.tolist() == [0] * 4 + [7, 8, 9, 10, 18, 19, 24]
    assert got.sampled.tolist() == [False] * 4 + [True] * 7


def test_one_request_is_enough_while_no_limit_is_met(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    engine = ScriptedEngine(saying(renderer, "<think>1+1</think>2"))
    run(make_job(cap=20, answer=5), engine, renderer)
    assert len(engine.requests) == 1


def test_the_cap_closes_the_thinking_with_unsampled_tokens(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(prefill_thinking=True, forced_close=" so</think>")
    policy = saying(renderer, "abcdefghijklmnop", prompt="1+1=<think>")
    engine = ScriptedEngine(policy, new_versions=(1,))
    (got,) = run(make_job(cap=3, answer=2), engine, renderer)
    assert got.text == "abc so</think>gh"  # the policy counts the three tokens put in as its own
    assert (got.thinking_text, got.answer_text, got.num_thinking_tokens) == ("abc so", "gh", 3)
    assert got.sampled[got.prompt_len :].tolist() == [True] * 3 + [False] * 3 + [True] * 2
    assert got.finish is Finish.LENGTH
    assert (got.policy.start, got.policy.end) == (0, 1)


def test_a_cap_of_zero_forces_an_empty_thinking(make_renderer: MakeRenderer) -> None:
    for prefill in (False, True):
        renderer = make_renderer(prefill_thinking=prefill)
        policy = saying(
            renderer, "<think></think>42" if not prefill else "</think>42", prompt="1+1=" + "<think>" * prefill
        )
        (got,) = run(make_job(cap=0, answer=5), ScriptedEngine(policy), renderer)
        assert (got.thinking_text, got.answer_text, got.num_thinking_tokens) == ("", "42", 0)
        assert got.finish is Finish.THINKING_CUT


@pytest.mark.parametrize("run_on", [-100, 256])
def test_marks_of_several_tokens_are_found_by_their_text(
    make_renderer: MakeRenderer, monkeypatch: pytest.MonkeyPatch, run_on: int
) -> None:
    monkeypatch.setattr(generate, "RUN_ON_TOKENS", run_on)
    renderer = make_renderer("bare")
    decode = renderer.text_of
    engine = ScriptedEngine(saying(renderer, "<think>1+1</think>2"), decode=lambda ids: decode(ids)[0])
    (got,) = run(make_job(cap=20, answer=5), engine, renderer)
    assert (got.thinking_text, got.answer_text, got.num_thinking_tokens) == ("1+1", "2", 3)
    assert (got.finish, len(engine.requests)) == (Finish.STOP, 1 if run_on > 0 else 2)
    (cut,) = run(make_job(cap=2, answer=5), engine, renderer)
    assert (cut.thinking_text, cut.num_thinking_tokens) == ("1+", 2)
    assert cut.text.startswith("<think>1+</think>")


def test_a_response_without_thinking_is_all_answer(make_renderer: MakeRenderer) -> None:
    for renderer in (make_renderer(), make_renderer(has_thinking=False)):
        (got,) = run(make_job(cap=4, answer=9), ScriptedEngine(saying(renderer, "just 2")), renderer)
        assert (got.thinking, got.answer_text, got.finish) == (None, "just 2", Finish.STOP)


def test_thinking_that_is_never_closed_has_no_answer(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    (got,) = run(make_job(cap=20, answer=9), ScriptedEngine(saying(renderer, "<think>hm")), renderer)
    assert (got.thinking_text, got.answer, got.finish) == ("hm", None, Finish.STOP)


def test_without_a_cap_the_answer_limit_covers_everything(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    engine = ScriptedEngine(saying(renderer, "<think>1+1</think>2"))
    (got,) = run(make_job(cap=None, answer=6), engine, renderer)
    assert (got.num_response_tokens, got.finish, got.answer_text) == (6, Finish.LENGTH, "2")
    assert len(engine.requests) == 1


def test_long_prompts_are_not_run(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    for engine, prompt in (
        (ScriptedEngine(lambda _: 65), "1" * 51),
        (ScriptedEngine(lambda _: 65, max_model_len=20), "1" * 20),
    ):
        (got,) = run(make_job(cap=3, answer=3, prompt=prompt), engine, renderer)
        assert (got.finish, got.num_response_tokens, engine.requests) == (Finish.PROMPT_TOO_LONG, 0, [])
        assert "the limit is" in str(got.error)


def test_a_failed_request_does_not_touch_its_siblings(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    failing: list[Any] = []

    def fails_on(request: Any) -> bool:
        failing.append(request)
        return len(failing) == 2

    engine = ScriptedEngine(saying(renderer, "<think>a</think>b"), fails_on=fails_on)
    got = run(make_job(cap=5, answer=5, siblings=3), engine, renderer)
    assert [t.finish for t in got] == [Finish.STOP, Finish.ERROR, Finish.STOP]
    assert got[1].error == "refused on purpose"
    assert got[1].num_response_tokens == 0


def test_a_prompt_that_cannot_be_rendered_is_an_error_of_the_group(
    make_renderer: MakeRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = make_renderer()

    def refuse(*_: Any) -> list[int]:
        raise ValueError("no such character")

    monkeypatch.setattr(Renderer, "prompt_ids", refuse)
    got = run(make_job(cap=5, answer=5, siblings=2), ScriptedEngine(lambda _: 65), renderer)
    assert [(t.finish, t.error) for t in got] == [(Finish.ERROR, "no such character")] * 2


def test_a_dead_engine_is_not_data(make_renderer: MakeRenderer) -> None:
    def die(_: Any) -> bool:
        raise EngineDeadError("gone")

    with pytest.raises(EngineDeadError):
        run(make_job(cap=5, answer=5), ScriptedEngine(lambda _: 65, fails_on=die), make_renderer())


def test_seeds_differ_between_siblings_and_repeat_between_runs(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    engine = ScriptedEngine(saying(renderer, "<think>a</think>b"))
    for _ in range(2):
        run(make_job(cap=5, answer=5, siblings=3, seed=11), engine, renderer)
    seeds = [request.seed for request in engine.requests]
    assert len(set(seeds[:3])) == 3
    assert sorted(map(str, seeds[:3])) == sorted(map(str, seeds[3:]))
    run(make_job(cap=5, answer=5), engine, renderer)
    assert engine.requests[-1].seed is None


def test_thinking_beyond_the_cap_is_our_bug(make_renderer: MakeRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = make_renderer(prefill_thinking=True)
    monkeypatch.setattr(generate.Attempt, "_enforce_cap", lambda self: True)
    monkeypatch.setattr(generate.Attempt, "_request", lambda self: _long_request(self, renderer))
    engine = ScriptedEngine(saying(renderer, "abcdefg</think>h", prompt="1+1=<think>"))
    with pytest.raises(ThinkingCapError, match="has 7 thinking tokens, effort 'high' allows 2"):
        run(make_job(cap=2, answer=3), engine, renderer)


def _long_request(attempt: Any, renderer: Renderer) -> Any:
    from rollout.engine import Request

    return Request(prompt_ids=[*attempt._prompt, *attempt._ids], max_tokens=50, stop_ids=renderer.eos_ids)


# ---------------------------------------------------------------------------------------- thinking opened for the model


@pytest.mark.parametrize("kind", ["marks", "bare"])
@pytest.mark.parametrize("cap", [None, 40])
def test_the_thinking_is_opened_for_the_model(make_renderer: MakeRenderer, kind: str, cap: int | None) -> None:
    renderer = make_renderer(kind)
    text = "<think>hm</think>7"
    job = make_job(cap=cap, answer=30)
    job = replace(job, budget=replace(job.budget, opens_thinking=True))
    engine = ScriptedEngine(saying(renderer, text))
    (trajectory,) = run(job, engine, renderer)
    opened = len(renderer.opening.ids)
    response = trajectory.sampled[trajectory.prompt_len :]
    assert not response[:opened].any() and response[opened:].all()
    assert (trajectory.text.removesuffix("<eos>"), trajectory.thinking_text, trajectory.answer_text) == (
        text,
        "hm",
        "7",
    )
    assert list(engine.requests[0].prompt_ids[-opened:]) == list(renderer.opening.ids)
    assert trajectory.finish is Finish.STOP


def test_a_prefilled_mark_is_not_put_in_twice(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(prefill_thinking=True)
    job = make_job(cap=None, answer=30)
    opened = replace(job, budget=replace(job.budget, opens_thinking=True))
    policy = saying(renderer, "hm</think>7")
    runs = [run(each, ScriptedEngine(policy), renderer)[0].token_ids.tolist() for each in (job, opened)]
    assert runs[0] == runs[1]
