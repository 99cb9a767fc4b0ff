"""Completions for labels share what they have in common: a real engine computes a prefix once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import ray

from launch.prm_ports import PoolLabeller
from prm.config import SeparatorSplitter
from prm.label.completion import Completer, label_by_completion
from prm.steps import cut_steps
from rollout.actor import start_engines
from rollout.config import FormatConfig, RolloutConfig
from rollout.pool import EnginePool
from rollout.render import Renderer
from rollout.schema import Finish, Message, PolicySpan, Sampling, Task, TokenBudget, Trajectory
from tests.tiny_model import build_tiny_model

pytestmark = pytest.mark.stack
FORMAT = FormatConfig(prefill_thinking=True)
BUDGET = TokenBudget(effort="high", max_prompt_tokens=64, max_thinking_tokens=150, max_answer_tokens=8)
TASK = Task(
    key="k", prompt=(Message(role="user", content="one and two and three"),), answer="6", verifier="exact", source="s"
)
COMPLETIONS = 6


class HalfRight:
    """Every second answer is right, so no step ends the labels."""

    async def judge(self, task: Task, responses: Sequence[Trajectory]) -> list[float | None]:
        return [float(i % 2) for i in range(len(responses))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tiny_model(tmp_path_factory.mktemp("model") / "m", tied=True))


@pytest.fixture
def pool(model: str, tmp_path: Path) -> Iterator[EnginePool]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    config = RolloutConfig(kv_cache_gib=0.05, max_num_seqs=16, max_num_batched_tokens=256, block_size=32)
    pool = start_engines(config, FORMAT, model, log_dir=str(tmp_path))
    yield pool
    pool.close()
    ray.shutdown()


def solution(model: str) -> Trajectory:
    """Five steps of about twenty tokens."""
    renderer = Renderer.load(model, FORMAT)
    thinking = ";".join(f"then {number} and {number} more" for number in range(1, 6))
    prompt = renderer.prompt_ids(TASK.prompt, BUDGET.instruction)
    response = renderer.response_ids(thinking, "6")
    text, ends = renderer.text_of(response)
    ids = np.asarray([*prompt, *response], np.int32)
    start = text.index(thinking)
    return Trajectory(
        group_id="k",
        sibling=0,
        token_ids=ids,
        sampled=np.arange(len(ids)) >= len(prompt),
        sampler_logprobs=np.zeros(len(ids), np.float32),
        char_ends=np.concatenate([np.zeros(len(prompt)), ends]).astype(np.int32),
        prompt_len=len(prompt),
        text=text,
        thinking=(start, start + len(thinking)),
        answer=(text.rindex("6"), text.rindex("6") + 1),
        finish=Finish.STOP,
        policy=PolicySpan(start=0, end=0),
    )


async def test_completions_share_their_prefix(pool: EnginePool, model: str) -> None:
    completer = Completer(PoolLabeller(pool, BUDGET, Sampling()), HalfRight(), num=COMPLETIONS)
    given = solution(model)
    row = await label_by_completion(TASK, given, cut_steps(given, SeparatorSplitter()), 1.0, completer)
    assert row.labels[:4] == (0.5,) * 4 and len(row.labels) == 5
    (stats,) = await pool.stats()
    assert completer.spent.completions >= 4 * COMPLETIONS
    # Of the prompts that grow step by step, all whole blocks of 32 but those that are new are found again.
    assert stats.num_cached_tokens > 0.5 * stats.num_prompt_tokens, stats
