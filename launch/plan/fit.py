"""Does the plan fit? Every rule with its values and what to change."""

from __future__ import annotations

from launch.config import RunConfig
from launch.plan.machine import Machine
from launch.plan.memory import Role

GPU_SHARE = 0.92  # the rest is the driver's and the allocator's


def misfits(config: RunConfig, roles: list[Role], machine: Machine, *, num_machines: int = 1) -> list[str]:
    """What cannot work, empty for a plan that fits."""
    return [
        *_memory(roles, machine, num_machines),
        *_gpus(config, roles, machine, num_machines),
        *_shared_gpus(config, roles, machine),
        *_disk_and_cores(config, machine),
    ]


def _memory(roles: list[Role], machine: Machine, num_machines: int) -> list[str]:
    needed = sum(role.total_gib for role in roles if role.device == "cpu")
    free = machine.memory_gib * num_machines
    if needed <= free:
        return []
    largest = max((role for role in roles if role.device == "cpu"), key=lambda role: role.total_gib)
    part = _largest_part(largest)
    return [
        f"processes on CPUs need {needed:.1f} GiB and {free:.1f} GiB are free; the largest share is {part} of "
        f"{largest.count} x {largest.name}, {largest.parts[part]:.1f} GiB each: {_remedy(part)}"
    ]


def _gpus(config: RunConfig, roles: list[Role], machine: Machine, num_machines: int) -> list[str]:
    on_gpu = [role for role in roles if role.device == "cuda"]
    wanted, there = sum(role.count for role in on_gpu), machine.num_gpus * num_machines
    if config.cluster.placement != "disaggregated":
        wanted -= config.learner.num_ranks  # each sits where a part of an engine sits
    found = []
    if wanted > there:
        listed = ", ".join(f"{role.count} x {role.name}" for role in on_gpu)
        found.append(
            f"{listed} take {wanted} GPUs, and there are {there}: lower rollout.num_engines or learner.num_ranks, let "
            "them share GPUs (cluster.placement), set reference.placement = 'learner', or name more machines"
        )
    for role in on_gpu:
        room = machine.gpu_memory_gib * GPU_SHARE
        if there and role.memory_gib > room:
            part = _largest_part(role)
            found.append(
                f"a {role.name} needs {role.memory_gib:.1f} GiB and a GPU has {room:.1f} GiB to give; the largest "
                f"share is {part}, {role.parts[part]:.1f} GiB: {_remedy(part)}"
            )
    return found


def _shared_gpus(config: RunConfig, roles: list[Role], machine: Machine) -> list[str]:
    """Engine and learner rank on one GPU: in turns the rank stays and only what a step needs goes, at once both fit."""
    kind, share = config.cluster.placement, config.cluster.engine_share
    if kind == "disaggregated" or not machine.num_gpus:
        return []
    engine = next(role for role in roles if role.name.startswith("engine"))
    rank = next(role for role in roles if role.name == "learner rank")
    room = machine.gpu_memory_gib * GPU_SHARE
    if kind == "colocated":
        awake = engine.memory_gib + sum(rank.parts[part] for part in ("weights", "gradients", "optimizer", "process"))
        if awake <= room:
            return []
        return [
            f"cluster.placement = 'colocated' keeps a learner rank's weights and optimizer beside an awake engine, "
            f"{awake:.1f} GiB, and a GPU has {room:.1f} GiB to give: lower rollout.kv_cache_gib, raise "
            "learner.zero_stage with more ranks, or set placement = 'disaggregated'"
        ]
    shares = ((engine, share, "rollout.kv_cache_gib"), (rank, 1 - share, "learner.micro_batch_tokens"))
    return [
        f"cluster.placement = 'split' with engine_share = {share} leaves {part * room:.1f} GiB of a GPU to "
        f"{role.name}, which needs {role.memory_gib:.1f} GiB: change cluster.engine_share, or lower {setting}"
        for role, part, setting in shares
        if role.memory_gib > part * room
    ]


def _disk_and_cores(config: RunConfig, machine: Machine) -> list[str]:
    if config.cluster.address == "local" and config.cluster.num_cpus > machine.cores:
        return [
            f"cluster.num_cpus = {config.cluster.num_cpus} and this machine gives this process {machine.cores} cores: "
            "lower it"
        ]
    return []


def _largest_part(role: Role) -> str:
    """The largest that a setting can change: a process needs what it needs."""
    parts = {name: gib for name, gib in role.parts.items() if name != "process"} or role.parts
    return max(parts, key=lambda name: parts[name])


def _remedy(part: str) -> str:
    return {
        "activations": "lower learner.micro_batch_tokens or set learner.gradient_checkpointing = true",
        "optimizer": "raise learner.zero_stage and learner.num_ranks, or train adapters with [learner.lora]",
        "gradients": "set learner.zero_stage = 2 with more learner.num_ranks, or train adapters with [learner.lora]",
        "weights": "use a 16-bit dtype, learner.zero_stage = 3 with more ranks, or a smaller model",
        "keys and values": "lower rollout.kv_cache_gib",
        "logits": "lower learner.max_logit_mib",
        "objects": "lower cluster.object_store_gib",
    }.get(part, "use a larger machine")
