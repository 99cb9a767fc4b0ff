"""Built-ins are registered like anybody's plugin, resolve, and keep the contract of their group."""

import importlib
import importlib.metadata
import inspect
from typing import get_args

import pytest

from launch import plugins
from launch.config import RunConfig
from launch.recipe import models_in
from launch.sampling_section import SamplingSection
from rewards.verifier import BUILT_IN_VERIFIERS
from rollout.schema import Task

REGISTERED = [(group, name) for group in plugins.CONTRACTS for name in plugins.registered(group)]


@pytest.mark.parametrize(("group", "name"), REGISTERED)
def test_a_registered_name_resolves_to_something_that_can_be_called(group: str, name: str) -> None:
    module, _, attribute = plugins.target(group, name).rpartition(":")
    assert callable(vars(importlib.import_module(module))[attribute])


def test_every_group_has_a_built_in() -> None:
    assert {group for group, _ in REGISTERED} == set(plugins.CONTRACTS)


def test_the_judge_and_the_registry_agree_on_the_verifiers() -> None:
    assert plugins.registered("ponder.verifiers").items() >= BUILT_IN_VERIFIERS.items()


def test_every_type_of_a_section_is_registered() -> None:
    for group, section in (("ponder.credit", "credit"), ("ponder.losses", "loss"), ("ponder.steps", "prm")):
        parts = models_in(RunConfig.model_fields[section].annotation)
        names = {name for part in parts for name in get_args(part.model_fields["type"].annotation)} - {"plugin"}
        assert names <= set(plugins.registered(group))


def test_every_sampler_is_registered() -> None:
    parts = models_in(SamplingSection.model_fields["sampler"].annotation)
    names = {name for part in parts for name in get_args(part.model_fields["type"].annotation)} - {"plugin"}
    assert len(names) > 1
    assert names == set(plugins.registered("ponder.samplers"))


def test_a_verifier_takes_one_sample() -> None:
    for name in plugins.registered("ponder.verifiers"):
        assert len(inspect.signature(plugins.load("ponder.verifiers", name)).parameters) == 1


def test_a_task_source_makes_the_tasks_it_is_asked_for() -> None:
    for name in plugins.registered("ponder.tasks"):
        tasks = plugins.load("ponder.tasks", name)(num_tasks=5, seed=3)
        assert len({task.key for task in tasks}) == 5
        assert all(isinstance(task, Task) and task.verifier in plugins.registered("ponder.verifiers") for task in tasks)


def test_two_packages_may_not_claim_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "ponder.verifiers"
    points = [importlib.metadata.EntryPoint("math", f"package_{n}:verify", group) for n in (1, 2)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    with pytest.raises(plugins.PluginError, match=r"'math' is registered twice, as package_1:verify and as package_2"):
        plugins.registered(group)
