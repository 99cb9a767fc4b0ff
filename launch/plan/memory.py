"""Memory of every process of a run, from stated formulas. b is bytes a value: 4 for float32, 2 for 16-bit.

    learner rank   P b / w  +  P b / g  +  P o / s  +  activations  +  logits  +  process
                   w = ranks at ZeRO 3, else 1; g = ranks from ZeRO 2; s = ranks from ZeRO 1
                   o = 8 (AdamW's moments), and 4 more for float32 masters of 16-bit weights
    activations    T n (10 H + 2 K + 4 I) b, and without a variable-length kernel 2 T R A n b for the scores;
                   with gradient checkpointing T n H b plus one layer of the former
    logits         learner.max_logit_mib or T V 4, the smaller, twice: values and gradient
    engine         P b / rollout.tensor_parallel  +  rollout.kv_cache_gib  +  one published chunk  +  process
    learned PRM    P b, twice for a log-ratio of two models  +  12 P where it is trained online  +  activations of one
                   batch of prm.batch_tokens (of a layer, of all where it is trained)  +  process; P as the policy's
    reference      P b  +  logits  +  process; none of its own where the learner lends it room

P parameters, n layers, H width, K key and value width, I inner width, A heads, V vocabulary, T micro_batch_tokens, R
longest row. With LoRA only the adapters have gradients and moments, which is left out as small. Processes are what
they were measured to hold beside their model; tests compare the sums with the peaks of stored runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from launch.config import RunConfig
from launch.plan.shape import ModelShape
from prm.models.config import DiscriminativePrmConfig, ImplicitPrmConfig, ValuePrmConfig

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PROCESS_GIB = {"driver": 0.6, "judge": 0.1, "scorer": 0.1, "learner": 0.45, "engine": 1.1, "reference": 0.45}
CHUNK_GIB = 0.25  # of weights on their way to the engines; a single matrix may be larger


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Processes of one kind. Memory is of each of them, in GiB, on the device that it computes on."""

    name: str
    count: int
    device: str  # "cpu" or "cuda"
    threads: int
    memory_gib: float
    parts: dict[str, float]  # what it is made of, GiB

    @property
    def total_gib(self) -> float:
        return self.count * self.memory_gib


def roles(config: RunConfig, shape: ModelShape) -> list[Role]:
    """Every kind of process of a training run, services first."""
    engine = config.rollout.device
    found = [
        _role(
            "driver and Ray",
            1,
            "cpu",
            1,
            {"process": PROCESS_GIB["driver"], "objects": config.cluster.object_store_gib},
        ),
        _role("judge", 1, "cpu", config.rewards.sandbox.num_workers, _workers(config.rewards.sandbox.num_workers)),
        _role(
            "engine" if width(config) == 1 else f"engine's part on one of its {width(config)} GPUs",
            config.rollout.num_engines * width(config),
            engine,
            config.rollout.threads_per_engine,
            _engine(config, shape),
        ),
        _role(
            "learner rank",
            config.learner.num_ranks,
            config.learner.device,
            config.learner.threads_per_rank,
            _learner(config, shape),
        ),
    ]
    if isinstance(config.prm, ImplicitPrmConfig | DiscriminativePrmConfig | ValuePrmConfig):
        prm = config.prm
        found.insert(2, _role("step scorer", prm.num_actors, prm.device, prm.threads, _scorer(prm, shape)))
    elif config.prm.type != "none":
        found.insert(2, _role("step scorer", 1, "cpu", 1, {"process": PROCESS_GIB["scorer"]}))
    if config.reference is not None and config.reference.placement == "actor":
        parts = {
            "weights": shape.num_parameters * BYTES[config.reference.dtype] / GIB,
            "logits": _logits(config, shape),
            "process": PROCESS_GIB["reference"],
        }
        found.append(_role("reference", 1, config.learner.device, config.learner.threads_per_rank, parts))
    return found


def _role(name: str, count: int, device: str, threads: int, parts: dict[str, float]) -> Role:
    return Role(name=name, count=count, device=device, threads=threads, memory_gib=sum(parts.values()), parts=parts)


def _workers(count: int) -> dict[str, float]:
    return {"process": PROCESS_GIB["judge"], "workers": 0.1 * count}


def width(config: RunConfig) -> int:
    """GPUs of one engine; 1 on CPUs."""
    return config.rollout.tensor_parallel if config.rollout.device == "cuda" else 1


def _engine(config: RunConfig, shape: ModelShape) -> dict[str, float]:
    weights = shape.num_parameters * BYTES[config.rollout.dtype] / GIB / width(config)
    return {
        "weights": weights,
        "keys and values": config.rollout.kv_cache_gib,
        "published chunk": min(weights, max(CHUNK_GIB, shape.vocab * shape.hidden * 4 / GIB)),
        "process": PROCESS_GIB["engine"],
    }


def _scorer(prm: ImplicitPrmConfig | DiscriminativePrmConfig | ValuePrmConfig, shape: ModelShape) -> dict[str, float]:
    size = BYTES[prm.dtype]
    is_trained = isinstance(prm, ImplicitPrmConfig) and prm.online is not None
    models = 2 if isinstance(prm, ImplicitPrmConfig) else 1
    layers = shape.num_layers if is_trained else 1
    return {
        "weights": models * shape.num_parameters * size / GIB,
        "optimizer": 12 * shape.num_parameters / GIB if is_trained else 0.0,
        "activations": layers * prm.batch_tokens * _layer_width(shape) * size / GIB,
        "process": PROCESS_GIB["learner"],
    }


def _layer_width(shape: ModelShape) -> int:
    """Values a token and layer that wait for the backward pass, attention scores aside."""
    return 10 * shape.hidden + 2 * shape.kv_width + 4 * shape.intermediate


def _learner(config: RunConfig, shape: ModelShape) -> dict[str, float]:
    learner = config.learner
    size, ranks, stage = BYTES[learner.dtype], learner.num_ranks, learner.zero_stage
    weights = shape.num_parameters * size / (ranks if stage >= 3 else 1)
    trained = 0 if learner.lora is not None else shape.num_parameters
    gradients = trained * size / (ranks if stage >= 2 else 1)
    optimizer = trained * (8 + (4 if size == 2 else 0)) / (ranks if stage >= 1 else 1)
    return {
        "weights": weights / GIB,
        "gradients": gradients / GIB,
        "optimizer": optimizer / GIB,
        "activations": activations(config, shape) / GIB,
        "logits": _logits(config, shape),
        "process": PROCESS_GIB["learner"],
    }


def _logits(config: RunConfig, shape: ModelShape) -> float:
    return 2 * min(config.learner.max_logit_mib / 1024, config.learner.micro_batch_tokens * shape.vocab * 4 / GIB)


def activations(config: RunConfig, shape: ModelShape) -> float:
    """Bytes of one micro-batch's activations that wait for the backward pass."""
    learner = config.learner
    size, tokens = BYTES[learner.dtype], learner.micro_batch_tokens
    layer = tokens * _layer_width(shape) * size
    if learner.device == "cpu":
        layer += 2 * tokens * longest_sequence(config) * shape.num_heads * size
    if learner.gradient_checkpointing:
        return layer + tokens * shape.num_layers * shape.hidden * size
    return float(layer * shape.num_layers)


def longest_sequence(config: RunConfig) -> int:
    """Tokens of the longest sequence that the budgets allow, prompt included."""
    budgets = config.budgets
    responses = [(e.max_thinking_tokens or 0) + e.max_answer_tokens for e in budgets.efforts.values()]
    limit = budgets.max_prompt_tokens + max(responses)
    return min(limit, config.rollout.max_model_len or limit)
