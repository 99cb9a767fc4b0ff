"""A policy behind a server: what it is asked, how its replies are read, what its failures become."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.config import FormatConfig
from rollout.endpoint import Endpoint, EndpointError, EndpointPolicy, read_reply, split_tokens
from rollout.schema import Finish, Group, Job, Message, Sampling, Task, TokenBudget
from rollout.token_counts import TokenCounts
from tests.fakes.policy_server import ChatServer, chat_server, completion

FORMAT = FormatConfig()


def job(siblings: int = 1, **budget: Any) -> Job:
    limits: dict[str, Any] = {"max_prompt_tokens": 9, "max_thinking_tokens": 20, "max_answer_tokens": 8}
    return Job(
        group_id="g",
        task=Task(key="k", prompt=(Message(role="user", content="1+1="),), answer="2", verifier="exact", source="s"),
        num_siblings=siblings,
        budget=TokenBudget(**({"effort": "high"} | limits | budget)),
        sampling=Sampling(temperature=0.5, seed=3),
    )


def ask(
    reply: Callable[[dict[str, Any], int], tuple[int, Any]], asked: Job | None = None, **endpoint: Any
) -> tuple[Group, tuple[TokenCounts, ...], ChatServer]:
    async def work(server: ChatServer) -> tuple[Group, tuple[TokenCounts, ...]]:
        policy = EndpointPolicy(Endpoint(url=server.url, first_pause_s=0.001, **endpoint), FORMAT)
        try:
            await policy.start()
            return await policy.sample(asked or job())
        finally:
            await policy.close()

    with chat_server(reply) as server:
        return (*asyncio.run(work(server)), server)


def test_the_request_says_the_mode() -> None:
    _, _, server = ask(lambda body, n: (200, completion("2")), job(instruction="Be quick."))
    (body,) = server.requests
    seed = body.pop("seed")
    assert 0 <= seed < 2**31
    assert body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be quick."}, {"role": "user", "content": "1+1="}],
        "max_tokens": 28,
        "temperature": 0.5,
        "top_p": 1.0,
    }


@pytest.mark.parametrize(
    ("budget", "told"),
    [({"max_thinking_tokens": 0}, False), ({"max_thinking_tokens": None, "opens_thinking": True}, True)],
)
def test_thinking_is_switched_by_the_template(budget: dict[str, Any], told: bool) -> None:
    _, _, server = ask(lambda body, n: (200, completion("2")), job(**budget))
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": told}


def test_fields_of_a_mode_are_added_and_taken_away() -> None:
    fields = {"high": {"reasoning_effort": "high", "top_p": None}}
    _, _, server = ask(lambda body, n: (200, completion("2")), fields=fields)
    assert server.requests[0]["reasoning_effort"] == "high" and "top_p" not in server.requests[0]


def test_the_key_is_sent_and_never_shown() -> None:
    _, _, server = ask(lambda body, n: (200, completion("2")), api_key="secret")
    assert server.keys == ["Bearer secret"]
    assert "secret" not in repr(Endpoint(url="u", api_key="secret"))


def test_siblings_have_seeds_of_their_own() -> None:
    group, counts, server = ask(lambda body, n: (200, completion("2")), job(5))
    assert len({body["seed"] for body in server.requests}) == 5
    assert [t.sibling for t in group.trajectories] == list(range(5)) and len(counts) == 5


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_in_a_field_of_its_own(name: str) -> None:
    reply = completion("2", tokens=9, reasoning_tokens=7, **{name: "one and one"})
    group, (counts,), _ = ask(lambda body, n: (200, reply))
    (trajectory,) = group.trajectories
    assert (trajectory.thinking_text, trajectory.answer_text) == ("one and one", "2")
    assert counts == TokenCounts(thinking=7, answer=2, response=9)
    assert trajectory.num_response_tokens == 9 and set(trajectory.token_ids.tolist()) == {-1}


@pytest.mark.parametrize(
    ("content", "thinking", "answer"),
    [
        ("<think>hm</think>2", "hm", "2"),
        ("hm</think>2", "hm", "2"),  # the server's template has opened the thinking
        ("<think>hm", "hm", None),
        ("2", None, "2"),
        ("a</think>b<think>c", "a", "b<think>c"),
        ("", None, ""),
    ],
)
def test_reasoning_inside_marks(content: str, thinking: str | None, answer: str | None) -> None:
    text, thought, answered = read_reply("", content, FORMAT)
    assert text == content
    assert (None if thought is None else text[slice(*thought)]) == thinking
    assert (None if answered is None else text[slice(*answered)]) == answer
    plain = read_reply("", content, FormatConfig(has_thinking=False))
    assert plain == (content, None, (0, len(content)))


def test_a_reply_cut_inside_its_reasoning_has_no_answer() -> None:
    group, _, _ = ask(lambda body, n: (200, completion("", finish="length", reasoning_content="on and on")))
    assert group.trajectories[0].answer is None and group.trajectories[0].finish is Finish.LENGTH


@given(st.integers(0, 300), st.text(max_size=40), st.text(max_size=40))
def test_estimated_counts_stay_inside_the_total(total: int, thought: str, answer: str) -> None:
    text, thinking, answered = read_reply(thought, answer, FORMAT)
    counts = split_tokens(total, None, len(text), thinking, answered)
    assert counts.thinking >= 0 and counts.answer >= 0
    assert counts.thinking + counts.answer <= total + 1  # each is rounded
    assert counts.is_estimated == (thinking is not None)


def test_a_server_that_stumbles_is_asked_again() -> None:
    replies = [(503, {"error": "busy"}), (429, {"error": "slow down"}), (200, completion("2"))]
    group, _, server = ask(lambda body, n: replies[n])
    assert group.trajectories[0].answer_text == "2" and len(server.requests) == 3
    assert server.requests[0] == server.requests[2]


@pytest.mark.parametrize(
    ("reply", "reason", "tries"),
    [
        ((500, {"error": "down"}), "no reply in 3 tries, the last: status 500", 3),
        ((400, {"error": "context length"}), "status 400", 1),
        ((200, b"<html>"), "the reply is no JSON", 1),
        ((200, {"choices": []}), "no chat completion with usage", 1),
        ((200, {"choices": [{"message": {"content": "2"}}]}), "no chat completion with usage", 1),
    ],
)
def test_a_failure_is_an_attempt_without_a_response(reply: tuple[int, Any], reason: str, tries: int) -> None:
    group, counts, server = ask(lambda body, n: reply, max_tries=3)
    (trajectory,) = group.trajectories
    assert trajectory.finish is Finish.ERROR and reason in str(trajectory.error)
    assert len(server.requests) == tries and counts[0].response == 0


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_the_users_to_mend(status: int) -> None:
    with pytest.raises(EndpointError, match=f"refuses with status {status}.*check the"):
        ask(lambda body, n: (status, {"error": "no"}))


def test_no_server_is_the_users_to_mend() -> None:
    async def work() -> None:
        policy = EndpointPolicy(Endpoint(url="http://127.0.0.1:9/v1"), FORMAT)
        try:
            await policy.start()
        finally:
            await policy.close()

    with pytest.raises(EndpointError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        asyncio.run(work())
