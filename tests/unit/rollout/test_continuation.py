"""Responses written in pieces: steps end where they should, and the pieces are the whole."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.continuation import Continuation, Continued, continue_all
from rollout.render import Renderer
from rollout.schema import Finish, Trajectory
from tests.fakes.rollout import ScriptedEngine
from tests.unit.rollout.test_generate import make_job, run, saying

MakeRenderer = Callable[..., Renderer]


def write(engine: ScriptedEngine, renderer: Renderer, prefix: Trajectory | None = None, **changes: Any) -> Continued:
    job = changes.pop("job", None) or make_job(cap=20, answer=8)
    asked = Continuation(job=job, prefixes=(prefix,), seeds=(changes.pop("seed", 1),), **changes)
    return asyncio.run(continue_all(asked, engine, renderer))[0]


def test_a_step_ends_with_its_separator_and_the_answer_comes_whole(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    engine = ScriptedEngine(saying(renderer, "<think>1;2;3</think>4;5"), decode=lambda ids: renderer.text_of(ids)[0])
    first = write(engine, renderer, stop=";")
    assert (first.trajectory.text, first.ended, first.trajectory.finish) == ("<think>1;", False, Finish.LENGTH)
    second = write(engine, renderer, first.trajectory, stop=";")
    assert second.trajectory.text == "<think>1;2;" and second.num_new_tokens == 2
    last = write(engine, renderer, second.trajectory, stop=";")
    assert last.ended and last.trajectory.finish is Finish.STOP
    assert last.trajectory.answer_text == "4;5" and last.trajectory.thinking_text == "1;2;3"
    both = write(engine, renderer, stop=";", num_steps=2)
    assert both.trajectory.text == "<think>1;2;"
    assert write(engine, renderer, first.trajectory).trajectory.text == last.trajectory.text


def test_a_step_may_be_cut_by_its_own_limit(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(prefill_thinking=True)
    engine = ScriptedEngine(saying(renderer, "12345678;9</think>0"), decode=lambda ids: renderer.text_of(ids)[0])
    cut = write(engine, renderer, stop=";", max_step_tokens=5)
    assert cut.trajectory.text == "12345" and not cut.ended
    assert write(engine, renderer, cut.trajectory, stop=";", max_step_tokens=5).trajectory.text == "12345678;"


def test_seeds_follow_the_caller_and_the_place(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(prefill_thinking=True)
    engine = ScriptedEngine(saying(renderer, "1;2;3</think>4"), decode=lambda ids: renderer.text_of(ids)[0])
    first = write(engine, renderer, stop=";", seed=7)
    write(engine, renderer, first.trajectory, stop=";", seed=7)
    write(engine, renderer, first.trajectory, stop=";", seed=8)
    seeds = [request.seed for request in engine.requests]
    assert len(set(seeds)) == 3


def test_what_cannot_be_continued_is_refused(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    engine = ScriptedEngine(saying(renderer, "<think>1</think>2"), decode=lambda ids: renderer.text_of(ids)[0])
    other = run(make_job(cap=20, answer=8, prompt="2+2="), engine, renderer)[0]
    with pytest.raises(ValueError, match="only be continued after its own prompt"):
        write(engine, renderer, other)
    with pytest.raises(ValueError, match="a prefix and a seed for each of 2 siblings"):
        Continuation(job=make_job(cap=1, answer=1, siblings=2), prefixes=(None,), seeds=(1, 2))
    failing = ScriptedEngine(engine.policy, fails_on=lambda request: True)
    refused = write(failing, renderer)
    assert refused.ended and refused.trajectory.finish is Finish.ERROR and refused.num_new_tokens == 0


@settings(deadline=None, max_examples=120)
@given(
    prefill=st.booleans(),
    forced=st.sampled_from(["", "!!</think>"]),
    cap=st.integers(0, 9),
    limit=st.integers(1, 9),
    room=st.integers(1, 25),
    weights=st.tuples(*[st.integers(0, 6)] * 4),
    step=st.integers(1, 4) | st.none(),
    seed=st.integers(0, 10**6),
)
def test_the_pieces_are_the_whole(
    make_renderer: MakeRenderer, prefill: bool, forced: str, cap: int, limit: int, room: int,
    weights: tuple[int, ...], step: int | None, seed: int,
) -> None:  # fmt: skip
    """Written step by step: tokens, masks, spans and end of a response written at once."""
    renderer = make_renderer(prefill_thinking=prefill, forced_close=forced)
    alphabet = [ord("A"), ord(";"), renderer.opening.ids[0], renderer.closing.ids[0], renderer.eos_ids[0]]
    alphabet[:2] = [renderer._encode(c)[0] for c in "A;"]

    def policy(context: tuple[int, ...]) -> int:
        return random.Random(hash((seed, context))).choices(alphabet, weights=[4, *weights])[0]

    job = make_job(cap=cap, answer=limit)
    prompt_len = len(renderer.prompt_ids(job.task.prompt, ""))

    def fresh() -> ScriptedEngine:
        return ScriptedEngine(policy, decode=lambda ids: renderer.text_of(ids)[0], max_model_len=prompt_len + room)

    whole = run(job, fresh(), renderer)[0]
    piece = write(fresh(), renderer, job=job, stop=";", max_step_tokens=step)
    for _ in range(60):
        if piece.ended:
            break
        assert piece.num_new_tokens > 0
        piece = write(fresh(), renderer, piece.trajectory, job=job, stop=";", max_step_tokens=step)
    assert piece.ended
    for name in ("token_ids", "sampled", "char_ends"):
        np.testing.assert_array_equal(getattr(piece.trajectory, name), getattr(whole, name), err_msg=name)
    assert replace(piece.trajectory, sibling=0).finish is whole.finish
    assert (piece.trajectory.thinking, piece.trajectory.answer) == (whole.thinking, whole.answer)
