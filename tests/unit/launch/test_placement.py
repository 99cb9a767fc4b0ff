"""Who sits on which GPU, and every combination that cannot work."""

from pathlib import Path
from typing import Any

import pytest

from launch import recipe
from launch.colocated import TakingTurns
from launch.placement import place, place_engines
from launch.recipe import RecipeError

QUICKSTART = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"
ON_GPUS = ["rollout.device=cuda", "learner.device=cuda"]


def load(*settings: str) -> Any:
    return recipe.load(QUICKSTART, list(settings))


def test_on_cpus_nothing_is_reserved() -> None:
    assert place(load()) is None and place_engines(load()) is None


def test_apart_every_engine_has_its_gpus_and_every_rank_its_own() -> None:
    found = place(load(*ON_GPUS, "rollout.num_engines=2", "rollout.tensor_parallel=2", "learner.num_ranks=3"))
    assert found is not None and found.num_bundles == 7
    assert [seat.bundles for seat in found.engines] == [(0, 1), (2, 3)]
    assert [seat.bundles for seat in found.ranks] == [(4,), (5,), (6,)]
    assert {seat.gpu_share for seat in (*found.engines, *found.ranks)} == {1.0}
    assert found.engine_memory_share is None and not found.takes_turns


def test_only_one_side_on_gpus() -> None:
    engines, ranks = place(load("rollout.device=cuda")), place(load("learner.device=cuda", "learner.num_ranks=2"))
    assert engines is not None and (engines.num_bundles, engines.ranks) == (1, ())
    assert ranks is not None and (ranks.num_bundles, ranks.engines) == (2, ())


@pytest.mark.parametrize(("kind", "shares"), [("colocated", (0.5, 0.5)), ("split", (0.375, 0.625))])
def test_together_each_gpu_holds_a_rank_and_a_part_of_an_engine(kind: str, shares: tuple[float, float]) -> None:
    together = [f"cluster.placement={kind}", "cluster.engine_share=0.375"]
    found = place(
        load(*ON_GPUS, *together, "rollout.num_engines=2", "rollout.tensor_parallel=2", "learner.num_ranks=4")
    )
    assert found is not None and found.num_bundles == 4
    assert [seat.bundles for seat in found.engines] == [(0, 1), (2, 3)]
    assert [seat.bundles for seat in found.ranks] == [(0,), (1,), (2,), (3,)]
    for bundle in range(4):
        held = [seat.gpu_share for seat in (*found.engines, *found.ranks) if bundle in seat.bundles]
        assert held == list(shares) and sum(held) == 1.0
    assert found.engine_memory_share == 0.375 and found.takes_turns is (kind == "colocated")


def test_evaluation_alone_reserves_the_engines_gpus_whole() -> None:
    together = [*ON_GPUS, "cluster.placement=colocated", "rollout.num_engines=2", "learner.num_ranks=2"]
    found = place_engines(load(*together))
    assert found is not None and (found.num_bundles, found.ranks) == (2, ())
    assert {seat.gpu_share for seat in found.engines} == {1.0} and not found.takes_turns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rollout.tensor_parallel=2"], r"tensor_parallel = 2 splits an engine over GPUs, and rollout\.device = 'cpu'"),
        (["cluster.placement=colocated"], r"placement = 'colocated' puts .* same GPUs, and rollout\.device = 'cpu'"),
        (["cluster.placement=split", "rollout.device=cuda"], r"learner\.device = 'cpu'; set both to 'cuda'"),
        (
            [*ON_GPUS, "cluster.placement=split", "rollout.num_engines=2"],
            r"rollout\.num_engines x rollout\.tensor_parallel = 2 x 1 must be learner\.num_ranks = 1",
        ),
        (
            [*ON_GPUS, "cluster.placement=colocated", "buffer.max_lag=1"],
            r"buffer\.max_lag = 1 asks them to generate meanwhile; set max_lag = 0, or placement = 'split'",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(*settings)


async def test_engines_sleep_before_every_step_and_the_rest_is_the_learner_s() -> None:
    calls: list[str] = []

    class Recorded:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, method: str) -> Any:
            async def call(*args: Any) -> str:
                calls.append(f"{self._name}.{method}")
                return f"{self._name}.{method}{args}"

            return call

    learner = TakingTurns(Recorded("learner"), Recorded("engines"))
    batch: Any = "batch"
    assert await learner.step(batch) == "learner.step('batch',)"
    assert calls == ["engines.sleep", "learner.step", "learner.give_back"]
    assert await learner.save("path") == "learner.save('path',)"
