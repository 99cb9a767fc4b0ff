"""The sampling rules: worked counts, simulations, and what each promises."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.checkpoint_arrays import read_arrays, write_arrays
from rl.sampling.build import build_sampler
from rl.sampling.config import (
    CurriculumSampling,
    QuotaSampling,
    RifSampling,
    SamplerConfig,
    StatSampling,
    TierSampling,
    UniformSampling,
    VadeSampling,
)
from rl.sampling.curriculum import Curriculum, stages_of
from rl.sampling.picker import NO_TASKS
from rl.sampling.quotas import Quotas, allocate
from rl.sampling.rif import KEPT, LOOK, SOLVED, Rif
from rl.sampling.stat import Stat
from rl.sampling.tiers import Tiers, shares_at
from rl.sampling.uniform import Uniform
from rl.verdict import Tally, tally
from rollout.schema import Message, Task, task_key
from tests.fakes.loop import make_scored

EVERY: dict[str, SamplerConfig] = {
    "uniform": UniformSampling(),
    "vade": VadeSampling(type="vade"),
    "curriculum": CurriculumSampling(type="curriculum", window=4),
    "rif": RifSampling(type="rif"),
    "stat": StatSampling(type="stat", refresh_every=2),
    "tiers": TierSampling(type="tiers", shares=((0.6, 0.1, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.1, 0.6)), steps=12),
    "quotas": QuotaSampling(type="quotas", shares={"a": 1, "b": 3}, inner=VadeSampling(type="vade")),
}


def right(count: int, judged: int = 8, lag: int = 0) -> Tally:
    return Tally(num_right=count, num_judged=judged, lag=lag)


def labelled(count: int) -> list[Task]:
    """Tasks of two sources, three skills and five difficulties."""
    prompts = [(Message(role="user", content=f"question {n}"),) for n in range(count)]
    return [
        Task(
            key=task_key(p, "1"),
            prompt=p,
            answer="1",
            verifier="exact",
            source="ab"[n % 2],
            skills=(f"skill_{n % 3}",),
            meta={"difficulty": n % 5},
        )
        for n, p in enumerate(prompts)
    ]


def through_a_checkpoint(state: Any, directory: Any) -> Any:
    return read_arrays(json.loads(json.dumps(write_arrays(state, directory), allow_nan=False)), directory)


# ------------------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", EVERY)
def test_state_restores_the_same_picks(name: str, tmp_path: Any) -> None:
    """Killed anywhere, with tasks under way and a queue half handed out."""
    tasks = labelled(90)
    whole, other = (build_sampler(EVERY[name], tasks, batch_size=8, seed=5) for _ in range(2))
    rng = np.random.default_rng(0)
    out = []
    for turn in range(101):
        out.append(whole.next())
        if turn % 3:
            whole.observe(out.pop(0), right(int(rng.integers(9))))
    other.load_state_dict(through_a_checkpoint(whole.state_dict(), tmp_path))
    for _ in range(60):
        out.append(whole.next())
        assert other.next().key == out[-1].key
        task = out.pop(0)
        told = right(int(rng.integers(9)))
        whole.observe(task, told)
        other.observe(task, told)
    first, second = (json.dumps(write_arrays(s.state_dict(), tmp_path)) for s in (whole, other))
    assert first == second
    assert [m.value for m in whole.metrics()] == [m.value for m in other.metrics()]


@pytest.mark.parametrize("name", EVERY)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_tasks_under_way_are_not_picked_unless_all_are(name: str, size: int, batch: int, seed: int) -> None:
    """A pool smaller than a batch, or than what is under way, is handed out again and again."""
    tasks = labelled(max(size, 5 if name == "tiers" else 2))  # tiers wants its five
    sampler = build_sampler(EVERY[name], tasks, batch_size=batch, seed=seed)
    rng = np.random.default_rng(seed)
    out: list[Task] = []
    for _ in range(4 * batch + 2 * size):
        task = sampler.next()
        if name != "uniform" and len({t.key for t in out}) < len(tasks):
            free = len(tasks) - len({t.key for t in out})
            assert task.key not in {t.key for t in out} or free <= batch
        out.append(task)
        if rng.random() < 0.7:
            sampler.observe(out.pop(int(rng.integers(len(out)))), right(int(rng.integers(9))))
    assert all(np.isfinite(m.value) for m in sampler.metrics())


@pytest.mark.parametrize("name", EVERY)
def test_a_sampler_hears_of_each_group_once(name: str) -> None:
    sampler = build_sampler(EVERY[name], labelled(20), batch_size=4, seed=0)
    task = sampler.next()
    sampler.observe(task, right(0))
    with pytest.raises(ValueError, match="is not out"):
        sampler.observe(task, right(0))


@pytest.mark.parametrize("name", EVERY)
def test_an_unjudged_group_teaches_nothing(name: str, tmp_path: Any) -> None:
    tasks = labelled(20)
    first, second = (build_sampler(EVERY[name], tasks, batch_size=8, seed=1) for _ in range(2))
    for told, sampler in ((False, first), (True, second)):
        for _ in range(8):
            task = sampler.next()
            if told:
                sampler.observe(task, right(0, judged=0))
    states = [through_a_checkpoint(s.state_dict()["picker"], tmp_path) for s in (first, second)]
    assert json.dumps(write_arrays(states[0], tmp_path)) == json.dumps(write_arrays(states[1], tmp_path))


def test_a_tally_is_binary_and_leaves_the_unjudged_out() -> None:
    scored = make_scored([0.9, 0.2, None, 1.0], shaped={"length": [5, 5, 5, 5]})
    assert tally(scored, lag=2) == Tally(num_right=2, num_judged=3, lag=2)
    assert not right(8).is_informative
    assert not right(0).is_informative


# ------------------------------------------------------------------------------------------------ curriculum


def test_stages() -> None:
    assert stages_of(np.asarray([4.0, 6, 5, 4]), 10).tolist() == [0, 2, 1, 0]
    assert stages_of(np.arange(100.0), 4).tolist() == [n // 25 for n in range(100)]


def curriculum(**settings: Any) -> Curriculum:
    config = CurriculumSampling(type="curriculum", **{"window": 2, "review": 0.25, **settings})
    return Curriculum(np.repeat([1.0, 2.0, 3.0], 20), config, seed=0)


def test_a_stage_is_left_for_its_success_rate() -> None:
    picker = curriculum()

    def stage_after(*events: tuple[int, Tally]) -> float:
        for number, told in events:
            picker.update(number, told)
        return picker.metrics()[0].value

    assert set(picker.pick(8, NO_TASKS) // 20) == {0}
    assert stage_after((0, right(6)), (1, right(5))) == 0  # 11 of 16: in the band
    assert stage_after((0, right(8)), (1, right(4))) == 1  # 12 of 16
    assert stage_after((0, right(0)), (2, right(0))) == 1  # groups of stage 0 do not count
    assert sorted(picker.pick(8, NO_TASKS) // 20) == [0, 0, 1, 1, 1, 1, 1, 1]
    assert stage_after((20, right(8)), (21, right(8))) == 2
    assert stage_after((40, right(1)), (41, right(1))) == 1  # 2 of 16: back
    assert stage_after((20, right(0)), (21, right(0))) == 0
    assert stage_after((0, right(0)), (1, right(0))) == 0


def test_a_stage_with_few_free_tasks_is_filled_up() -> None:
    picker = curriculum()
    picked = picker.pick(30, np.arange(15))
    assert len(set(picked)) == 30
    assert set(range(15, 20)) <= set(picked)
    assert picked.min() >= 15


def test_a_curriculum_needs_difficulties() -> None:
    with pytest.raises(ValueError, match=r"number in meta\['length'\] of every task, got None"):
        config = CurriculumSampling(type="curriculum", difficulty="length")
        build_sampler(config, labelled(3), batch_size=1, seed=0)
    with pytest.raises(ValueError, match="lower < upper"):
        CurriculumSampling(type="curriculum", lower=0.7, upper=0.7)


# ------------------------------------------------------------------------------------------------ RIF


def test_rif_classes_by_pass_count() -> None:
    rif = Rif(9, RifSampling(type="rif", probe=0.0, later=0.0, audit=0.0), seed=0)
    rif.pick(9, NO_TASKS)
    for number in range(9):
        rif.update(number, right(number))
    shares = {m.name: m.value * 9 for m in rif.metrics()}
    assert shares == pytest.approx(
        {
            "sampler/new_share": 0,
            "sampler/kept_share": 7,
            "sampler/later_share": 1,
            "sampler/solved_share": 1,
        }
    )
    assert set(rif.pick(7, NO_TASKS)) == set(range(1, 8))


def test_rif_shares_and_the_longest_untried_first() -> None:
    rif = Rif(4000, RifSampling(type="rif", probe=0.3, later=0.1, audit=0.1), seed=0)
    kinds = np.repeat([0, 8, 4], [100, 100, 1000])
    for number, count in enumerate(kinds):
        if number in (50, 150):
            rif.pick(1, NO_TASKS)
        rif.update(number, right(int(count)))
    picked = rif.pick(40, NO_TASKS)
    assert np.histogram(picked, [0, 100, 200, 1200, 4000])[0].tolist() == [4, 4, 20, 12]
    assert picked[picked < 100].max() < 50, "the first fifty were judged before the others"


def test_rif_finds_a_rare_class_in_a_pool_larger_than_one_look() -> None:
    """Of 100 000 tried tasks all but three are solved; a look at LOOK of them need not find these three."""
    num_tasks, rare = 3 * LOOK, [7, 50_000, 98_000]
    rif = Rif(num_tasks, RifSampling(type="rif", probe=0.0, later=0.0, audit=0.5), seed=0)
    tried = np.arange(num_tasks, dtype=np.int32)
    classes = np.full(num_tasks, SOLVED, dtype=np.uint8)
    classes[rare] = KEPT
    judged_at = (tried // 100).astype(np.uint32)
    rif.load_state_dict({"num_picks": 1000, "tried": tried, "class": classes, "judged_at": judged_at})
    picked = rif.pick(8, np.asarray([50_000]))
    assert picked.size == len(set(picked)) == 8
    assert set(rare) - set(picked) == {50_000}
    others = picked[~np.isin(picked, rare)]
    assert others.max() < num_tasks // 100, "among the longest untried hundredth"


def test_rif_tries_hopeless_tasks_when_nothing_else_is_left() -> None:
    rif = Rif(10, RifSampling(type="rif"), seed=0)
    for number in range(10):
        rif.update(number, right(0))
    assert set(rif.pick(10, NO_TASKS)) == set(range(10))


# ------------------------------------------------------------------------------------------------ STAT


def test_stat_finds_the_planted_skill() -> None:
    """A policy that is wrong on skill 7 alone: it becomes the mode of the profile, and of what is picked."""
    skill = np.arange(1000) % 20
    names = [f"s{k:02d}" for k in range(20)]
    stat = Stat(names, np.arange(1001), skill, StatSampling(type="stat", refresh_every=5), seed=0)
    for _ in range(6):
        picked = stat.pick(40, NO_TASKS)
        for number in picked:
            stat.update(int(number), right(0 if skill[number] == 7 else 8))
    values = {m.name: m.value for m in stat.metrics()}
    assert values["sampler/missing/s07"] == pytest.approx(1.0)
    assert values["sampler/profile_entropy"] == pytest.approx(0.0)
    assert values["sampler/success/s07"] == 0
    assert np.mean(skill[picked] == 7) > 0.85


def test_stat_blames_every_skill_of_a_task_and_forgets() -> None:
    stat = Stat(["a", "b"], np.asarray([0, 2, 3]), np.asarray([0, 1, 1]), StatSampling(type="stat"), seed=0)
    stat.update(0, right(5))
    stat.update(1, right(2))
    state = stat.state_dict()
    assert state["wrong"].tolist() == [3, 9]
    stat.pick(1, NO_TASKS)
    assert stat.state_dict()["profile"].tolist() == [0.25, 0.75]
    assert stat.state_dict()["wrong"].tolist() == [1.5, 4.5]


# ------------------------------------------------------------------------------------------------ quotas


def test_quotas_are_kept_and_made_up_for() -> None:
    domains = np.repeat([0, 1, 2], [50, 30, 20]).astype(np.int32)
    quotas = Quotas(
        ["a", "b", "c"],
        domains,
        {"a": 1, "b": 1, "c": 2},
        lambda members, seed: Uniform(members.size, seed=seed),
        seed=0,
    )
    given = np.zeros(3)
    for _ in range(30):
        given += np.bincount(domains[quotas.pick(7, NO_TASKS)], minlength=3)
    assert given / given.sum() == pytest.approx([0.25, 0.25, 0.5], abs=0.03)
    blocked = quotas.pick(8, np.flatnonzero(domains == 2))
    assert set(domains[blocked]) == {0, 1}, "a domain without a free task is passed over"
    after = np.bincount(domains[quotas.pick(8, NO_TASKS)], minlength=3)
    assert after[2] > 4, "and is owed its tasks"


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=6),
    st.lists(st.integers(0, 50), min_size=6, max_size=6),
    st.integers(1, 100),
)
def test_allocation_adds_up(shares: list[float], given_so_far: list[int], count: int) -> None:
    q = np.asarray(shares) / sum(shares)
    given = np.asarray(given_so_far[: len(shares)])
    wanted = allocate(q, given, count)
    assert wanted.sum() == count
    assert (wanted >= 0).all()
    assert not (wanted[given > q * (given.sum() + count) + 1e-6] > 0).any(), "who has had more than its share waits"


def test_every_domain_has_a_share() -> None:
    with pytest.raises(ValueError, match=r"missing \['b'\], unknown \['z'\]"):
        config = QuotaSampling(type="quotas", shares={"a": 1, "z": 1})
        build_sampler(config, labelled(4), batch_size=1, seed=0)


# ------------------------------------------------------------------------------------------------ tiers

MOVE = (((0.6, 0.3, 0.1), (0.1, 0.3, 0.6)), (0.3, 0.7))


@pytest.mark.parametrize(
    ("share", "p"),
    [
        (0.0, (0.6, 0.3, 0.1)),
        (0.3, (0.6, 0.3, 0.1)),
        (0.4, (0.475, 0.3, 0.225)),
        (0.5, (0.35, 0.3, 0.35)),
        (0.7, (0.1, 0.3, 0.6)),
        (1.0, (0.1, 0.3, 0.6)),
    ],
)
def test_shares_of_the_tiers_move_between_two_points(share: float, p: tuple[float, ...]) -> None:
    assert shares_at(share, *MOVE).tolist() == pytest.approx(list(p))


@given(st.floats(0, 1))
def test_shares_are_shares_and_continuous(share: float) -> None:
    here, there = (shares_at(s, *MOVE) for s in (share, min(1.0, share + 1e-6)))
    assert here.sum() == pytest.approx(1.0) and np.abs(here - there).max() < 1e-5


def test_tiers_are_drawn_as_their_shares_say() -> None:
    difficulty = np.repeat([1.0, 2.0, 3.0], 1000)
    rule = Tiers(difficulty, TierSampling(type="tiers", steps=10), seed=0)
    drawn = np.zeros((12, 3))
    for turn in range(12):
        picked = rule.pick(400, NO_TASKS)
        assert np.unique(picked).size == 400
        drawn[turn] = np.bincount(picked // 1000, minlength=3) / 400
    assert np.abs(drawn[:4].mean(axis=0) - (0.6, 0.3, 0.1)).max() < 0.04
    assert np.abs(drawn[7:].mean(axis=0) - (0.1, 0.3, 0.6)).max() < 0.04
    shown = {m.name: m.value for m in rule.metrics()}
    assert shown["sampler/tier_0"] == pytest.approx(0.1) and 0.2 < shown["sampler/tier_0_drawn"] < 0.5


def test_a_tier_without_free_tasks_is_made_up_and_a_wrong_count_refused() -> None:
    rule = Tiers(np.repeat([1.0, 2.0, 3.0], [2, 50, 50]), TierSampling(type="tiers", steps=10), seed=0)
    picked = rule.pick(30, np.arange(2))
    assert picked.size == np.unique(picked).size == 30 and picked.min() >= 2
    with pytest.raises(ValueError, match=r"shares for 3 tiers, .* has 2 different values"):
        Tiers(np.asarray([1.0, 2.0]), TierSampling(type="tiers", steps=10), seed=0)
