"""The reference model on real Ray: what a plain transformers model says, in either placement, frozen until told."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from rl.config import ReferenceConfig
from rl.learner.actor import LearnerClient, start_learner
from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.errors import ReferenceDiedError
from rl.learner.reference_actor import ReferenceClient, start_reference
from rl.learner.scratch import build_model
from rl.losses.config import PpoClip
from rollout.schema import Float32Array, Trajectory
from tests.fakes.learner import training_batch
from tests.fakes.loop import make_trajectory

pytestmark = pytest.mark.stack
SPEC = ScratchModel(hidden_size=64, num_layers=1, intermediate_size=64, num_heads=2, initializer_range=0.1)
CONFIG = LearnerConfig(lr=1e-2, micro_batch_tokens=48)
TRAJECTORIES = [make_trajectory("g", i, length=length) for i, length in enumerate((4, 20, 0, 9, 1, 20, 13))]
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Story:
    """Scores of both placements at some moments, and what a plain model said of the same weights."""

    at_start: dict[str, list[Float32Array]]
    after_one: dict[str, list[Float32Array]]
    after_two: dict[str, list[Float32Array]]
    resumed: list[Float32Array]
    followed: list[bool]
    initial: list[Float32Array]
    trained: list[Float32Array]
    error: BaseException


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def plain(model_dir: str, trajectories: list[Trajectory]) -> list[Float32Array]:
    """[L] log-probabilities of the sampled tokens from logits / temperature, without any code of ours."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    scored = []
    for trajectory in trajectories:
        ids = torch.tensor(trajectory.token_ids, dtype=torch.int64)[None]
        with torch.no_grad():
            logprobs = (model(input_ids=ids).logits[0] / TEMPERATURE).log_softmax(-1)
        values = np.append(0.0, logprobs[:-1].gather(-1, ids[0, 1:, None])[:, 0].numpy())
        scored.append(np.where(trajectory.sampled, values, 0.0).astype(np.float32))
    return scored


async def tell(model_dir: str, folder: Path) -> Story:
    learner = start_learner(
        CONFIG, PpoClip(), model_dir, temperature=TEMPERATURE, log_dir=str(folder / "log"), seed=0, total_steps=9
    )

    def start(config: ReferenceConfig, client: LearnerClient) -> ReferenceClient:
        log_dir = str(folder / "log")
        return start_reference(config, CONFIG, client, model_dir, temperature=TEMPERATURE, log_dir=log_dir)

    own = start(ReferenceConfig(sync_every=2), learner)
    lent = start(ReferenceConfig(placement="learner"), learner)

    async def scores() -> dict[str, list[Float32Array]]:
        return {"own": await own.score(TRAJECTORIES), "lent": await lent.score(TRAJECTORIES)}

    # Both hosts hold the same weights now, so a client over the two must say the same as either.
    hosts = [*own._hosts, *lent._hosts]
    shared = ReferenceClient(hosts, [], ReferenceConfig(), CONFIG, learner, log_dir=str(folder / "log"))
    at_start = {**await scores(), "shared": await shared.score(TRAJECTORIES)}
    await learner.step(training_batch(8, seed=1))
    followed = [await own.follow(1), await lent.follow(1)]
    after_one = await scores()
    await learner.step(training_batch(8, seed=2))
    followed += [await own.follow(2), await lent.follow(2)]
    after_two = await scores()
    await own.save(str(folder / "reference"))
    await lent.save(str(folder / "nothing"))
    await learner.save_model(str(folder / "trained"))
    fresh = start(ReferenceConfig(placement="learner", sync_every=2), learner)
    await fresh.load(str(folder / "reference"), own.state_dict())
    resumed = await fresh.score(TRAJECTORIES)
    ray.kill(own._hosts[0])
    with pytest.raises(ReferenceDiedError) as death:
        await own.score(TRAJECTORIES)
    learner.close()
    trained = plain(str(folder / "trained"), TRAJECTORIES)
    initial = plain(model_dir, TRAJECTORIES)
    return Story(at_start, after_one, after_two, resumed, followed, initial, trained, death.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="module")
def story(folder: Path) -> Story:
    model_dir = str(folder / "model")

    build_model(SPEC, model_dir, seed=0)
    return asyncio.run(tell(model_dir, folder))


def gap(scored: list[Float32Array], expected: list[Float32Array]) -> float:
    assert [s.shape for s in scored] == [e.shape for e in expected]
    return max(float(np.abs(s - e).max()) for s, e in zip(scored, expected, strict=True))


def test_either_placement_says_what_a_plain_model_says(story: Story) -> None:
    for scored in story.at_start.values():
        assert gap(scored, story.initial) <= 2e-5
        assert all(s.dtype == np.float32 for s in scored)


def test_it_stays_frozen_while_the_learner_trains(story: Story) -> None:
    assert gap(story.trained, story.initial) > 0.01
    assert gap(story.after_one["own"], story.initial) <= 2e-5
    assert gap(story.after_two["lent"], story.initial) <= 2e-5


def test_it_takes_the_learners_weights_when_they_are_due(story: Story) -> None:
    assert story.followed == [False, False, True, False]
    assert gap(story.after_two["own"], story.trained) <= 2e-5


def test_a_checkpoint_holds_what_was_taken_and_nothing_else(story: Story, folder: Path) -> None:
    assert gap(story.resumed, story.trained) <= 2e-5
    assert not (folder / "nothing").exists()


def test_a_dead_process_is_named_with_its_log(story: Story) -> None:
    assert "reference model died; its log is in" in str(story.error)
