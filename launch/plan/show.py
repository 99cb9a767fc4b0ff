"""A plan on the screen, and as plain data."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from launch.plan.machine import Machine
from launch.plan.memory import Role
from launch.plan.shape import ModelShape
from launch.plan.time import StepTime
from launch.screen import duration


def table(roles: list[Role]) -> Table:
    """What will run, where, and what it holds."""
    shown = Table(title="what will run", title_justify="left")
    for column in ("process", "number", "device", "threads", "GiB each", "of which"):
        shown.add_column(
            column, overflow="fold", justify="right" if column in ("number", "threads", "GiB each") else "left"
        )
    for role in roles:
        parts = ", ".join(f"{name} {gib:.2f}" for name, gib in role.parts.items() if gib >= 0.005)
        shown.add_row(role.name, str(role.count), role.device, str(role.threads), f"{role.memory_gib:.2f}", parts)
    return shown


def lines(shape: ModelShape, roles: list[Role], machine: Machine, step: StepTime, num_steps: int) -> list[str]:
    """The sums below the table."""
    on_cpu = sum(role.total_gib for role in roles if role.device == "cpu")
    on_gpu = sum(role.total_gib for role in roles if role.device == "cuda")
    free = f"{machine.cores} cores, {machine.memory_gib:.1f} GiB free"
    if machine.num_gpus:
        free += f", {machine.num_gpus} x {machine.gpu} with {machine.gpu_memory_gib:.0f} GiB"
    total = f"{on_cpu:.1f} GiB on CPUs" + (f", {on_gpu:.1f} GiB on GPUs" if on_gpu else "")
    return [
        f"model: {shape.num_parameters / 1e6:.1f} million parameters, {shape.num_layers} layers",
        f"memory: {total}; a machine has {free}",
        f"a step: at most {step.sequences} sequences of up to {step.longest_response} tokens; decoding up to "
        f"{duration(step.decode_s)}, learning up to {duration(step.learn_s)}, together {duration(step.step_s)}",
        f"training: {num_steps} steps, at most {duration(num_steps * step.step_s)}, evaluations aside",
    ]


def as_json(
    shape: ModelShape, roles: list[Role], machine: Machine, step: StepTime, problems: list[str]
) -> dict[str, Any]:
    return {
        "num_parameters": shape.num_parameters,
        "roles": [
            {"name": r.name, "count": r.count, "device": r.device, "memory_gib": r.memory_gib, "parts_gib": r.parts}
            for r in roles
        ],
        "memory_gib": {d: sum(r.total_gib for r in roles if r.device == d) for d in ("cpu", "cuda")},
        "machine": {name: getattr(machine, name) for name in machine.__slots__},
        "step_s": {"decode": step.decode_s, "learn": step.learn_s, "step": step.step_s},
        "problems": problems,
    }
