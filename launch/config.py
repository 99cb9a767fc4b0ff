"""The whole of a run's settings, and the rules that hold between sections.

Each room owns its section; here they are put together and nothing is said twice. A rule that one section can check
alone lives in that section. The rules below each say what is wrong, the values, and what to change.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from budgets.config import PLACE, BudgetsConfig
from launch import credit_rules, diagnostics_rules, effort_rules, general_tasks, mix_rules, placement_rules
from launch.plugin_section import PluginSection
from launch.sampling_section import SamplingSection
from prm.config import ExactPrmConfig, NoPrmConfig
from prm.models.config import LearnedPrmConfig
from rewards.config import RewardsConfig
from rl.coldstart_config import SftConfig
from rl.config import BufferConfig, EvaluateConfig, LoopConfig, ReferenceConfig
from rl.credit.config import CreditConfig, GdpoCredit, GrpoCredit
from rl.diagnostics.config import DiagnosticsConfig
from rl.learner.config import STRUCTURAL_TOKENS, LearnerConfig, ScratchModel
from rl.losses.config import LossConfig, PpoClip
from rl.mix_config import MixConfig
from rollout.config import FormatConfig, RolloutConfig, TasksConfig

# Head sizes that vLLM's CPU attention is compiled for; its GPU kernels take all of them as well.
ENGINE_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)

_SETTINGS = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RunSection(BaseModel):
    """What the run is called, where it is kept, and its seed."""

    model_config = _SETTINGS

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "run"
    """Name of the run and of its directory; a second run of that name gets `-2` appended."""

    dir: Annotated[str, Field(min_length=1)] = "runs"
    """Directory that holds the run directories."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random: initial weights, tasks and their split, their order, efforts, sampling."""

    mirror: str = ""
    """URL of a copy of the run, such as s3://bucket/runs/first, written after every checkpoint and at the end; any
    place that fsspec knows. `--resume URL` goes on from it. Keep credentials in the environment, not in the URL."""

    trace_steps: tuple[PositiveInt, ...] = ()
    """Steps whose timeline is written to traces/, for chrome://tracing or Perfetto; `ponder ctl trace` asks for one."""


class PathModel(BaseModel):
    """A model that exists."""

    model_config = _SETTINGS

    type: Literal["path"] = "path"
    """Selects a Hugging Face model directory."""

    path: Annotated[str, Field(min_length=1)]
    """The directory: configuration, weights and tokenizer. Nothing is downloaded."""


CreditSection = Annotated[CreditConfig | PluginSection, Field(discriminator="type")]
PrmSection = Annotated[NoPrmConfig | ExactPrmConfig | LearnedPrmConfig | PluginSection, Field(discriminator="type")]
ModelConfig = Annotated[PathModel | ScratchModel, Field(discriminator="type")]


class ClusterConfig(BaseModel):
    """The Ray that the services run in."""

    model_config = _SETTINGS

    address: Annotated[str, Field(min_length=1)] = "local"
    """`local` starts a Ray for this run on loopback; `host:port` joins a running one and needs its token."""

    num_cpus: PositiveInt = 2
    """Cores that the run may count on."""

    placement: Literal["disaggregated", "colocated", "split"] = "disaggregated"
    """Engines and learner on GPUs of their own; on the same ones in turns, engines asleep while the learner works; or
    on the same ones at once, each with its share of the memory."""

    engine_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of a GPU's memory that an engine may use where it is colocated or split."""

    publish: Literal["auto", "object_store"] = "auto"
    """How weights reach the engines: over NCCL between GPUs, over CUDA IPC on shared ones, else through Ray's shared
    memory; or always through that."""

    object_store_gib: Annotated[float, Field(ge=0.08)] = 0.5
    """Shared memory for weights and groups on their way between processes; a publish needs the model's size."""

    start_deadline_s: PositiveFloat = 300.0
    """Seconds that engines, learner and services may take to start."""

    control: bool = True
    """Let `ponder ctl` reach the training: a free port of the loopback interface, with a token in the run directory."""


class RunConfig(BaseModel):
    """One run. A recipe is this, in TOML."""

    model_config = _SETTINGS

    run: RunSection = RunSection()
    """Name, place and seed."""

    model: ModelConfig
    """The policy: an existing model directory, or a small one built from a configuration."""

    format: FormatConfig = FormatConfig()
    """How thinking is marked in what the model reads and writes."""

    tasks: TasksConfig
    """Where training and held-out tasks come from."""

    rollout: RolloutConfig
    """Engines and sampling."""

    budgets: BudgetsConfig
    """Efforts, their limits and mix, and length shaping."""

    rewards: RewardsConfig = RewardsConfig()
    """The verifier service."""

    prm: PrmSection = NoPrmConfig()
    """The process-reward service."""

    credit: CreditSection = GrpoCredit()
    """From scores to per-token advantages."""

    loss: LossConfig = PpoClip()
    """The policy loss."""

    reference: ReferenceConfig | None = None
    """The frozen model of the loss's KL term; left out where the loss has none."""

    learner: LearnerConfig = LearnerConfig()
    """Optimizer, precision and processes of the learner."""

    sampling: SamplingSection = SamplingSection()
    """Which task comes next, and which groups may train."""

    buffer: BufferConfig = BufferConfig()
    """How far generation may run ahead of training."""

    mix: MixConfig = MixConfig()
    """What a step trains on besides its fresh samples."""

    loop: LoopConfig
    """Length and rhythm of training."""

    sft: SftConfig | None = None
    """Cold start on worked solutions before training; left out means none."""

    evaluate: EvaluateConfig = EvaluateConfig()
    """Held-out evaluation."""

    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    """Looks inside the model at intervals."""

    cluster: ClusterConfig = ClusterConfig()
    """The Ray that the services run in."""

    @model_validator(mode="before")
    @classmethod
    def _general_tasks_are_spelled_out(cls, tables: Any) -> Any:
        return general_tasks.spelled_out(tables)

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Self:
        placement_rules.check(self.cluster.placement, self.rollout, self.learner, self.buffer)
        _groups_have_a_signal(self)
        _signal_is_not_dropped(self)
        _surplus_can_be_carried(self)
        limits = {"rollout.max_model_len": self.rollout.max_model_len}
        if isinstance(self.model, ScratchModel):
            limits["model.max_positions"] = self.model.max_positions
        closes = self.rollout.thinking_cap == "engine"
        effort_rules.check(self.budgets, self.format, self.sft, limits=limits, engine_closes=closes)
        credit_rules.check(self.credit, self.prm)
        _reference_is_there_if_needed(self)
        _kl_is_paid(self)
        _exploration_is_paid(self)
        _loss_takes_the_credit(self)
        _enough_is_held_out(self)
        _samples_fit_a_micro_batch(self)
        mix_rules.check(self.mix, self.learner, self.loss, self.budgets)
        diagnostics_rules.check(self.diagnostics, self.tasks.held_out.num_tasks, self.learner)
        if isinstance(self.model, ScratchModel):
            _scratch_model_serves(self, self.model)
        return self

    def warnings(self) -> list[str]:
        """What will run, but probably not as wished: rule, value, remedy."""
        cores = self.cluster.num_cpus
        ranks, engines = self.learner, self.rollout
        found = []
        if (count := ranks.num_ranks * ranks.threads_per_rank) > cores and ranks.device == "cpu":
            found.append(
                f"learner.num_ranks x learner.threads_per_rank = {count} threads share cluster.num_cpus = {cores} "
                "cores and slow each other down; lower one of the two"
            )
        if (count := engines.num_engines * engines.threads_per_engine) > cores and engines.device == "cpu":
            found.append(
                f"rollout.num_engines x rollout.threads_per_engine = {count} threads share cluster.num_cpus = {cores} "
                "cores and slow each other down; lower one of the two"
            )
        if engines.dtype != ranks.dtype:
            found.append(
                f"rollout.dtype = {engines.dtype} and learner.dtype = {ranks.dtype} give a token different "
                f"probabilities; set them equal"
            )
        if engines.top_p < 1 or engines.top_k > 0:
            found.append(
                f"rollout.top_p = {engines.top_p} and top_k = {engines.top_k} sample from another distribution than "
                "the learner trains; 1.0 and 0 keep them equal"
            )
        covariance = getattr(self.loss, "covariance", None)
        if covariance is not None and covariance.type == "kl_cov" and ranks.num_optimizer_steps * ranks.epochs == 1:
            found.append(
                "loss.covariance.type = kl_cov penalises a distance that is zero until the second update of a batch, "
                "and learner.num_optimizer_steps and learner.epochs are 1; raise one, or use clip_cov"
            )
        if self.budgets.phases and self.budgets.phases[-1].until_step >= self.loop.num_steps:
            found.append(
                f"budgets.phases last until step {self.budgets.phases[-1].until_step} and loop.num_steps is "
                f"{self.loop.num_steps}, so the efforts' own weights are never used; lower until_step or train longer"
            )
        width = self.model.hidden_size if isinstance(self.model, ScratchModel) else None
        found += diagnostics_rules.doubts(self.diagnostics, num_steps=self.loop.num_steps, width=width)
        return found


# ------------------------------------------------------------------------------------------------ rules


def _groups_have_a_signal(config: RunConfig) -> None:
    size = config.rollout.group_size
    compares = not isinstance(config.credit, PluginSection) and config.credit.compares_siblings
    if compares and size < 2:
        raise ValueError(
            f"credit.type = {config.credit.type!r} compares the siblings of a group, so rollout.group_size must be at "
            f"least 2, got {size}; 8 is usual"
        )
    if compares and config.sampling.min_judged < 2:
        raise ValueError(
            f"credit.type = {config.credit.type!r} compares the siblings of a group, so sampling.min_judged must be at "
            f"least 2, got {config.sampling.min_judged}"
        )
    if config.sampling.min_judged > size:
        raise ValueError(
            f"sampling.min_judged = {config.sampling.min_judged} is more than rollout.group_size = {size}, so every "
            "group would be dropped; lower the first or raise the second"
        )
    if config.rollout.temperature == 0:
        raise ValueError(
            "rollout.temperature = 0 makes all siblings of a group equal, so no group has a signal; 1.0 is usual"
        )


def _signal_is_not_dropped(config: RunConfig) -> None:
    if isinstance(config.credit, PluginSection) or not config.credit.needs_equal_rewards:
        return
    if config.sampling.judge_on != "off":
        raise ValueError(
            f"credit.type = {config.credit.type!r} also learns from groups whose answers are all right or all wrong, "
            f"and sampling.judge_on = {config.sampling.judge_on!r} drops them; set sampling.judge_on = 'off'"
        )


def _surplus_can_be_carried(config: RunConfig) -> None:
    if config.sampling.surplus and config.buffer.max_lag == 0:
        raise ValueError(
            f"sampling.surplus = {config.sampling.surplus} carries finished groups over to the next step, where they "
            f"are one batch old, and buffer.max_lag = 0 forbids it; set buffer.max_lag >= 1 or surplus = 0"
        )


def _reference_is_there_if_needed(config: RunConfig) -> None:
    if config.loss.needs_reference and config.reference is None:
        raise ValueError(
            "loss.kl compares the policy with a reference model, and there is no [reference] section; add one, empty "
            "for the weights that training starts from, or leave loss.kl out"
        )
    if config.reference is not None and not config.loss.needs_reference:
        raise ValueError(
            f"[reference] (placement {config.reference.placement!r}) would load a model that nothing reads; give the "
            "loss a kl term, or leave the section out"
        )


def _kl_is_paid(config: RunConfig) -> None:
    if isinstance(config.credit, PluginSection) or config.loss.reward_kl_coefficient == 0:
        return
    if not config.credit.reads_final_reward:
        raise ValueError(
            f"loss.kl.placement = 'reward' adds to the final reward, which credit.type = {config.credit.type!r} does "
            "not read; use placement 'loss', or another estimator"
        )


def _exploration_is_paid(config: RunConfig) -> None:
    if (
        config.sampling.exploration is None
        or isinstance(config.credit, PluginSection)
        or config.credit.reads_final_reward
    ):
        return
    if not isinstance(config.credit, GdpoCredit):
        raise ValueError(
            f"sampling.exploration adds to the final reward, which credit.type = {config.credit.type!r} does not "
            "read; use another estimator, or leave the section out"
        )
    if "exploration" not in config.credit.weights:
        raise ValueError(
            "credit.type = 'gdpo' reads the components it gives a weight, and exploration has none; add "
            "credit.weights.exploration, or leave sampling.exploration out"
        )


def _loss_takes_the_credit(config: RunConfig) -> None:
    if isinstance(config.credit, PluginSection) or config.loss.takes_token_advantages:
        return
    if config.credit.gives_token_advantages(kl_in_reward=config.loss.reward_kl_coefficient > 0):
        raise ValueError(
            f"credit.type = {config.credit.type!r} as it is set gives each token an advantage of its own (a step term, "
            f"a discount, or a KL penalty at its token), and loss.type = {config.loss.type!r} takes one a sequence; "
            "use a token loss such as ppo_clip, or gspo with token = true, or leave that part of credit out"
        )


def _enough_is_held_out(config: RunConfig) -> None:
    wanted, held = config.evaluate.num_tasks, config.tasks.held_out.num_tasks
    if wanted is not None and wanted > held:
        raise ValueError(
            f"evaluate.num_tasks = {wanted} is more than tasks.held_out.num_tasks = {held}; lower the first or "
            f"raise the second"
        )


def _samples_fit_a_micro_batch(config: RunConfig) -> None:
    """A sample is never cut, and its first token is no target: L tokens take L - 1 positions of one forward pass."""
    room, longest = config.learner.micro_batch_tokens, config.rollout.max_model_len
    if longest is None and isinstance(config.model, ScratchModel):
        longest = config.model.max_positions
    if longest is not None and room < longest - 1:
        raise ValueError(
            f"learner.micro_batch_tokens = {room} cannot hold the longest sample, rollout.max_model_len {longest} - 1 "
            f"= {longest - 1} positions; raise the first or lower the second"
        )


def _scratch_model_serves(config: RunConfig, model: ScratchModel) -> None:
    head = model.hidden_size // model.num_heads
    if head not in ENGINE_HEAD_SIZES:
        raise ValueError(
            f"model.hidden_size / model.num_heads = {model.hidden_size} / {model.num_heads} = {head}, and the engine's "
            f"attention has kernels for head sizes {', '.join(map(str, ENGINE_HEAD_SIZES))} only; change one of the two"
        )
    longest = config.rollout.max_model_len
    if longest is not None and longest > model.max_positions:
        raise ValueError(
            f"rollout.max_model_len = {longest} is more than model.max_positions = {model.max_positions}; make them "
            f"equal"
        )
    marks = (*STRUCTURAL_TOKENS, *model.special_tokens)
    texts = {"format.thinking_open": config.format.thinking_open, "format.forced_close": config.format.close_text}
    for name, effort in config.budgets.efforts.items():
        texts |= {
            f"budgets.efforts.{name}.instruction": effort.instruction.replace(PLACE, "0123456789"),
            f"budgets.efforts.{name}.prefix": effort.prefix,
            f"budgets.efforts.{name}.forced_close": effort.forced_close,
        }
    for name, text in texts.items():
        rest = text
        for mark in marks:
            rest = rest.replace(mark, "")
        if foreign := sorted(set(rest) - set(model.characters)):
            raise ValueError(
                f"{name} = {text!r} has characters {foreign} outside the model's alphabet; add them to "
                "model.characters, or the whole mark to model.special_tokens"
            )
