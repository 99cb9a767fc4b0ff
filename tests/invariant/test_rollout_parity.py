"""The engine says what the model says: log-probabilities against a float32 forward pass, before and after updates.

One engine with tied and one with untied embeddings, as Ray actors, shared by all tests of this file.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollout.actor import start_engines
from rollout.config import FormatConfig, RolloutConfig
from rollout.engine import EngineDeadError
from rollout.pool import EnginePool
from rollout.schema import Finish, Float32Array, Group, Job, Message, Purpose, Sampling, Task, TokenBudget, Trajectory
from tests.tiny_model import build_tiny_model

pytestmark = pytest.mark.stack

CONFIG = RolloutConfig(kv_cache_gib=0.1, max_num_seqs=16, max_num_batched_tokens=256)
TOLERANCE = 1e-4
LONG_PROMPT = "twelve and " * 13  # longer than a block of the prefix cache, 128 tokens


@dataclass
class Served:
    """An engine, and the model it should be serving."""

    pool: EnginePool
    model: Any
    version: int = 0

    def logprobs(self, ids: np.ndarray) -> Float32Array:
        """[L] log-probability of each token given its prefix under the model as it is now; 0 for the first."""
        import torch

        with torch.no_grad():
            table = self.model(torch.tensor([ids.tolist()])).logits[0].float().log_softmax(-1)
        rows = np.arange(len(ids) - 1)
        return np.concatenate([[0.0], table.numpy()[rows, ids[1:]]]).astype(np.float32)

    def distribution(self, ids: np.ndarray) -> Float32Array:
        """[V] probability of every token after `ids`."""
        import torch

        with torch.no_grad():
            return self.model(torch.tensor([ids.tolist()])).logits[0, -1].float().softmax(-1).numpy()

    def move(self, scale: float) -> None:
        """Change every weight, the learner's step."""
        import torch

        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=scale)

    async def publish(self) -> None:
        """Send the model in two chunks that cut a layer in half.

        Checkpoints name a tied output head or leave it out; both must do, so they take turns.
        """
        import ray

        self.version += 1
        named = self.model.state_dict().items() if self.version % 2 else self.model.named_parameters()
        tensors = [(name, tensor.detach().clone()) for name, tensor in named]
        await self.pool.begin_update(self.version)
        for chunk in (tensors[:6], tensors[6:]):
            await self.pool.receive(ray.put(chunk))
        await self.pool.finish_update(self.version)

    def worst(self, trajectory: Trajectory) -> float:
        """Largest difference to the model over the sampled tokens."""
        difference = np.abs(self.logprobs(trajectory.token_ids) - trajectory.sampler_logprobs)
        return float(difference[trajectory.sampled].max())


def job(prompt: str, *, cap: int | None = None, answer: int = 24, siblings: int = 4, **sampling: Any) -> Job:
    message = Message(role="user", content=prompt)
    task = Task(key=prompt, prompt=(message,), answer="", verifier="math", source="test")
    budget = TokenBudget(effort="high", max_prompt_tokens=200, max_thinking_tokens=cap, max_answer_tokens=answer)
    return Job(
        group_id=prompt,
        task=task,
        num_siblings=siblings,
        budget=budget,
        sampling=Sampling(**sampling),
        purpose=Purpose.EVAL,
    )


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def engines(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("parity")
    format = FormatConfig(prefill_thinking=True)

    # One after another: `from_pretrained` patches classes while it loads; two threads of it can leave weights untied.
    names = ("tied", "untied")
    paths = [build_tiny_model(root / name, tied=name == "tied") for name in names]
    models = [AutoModelForCausalLM.from_pretrained(path) for path in paths]

    def start(path: Path) -> EnginePool:
        return start_engines(CONFIG, format, str(path), log_dir=str(root / "logs" / path.name))

    with ThreadPoolExecutor() as threads:
        pools = list(threads.map(start, paths))
    served = {n: Served(pool=p, model=m) for n, p, m in zip(names, pools, models, strict=True)}
    yield served
    for engine in served.values():
        engine.pool.close()


@pytest.fixture(params=["tied", "untied"])
def served(request: pytest.FixtureRequest, engines: dict[str, Served]) -> Served:
    return engines[request.param]


async def test_parity_before_and_after_every_publish(served: Served) -> None:
    for _ in range(3):
        groups = await asyncio.gather(*(served.pool.generate(job(p)) for p in ("1+1=", LONG_PROMPT)))
        trajectories = [t for group in groups for t in group.trajectories]
        assert {(t.policy.start, t.policy.end) for t in trajectories} == {(served.version, served.version)}
        assert max(served.worst(t) for t in trajectories) < TOLERANCE
        ids = trajectories[-1].token_ids
        (probed,) = await served.pool.probe([ids, ids[:5]])
        assert np.abs(probed[0] - served.logprobs(ids)).max() < TOLERANCE
        assert np.abs(probed[1] - served.logprobs(ids[:5])).max() < TOLERANCE
        before = probed[0]
        served.move(0.05)
        await served.publish()
        assert await served.pool.versions() == [served.version]
        ((after, *_),) = await served.pool.probe([ids])
        assert np.abs(after - before).max() > 100 * TOLERANCE  # the update is large enough to be seen


@pytest.fixture
def pair(ray_session: None, tmp_path: Path) -> Iterator[Served]:
    """Two engines of one model in one pool."""
    from transformers import AutoModelForCausalLM

    path = build_tiny_model(tmp_path / "model", tied=False, seed=3)
    model = AutoModelForCausalLM.from_pretrained(path)
    config = CONFIG.model_copy(update={"num_engines": 2})
    pool = start_engines(config, FormatConfig(prefill_thinking=True), str(path), log_dir=str(tmp_path / "logs"), seed=5)
    yield Served(pool=pool, model=model)
    pool.close()


async def test_two_engines_are_one_sampler(pair: Served) -> None:
    """Both get work and both take every publish; a seed gives the same answer on either, and without one each draws
    from the model's own distribution, not from the other's numbers."""
    jobs = [job(f"{n}+1=", answer=6, siblings=2, seed=n) for n in range(6) for _ in range(2)]
    for _ in range(2):
        groups = await asyncio.gather(*map(pair.pool.generate, jobs))
        for one, other in zip(groups[::2], groups[1::2], strict=True):  # neighbors go to different engines
            for a, b in zip(one.trajectories, other.trajectories, strict=True):
                assert a.token_ids.tolist() == b.token_ids.tolist()
                assert max(pair.worst(a), pair.worst(b)) < TOLERANCE
                assert {a.policy.start, a.policy.end, b.policy.start, b.policy.end} == {pair.version}
        pair.move(0.05)
        await pair.publish()
        assert await pair.pool.versions() == [pair.version] * 2
        probes = await pair.pool.probe([groups[0].trajectories[0].token_ids])
        expected = pair.logprobs(groups[0].trajectories[0].token_ids)
        assert max(float(np.abs(probe - expected).max()) for (probe,) in probes) < TOLERANCE
    assert [stats.num_groups for stats in await pair.pool.stats()] == [12, 12]

    unseeded = [job("7+1=", answer=1, siblings=400) for _ in range(2)]
    drawn = []
    for group in await asyncio.gather(*map(pair.pool.generate, unseeded)):
        first = group.trajectories[0]
        drawn.append(np.array([t.token_ids[t.prompt_len] for t in group.trajectories]))
        assert chi_square_excess(drawn[-1], pair.distribution(first.token_ids[: first.prompt_len])) < 5
    assert (drawn[0] == drawn[1]).mean() < 0.9


def chi_square_excess(tokens: np.ndarray, probabilities: np.ndarray) -> float:
    """Standard deviations by which the chi-square statistic of the tokens exceeds its mean; rare tokens are pooled."""
    counts, expected = np.bincount(tokens, minlength=probabilities.size), probabilities * tokens.size
    is_common = expected >= 5
    counts = np.append(counts[is_common], counts[~is_common].sum())
    expected = np.append(expected[is_common], expected[~is_common].sum())
    freedom = counts.size - 1
    assert freedom >= 5, "the test needs a distribution with several likely tokens"
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


async def test_an_update_in_flight_splits_a_trajectory_at_one_token(served: Served) -> None:
    jobs = [job(f"{n}+1=", answer=180, siblings=8) for n in range(4)]
    running = asyncio.gather(*(served.pool.generate(j) for j in jobs))
    await asyncio.sleep(0.05)
    old_version = served.version
    old_weights = {name: tensor.clone() for name, tensor in served.model.state_dict().items()}
    served.move(0.05)
    await served.publish()
    trajectories = [t for group in await running for t in group.trajectories]
    straddling = [t for t in trajectories if t.policy.start < t.policy.end]
    assert straddling, "no trajectory was in flight during the update"
    new_logprobs = [served.logprobs(t.token_ids) for t in straddling]
    new_weights = {name: tensor.clone() for name, tensor in served.model.state_dict().items()}
    served.model.load_state_dict(old_weights)
    old_logprobs = [served.logprobs(t.token_ids) for t in straddling]
    served.model.load_state_dict(new_weights)
    for trajectory, new, previous in zip(straddling, new_logprobs, old_logprobs, strict=True):
        assert (trajectory.policy.start, trajectory.policy.end) == (old_version, served.version)
        got = trajectory.sampler_logprobs[trajectory.sampled]
        is_old = np.abs(previous[trajectory.sampled] - got) < TOLERANCE
        is_new = np.abs(new[trajectory.sampled] - got) < TOLERANCE
        ((switch, version),) = trajectory.policy.switches
        first = int(np.searchsorted(np.flatnonzero(trajectory.sampled), switch))
        assert version == served.version and 0 < first < len(got)
        assert is_old[:first].all() and is_new[first:].all(), "the new weights answer from the recorded token on"


@pytest.fixture
def keeping(ray_session: None, tmp_path: Path) -> Iterator[Served]:
    """An engine whose responses in flight go on from the keys and values of the old weights."""
    from transformers import AutoModelForCausalLM

    path = build_tiny_model(tmp_path / "model", tied=False, seed=6)
    config = CONFIG.model_copy(update={"in_flight": "keep"})
    pool = start_engines(config, FormatConfig(prefill_thinking=True), str(path), log_dir=str(tmp_path / "logs"))
    yield Served(pool=pool, model=AutoModelForCausalLM.from_pretrained(path))
    pool.close()


async def test_a_kept_cache_serves_the_response_in_flight_and_no_other(keeping: Served) -> None:
    prompt = LONG_PROMPT  # its first block is cached by the request in flight
    running = asyncio.ensure_future(keeping.pool.generate(job(prompt, answer=180, siblings=8)))
    await asyncio.sleep(0.05)
    keeping.move(0.05)
    await keeping.publish()
    fresh = await keeping.pool.generate(job(prompt, answer=8))
    assert {t.policy.start for t in fresh.trajectories} == {keeping.version}
    assert max(keeping.worst(t) for t in fresh.trajectories) < TOLERANCE, "a new request read what old weights cached"
    continued = [t for t in (await running).trajectories if t.policy.switches]
    assert continued, "no trajectory was in flight during the update"
    for trajectory in continued:
        later = trajectory.sampled & (np.arange(len(trajectory.token_ids)) >= trajectory.policy.switches[0][0])
        difference = np.abs(keeping.logprobs(trajectory.token_ids) - trajectory.sampler_logprobs)[later]
        assert difference.max() > 10 * TOLERANCE, "these tokens are of neither model alone"


async def test_weights_go_back_after_an_update_that_was_given_up(served: Served) -> None:
    """The learner died in the middle of a publish and goes on from an older version."""
    import ray

    running = asyncio.ensure_future(served.pool.generate(job("5+1=", answer=180, siblings=16)))
    await asyncio.sleep(0.05)
    await served.pool.begin_update(served.version + 7)
    halfway = [(name, tensor.detach() * 2) for name, tensor in served.model.named_parameters()][:7]
    await served.pool.receive(ray.put(halfway))  # it ends in the middle of a layer
    await served.pool.start_over()
    finishes = {t.finish for t in (await running).trajectories}  # some end of themselves before
    assert Finish.ERROR in finishes and finishes <= {Finish.ERROR, Finish.STOP}
    served.move(0.05)
    served.version = max(served.version - 2, 0)
    await served.publish()
    group = await served.pool.generate(job(LONG_PROMPT))
    assert {t.policy.start for t in group.trajectories} == {served.version}
    assert max(served.worst(t) for t in group.trajectories) < TOLERANCE


async def test_the_thinking_cap_is_enforced_and_masked(served: Served) -> None:
    for cap in (0, 1, 7):
        group = await served.pool.generate(job("2+2=", cap=cap, answer=5, siblings=16))
        finishes = {t.finish for t in group.trajectories}
        assert finishes <= {Finish.THINKING_CUT, Finish.LENGTH, Finish.STOP}
        for trajectory in group.trajectories:
            assert trajectory.num_thinking_tokens <= cap
            assert int(trajectory.sampled.sum()) <= cap + 5
            if trajectory.answer is not None and not trajectory.sampled[trajectory.prompt_len :].all():
                (forced,) = np.flatnonzero(~trajectory.sampled[trajectory.prompt_len :])
                assert forced == cap
                assert trajectory.text[slice(*trajectory.thinking)] + "</think>" in trajectory.text  # type: ignore[misc]
            if trajectory.sampled.any():
                assert served.worst(trajectory) < TOLERANCE


async def test_greedy_and_seeded_decoding_repeat(served: Served) -> None:
    async def ids(**sampling: Any) -> list[list[int]]:
        group: Group = await served.pool.generate(job("3+3=", cap=6, siblings=3, **sampling))
        return [t.token_ids.tolist() for t in group.trajectories]

    greedy = await ids(temperature=0.0)
    assert greedy[0] == greedy[1] == greedy[2]
    assert await ids(temperature=0.0) == greedy
    seeded = await ids(seed=5)
    assert await ids(seed=5) == seeded
    assert seeded[0] != seeded[1]
    assert await ids(seed=6) != seeded


async def test_seeded_requests_survive_more_prompt_tokens_than_one_step_holds(served: Served) -> None:
    """vLLM cannot split the prompt of a request with a seed over two steps on a CPU: the engine would die."""

    async def ids() -> list[list[int]]:
        jobs = [job(f"{number}{LONG_PROMPT}", answer=4, siblings=2, seed=number) for number in range(4)]
        groups = await asyncio.gather(*map(served.pool.generate, jobs))
        return [t.token_ids.tolist() for group in groups for t in group.trajectories]

    assert await ids() == await ids()


async def test_a_refused_request_is_one_failed_sibling_group(served: Served) -> None:
    bad, good = await asyncio.gather(
        served.pool.generate(job("1+1=", top_p=7.0)), served.pool.generate(job("1+1=", answer=3))
    )
    assert {t.finish for t in bad.trajectories} == {Finish.ERROR}
    assert "top_p" in str(bad.trajectories[0].error)
    assert Finish.ERROR not in {t.finish for t in good.trajectories}
    (stats,) = await served.pool.stats()
    assert stats.num_groups >= 2


async def test_a_partial_checkpoint_is_refused_and_a_dead_engine_stays_dead(engines: dict[str, Served]) -> None:
    """The last test of the file: the untied engine does not survive it."""
    import ray

    pool = engines["untied"].pool
    tensors = [(n, t) for n, t in engines["untied"].model.state_dict().items() if "layers.1.mlp" not in n]
    await pool.begin_update(1000)
    await pool.receive(ray.put(tensors))
    with pytest.raises(
        EngineDeadError, match=r"engine rollout-0 failed during finish_update: .*2 of 15 were not in it"
    ):
        await pool.finish_update(1000)
    with pytest.raises(EngineDeadError, match="2 of 15 were not in it"):
        await pool.generate(job("1+1="))


async def test_a_killed_engine_is_one_clear_error(engines: dict[str, Served]) -> None:
    import ray

    pool = engines["tied"].pool
    pending = asyncio.gather(*(pool.generate(job(f"{n}-1=", answer=200)) for n in range(3)), return_exceptions=True)
    await asyncio.sleep(0.02)
    ray.kill(pool._serving[0].actor)
    errors = {str(error) for error in await pending if isinstance(error, EngineDeadError)}
    assert len(errors) == 1
    (message,) = errors
    assert message.startswith("engine rollout-0 died during generate")
    assert Path(message.rpartition("its log: ")[2]).is_file()


@pytest.fixture
def closing(ray_session: None, tmp_path: Path) -> Iterator[Served]:
    """An engine that keeps the thinking cap by itself, and one of the same model that leaves it to us."""
    from transformers import AutoModelForCausalLM

    path = build_tiny_model(tmp_path / "model", tied=False, seed=4)
    config = CONFIG.model_copy(update={"thinking_cap": "engine"})
    pool = start_engines(config, FormatConfig(prefill_thinking=True), str(path), log_dir=str(tmp_path / "logs"))
    yield Served(pool=pool, model=AutoModelForCausalLM.from_pretrained(path))
    pool.close()


async def test_an_engine_keeps_the_thinking_cap_as_two_requests_do(closing: Served, tmp_path: Path) -> None:
    """Greedy responses are equal token by token; sampled ones hold the cap, with the model's own log-probabilities."""
    format = FormatConfig(prefill_thinking=True)
    two_phase = start_engines(CONFIG, format, str(tmp_path / "model"), log_dir=str(tmp_path / "other"))
    try:
        prompts = [f"{n}+{n}=" for n in range(6)]
        greedy = [job(p, cap=cap, answer=9, siblings=1, temperature=0.0) for p in prompts for cap in (1, 4, 11)]
        ours, theirs = [await asyncio.gather(*map(pool.generate, greedy)) for pool in (two_phase, closing.pool)]
    finally:
        two_phase.close()
    for one, other in zip(ours, theirs, strict=True):
        a, b = one.trajectories[0], other.trajectories[0]
        assert a.token_ids.tolist() == b.token_ids.tolist() and a.sampled.tolist() == b.sampled.tolist()
        assert a.finish is b.finish
    assert any(not g.trajectories[0].sampled[g.trajectories[0].prompt_len :].all() for g in theirs)  # some were closed
    sampled = await asyncio.gather(*(closing.pool.generate(job(p, cap=5, answer=6, seed=3)) for p in prompts))
    for trajectory in (t for group in sampled for t in group.trajectories):
        assert trajectory.num_thinking_tokens <= 5 and closing.worst(trajectory) < TOLERANCE
