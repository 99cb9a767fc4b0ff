"""What is put into a response and what ends it: beginnings, an engine that closes the thinking, an answer's mark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rollout.engine import EngineError
from rollout.render import Renderer
from rollout.schema import Finish
from tests.fakes.rollout import ScriptedEngine
from tests.unit.rollout.test_generate import MakeRenderer, make_job, run, saying

# ---------------------------------------------------------------------------------------- a beginning that is put in


@pytest.mark.parametrize("prefill", [False, True])
def test_a_tag_put_in_is_unsampled_and_counts_towards_no_limit(make_renderer: MakeRenderer, prefill: bool) -> None:
    renderer = make_renderer(prefill_thinking=prefill)
    text = "!!" + "<think>" * (not prefill) + "hmm</think>7"
    job = make_job(cap=4, answer=1)
    job = replace(job, budget=replace(job.budget, prefix="!!"))
    engine = ScriptedEngine(saying(renderer, text, prompt="1+1=" + "<think>" * prefill))
    (trajectory,) = run(job, engine, renderer)
    response = trajectory.sampled[trajectory.prompt_len :]
    assert response.tolist() == [False] * 2 + [True] * (len(response) - 2)
    assert trajectory.text == text and trajectory.answer_text == "7"
    assert trajectory.num_thinking_tokens == 3
    assert trajectory.finish is Finish.LENGTH  # one answer token, all of it used


def test_an_answer_is_written_to_a_thinking_put_in(make_renderer: MakeRenderer) -> None:
    """How cold-start data gets the answer to a thinking that was cut: the thinking is the beginning."""
    renderer = make_renderer()
    begun = "<think>1+1</think>"
    job = make_job(cap=None, answer=4)
    job = replace(job, budget=replace(job.budget, prefix=begun))
    (trajectory,) = run(job, ScriptedEngine(saying(renderer, begun + "2")), renderer)
    assert (trajectory.thinking_text, trajectory.answer_text, trajectory.finish) == ("1+1", "2", Finish.STOP)
    assert trajectory.num_thinking_tokens == 0 and trajectory.sampled.sum() == 2


def test_a_text_that_the_tokenizer_changes_is_not_put_in(
    make_renderer: MakeRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = make_renderer()
    monkeypatch.setattr(Renderer, "text_of", lambda self, ids: ("changed", np.zeros(len(ids), dtype=np.int32)))
    with pytest.raises(ValueError, match="must survive the tokenizer"):
        renderer.forced_ids("[Easy]")


# ---------------------------------------------------------------------------------------- an engine that closes itself


def marks_of(renderer: Renderer) -> tuple[int, int]:
    return renderer.opening.ids[0], renderer.closing.ids[0]


def test_an_engine_that_closes_the_thinking_gets_one_request(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(prefill_thinking=True)
    engine = ScriptedEngine(saying(renderer, "abcdefgh", prompt="1+1=<think>"), marks=marks_of(renderer))
    (got,) = run(make_job(cap=3, answer=2), engine, renderer)
    assert [request.thinking_budget for request in engine.requests] == [3]
    assert (got.thinking_text, got.answer_text, got.finish) == ("abc", "ef", Finish.LENGTH)
    assert got.sampled[got.prompt_len :].tolist() == [True] * 3 + [False] + [True] * 2
    assert got.sampler_logprobs[got.prompt_len + 3] == 0.0


def test_what_it_closes_a_second_time_is_not_taken(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(prefill_thinking=True)
    text = "a</think>b<think>cdefgh"
    job = make_job(cap=2, answer=6)
    runs = [
        run(job, ScriptedEngine(saying(renderer, text, prompt="1+1=<think>"), marks=marks), renderer)[0]
        for marks in (None, marks_of(renderer))
    ]
    assert runs[0].token_ids.tolist() == runs[1].token_ids.tolist() and runs[1].sampled[runs[1].prompt_len :].all()


def test_an_engine_that_does_not_keep_its_promise_stops_the_run(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(prefill_thinking=True)
    engine = ScriptedEngine(saying(renderer, "abcdefgh", prompt="1+1=<think>"), marks=(-1, -2))
    with pytest.raises(EngineError, match="to close the thinking after 3 tokens, and wrote on"):
        run(make_job(cap=3, answer=2), engine, renderer)


# ---------------------------------------------------------------------------------------- an answer that ends early


@pytest.mark.parametrize("closes", [False, True])
def test_an_answer_ends_with_its_own_mark(make_renderer: MakeRenderer, closes: bool) -> None:
    renderer = make_renderer(answer_close="!!")
    decode = renderer.text_of
    marks = marks_of(renderer) if closes else None
    policy = saying(renderer, "<think>a!!b</think>42!! and more")
    (got,) = run(
        make_job(cap=9, answer=30), ScriptedEngine(policy, decode=lambda i: decode(i)[0], marks=marks), renderer
    )
    assert (got.thinking_text, got.answer_text, got.finish) == ("a!!b", "42!!", Finish.STOP)
    (cut,) = run(
        make_job(cap=2, answer=30), ScriptedEngine(policy, decode=lambda i: decode(i)[0], marks=marks), renderer
    )
    assert cut.finish is Finish.THINKING_CUT and cut.answer_text.endswith("!!")
    (late,) = run(
        make_job(cap=9, answer=3), ScriptedEngine(policy, decode=lambda i: decode(i)[0], marks=marks), renderer
    )
    assert late.finish is Finish.LENGTH


def test_without_thinking_the_mark_ends_it_all(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer(has_thinking=False, answer_close="!!")
    engine = ScriptedEngine(saying(renderer, "42!! and more"), decode=lambda ids: renderer.text_of(ids)[0])
    (got,) = run(make_job(cap=None, answer=30), engine, renderer)
    assert (got.answer_text, got.finish, len(engine.requests)) == ("42!!", Finish.STOP, 1)
