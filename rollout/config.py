"""Settings of generation and of tasks. Imports pydantic only."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Text = Annotated[str, Field(min_length=1)]
MAX_GENERATED = 2**24  # tasks of one generated source; seeds of different sources are further apart


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


# ------------------------------------------------------------------------------------------------ generation


class FormatConfig(_Settings):
    """How thinking is marked off from the answer in a response, and how a prompt is written."""

    has_thinking: bool = True
    """Whether responses mark their thinking at all; without it the whole response is the answer."""
    thinking_open: Text = "<think>"
    """Text that opens the thinking; exact and cheap to detect where it is one token of the tokenizer."""
    thinking_close: Text = "</think>"
    """Text that closes the thinking; what follows it is the answer."""
    prefill_thinking: bool = False
    """Whether the prompt ends with the opening mark, so that every response starts inside the thinking."""
    forced_close: str = ""
    """Text put in when the thinking cap is reached; empty means the closing mark alone."""
    answer_close: str = ""
    """Text that ends a response once its answer holds it, such as </answer>; empty means none."""
    use_chat_template: bool = True
    """Whether to write prompts with the model's chat template if it has one, or to concatenate the messages."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.thinking_open in self.thinking_close or self.thinking_close in self.thinking_open:
            raise ValueError(
                f"thinking_open and thinking_close must not contain each other, "
                f"got {self.thinking_open!r} and {self.thinking_close!r}; choose two distinct marks"
            )
        if self.forced_close and self.forced_close.count(self.thinking_close) != 1:
            raise ValueError(
                f"forced_close must contain thinking_close {self.thinking_close!r} exactly once, got "
                f"{self.forced_close!r}; add the mark, or leave forced_close empty to use the mark alone"
            )
        return self

    @property
    def close_text(self) -> str:
        """What is put in when the thinking cap is reached."""
        return self.forced_close or self.thinking_close


class RolloutConfig(_Settings):
    """The engines that generate, and how they sample."""

    num_engines: PositiveInt = 1
    """Engines, each a process with its own copy of the model."""
    group_size: PositiveInt = 8
    """Siblings of a training group: attempts at one task."""
    temperature: NonNegativeFloat = 1.0
    """Sampling temperature of training jobs; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability mass that sampling keeps; anything below 1 makes sampled and learned distributions differ."""
    top_k: NonNegativeInt = 0
    """Number of most likely tokens that sampling keeps; 0 keeps all."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where an engine computes; cuda takes `tensor_parallel` GPUs an engine."""
    tensor_parallel: PositiveInt = 1
    """GPUs that one engine splits each matrix over."""
    dtype: Literal["bfloat16", "float16", "float32"] = "float32"
    """Precision of an engine's weights and activations."""
    max_num_seqs: PositiveInt = 128
    """Most sequences that one engine decodes at a time; the others wait in its queue."""
    max_num_batched_tokens: PositiveInt | None = None
    """Most tokens in one engine step; None leaves it to the engine."""
    max_model_len: PositiveInt | None = None
    """Longest sequence, prompt and response together; None takes the model's own limit."""
    kv_cache_gib: PositiveFloat = 1.0
    """Memory for keys and values in each engine, in GiB; on GPUs, in each GPU of an engine."""
    block_size: PositiveInt | None = None
    """Tokens of a block of that memory; only whole blocks of a prefix are shared. None leaves it to the engine, which
    takes 128 on a CPU, so that short prefixes are computed again; there it must be a multiple of 32."""
    enforce_eager: bool = True
    """Whether to run without graph compilation, which starts faster and on a GPU decodes slower."""
    threads_per_engine: PositiveInt = 1
    """CPU threads of one engine."""
    thinking_cap: Literal["two_phase", "engine"] = "two_phase"
    """Who closes a thinking that reaches its cap: we, between two requests, or the engine, within one."""
    in_flight: Literal["recompute", "keep"] = "recompute"
    """What a response that a publish finds unfinished goes on from: its tokens, read again by the new weights, or the
    keys and values that the old weights made, which is faster and no model's distribution."""
    start_timeout_s: PositiveFloat = 300.0
    """Longest an engine may take to start."""
    max_restarts: NonNegativeInt = 3
    """Deaths of engines in a run after which the engine is started again, while another one goes on."""
    call_timeout_s: PositiveFloat = 900.0
    """Longest one call of an engine may take, a generation with its time in the engine's queue included."""


# ------------------------------------------------------------------------------------------------ tasks


class Columns(_Settings):
    """Which column of a data set holds what."""

    prompt: Text = "prompt"
    """Column of the question: text, or a list of messages with role and content."""
    answer: Text = "answer"
    """Column of the reference answer."""
    skills: str | None = None
    """Column of the skill labels: text, or a list of texts."""
    meta: tuple[Text, ...] = ()
    """Columns kept with the task for its verifier and the reports."""
    split_key: str | None = None
    """Column whose equal values must stay on one side of the train and held-out split; None uses the content."""


class SolutionConfig(_Settings):
    """Worked solutions that come with the tasks, cut to a length per effort: the material of a cold start."""

    field: Text
    """What holds the solution as text: a column of the rows, or an entry of a reasoning-gym item's metadata, such as
    answer_cot of gsm_symbolic."""
    mark: Text = "####"
    """What stands between the steps and the final answer in that text."""
    efforts: Annotated[dict[Text, Literal["whole", "calculations", "nothing"]], Field(min_length=1)] = {
        "high": "whole",
        "medium": "calculations",
        "low": "nothing",
    }
    """How much of the steps each effort is shown: all, the calculations alone, or none."""


class _TableSource(_Settings):
    """What files and data sets have in common: rows with columns."""

    columns: Columns = Columns()
    """Which column holds what."""
    verifier: Text = "math"
    """Registered name of the verifier that judges answers to these tasks."""
    system: str = ""
    """System message put before every prompt; empty for none."""
    prompt_template: str = "{prompt}"
    """Text of the user message, with {prompt} where the question goes."""
    answer_pattern: str | None = None
    """Regular expression whose first group is the answer inside the answer column, such as '####\\s*(.+)' for GSM8K."""
    solutions: SolutionConfig | None = None
    """Where the rows' worked solutions are; without it there is no cold start. Rows whose solution does not arrive at
    their answer are left out."""
    limit: PositiveInt | None = None
    """Most tasks taken; None takes all."""

    @field_validator("prompt_template")
    @classmethod
    def _has_place(cls, value: str) -> str:
        if value.count("{prompt}") != 1:
            raise ValueError(f"prompt_template must contain {{prompt}} exactly once, got {value!r}")
        return value

    @field_validator("answer_pattern")
    @classmethod
    def _has_group(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"answer_pattern must be a regular expression, got {value!r}: {error}") from error
        if groups != 1:
            raise ValueError(f"answer_pattern must have exactly one group around the answer, got {groups} in {value!r}")
        return value


class FilesSource(_TableSource):
    """Tasks in files of rows."""

    type: Literal["files"] = "files"
    paths: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Files ending in .jsonl, .json, .parquet or .csv; patterns such as data/*.jsonl are expanded in sorted order."""


class HuggingFaceSource(_TableSource):
    """Tasks in a Hugging Face data set."""

    type: Literal["huggingface"] = "huggingface"
    path: Text
    """Name of a data set on the hub, or a directory: one written by save_to_disk, or one with data files."""
    name: str | None = None
    """Configuration of the data set; None for its only or default one."""
    split: Text = "train"
    """Split to read."""


class ReasoningGymSource(_Settings):
    """Tasks from a reasoning-gym family, judged by the family's own scorer."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    family: Text
    """Name of the family, such as chain_sum."""
    num_tasks: Annotated[int, Field(ge=1, le=MAX_GENERATED)]
    """Tasks to generate."""
    params: dict[str, Any] = {}
    """Settings of the family, such as min_terms."""
    system: str = ""
    """System message put before every prompt; empty for none."""
    solutions: SolutionConfig | None = None
    """Where the family's worked solutions are, for families that write them; without it there is no cold start. Items
    whose solution does not arrive at their answer are left out."""


class ProceduralSource(_Settings):
    """Tasks from a registered generator."""

    type: Literal["procedural"] = "procedural"
    name: Text
    """Registered name of the generator."""
    num_tasks: Annotated[int, Field(ge=1, le=MAX_GENERATED)]
    """Tasks to generate."""
    params: dict[str, Any] = {}
    """Keyword arguments of the generator."""


PlainTaskSource = Annotated[
    FilesSource | HuggingFaceSource | ReasoningGymSource | ProceduralSource, Field(discriminator="type")
]


class MixtureSource(_Settings):
    """Several sources, each under a name of its own, by which quotas, re-weighting and metrics tell them apart."""

    type: Literal["mixture"]
    """Selects several sources."""
    sources: Annotated[dict[Text, PlainTaskSource], Field(min_length=2)]
    """The sources by name. Their sizes are their shares, unless a sampler of type `quotas` says otherwise."""


TaskSource = Annotated[
    FilesSource | HuggingFaceSource | ReasoningGymSource | ProceduralSource | MixtureSource, Field(discriminator="type")
]


class HeldOut(_Settings):
    """The tasks that are never trained on."""

    num_tasks: PositiveInt = 300
    """Held-out tasks."""
    source: PlainTaskSource | None = None
    """Where they come from; None takes them out of the training source, of every part of a mixture."""


class DecontaminateConfig(_Settings):
    """Leave out training tasks that repeat an evaluation task."""

    against: tuple[FilesSource, ...] = ()
    """Evaluation sets besides the held-out tasks, which always count."""
    ngram: PositiveInt = 13
    """Words, numbers and operators in a row that are compared; shorter questions are compared whole."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the shorter question's n-grams in the other from which a task is left out."""


class GeneralTasks(_Settings):
    """Tasks of other domains, mixed in so that what the model can do there is kept (general-capability replay)."""

    sources: Annotated[dict[Text, PlainTaskSource], Field(min_length=1)]
    """The other domains by name."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the groups that are theirs, the same for each of them."""
    learn: Literal["rl", "sft"] = "rl"
    """Whether they are learned from their rewards, or from their worked solutions."""
    reweight: bool = True
    """Weigh all domains by how their rewards move (mix.reweight), so that what gets worse weighs more."""


class TasksConfig(_Settings):
    """What is trained on and what is held out."""

    train: TaskSource
    """Where training tasks come from."""
    held_out: HeldOut = HeldOut()
    """The tasks that are never trained on, disjoint from training by split key."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of generated tasks and of the split; None takes run.seed. Runs that share a cold start share it."""
    decontaminate: DecontaminateConfig | None = None
    """Leave out training tasks that repeat an evaluation task; none compares split keys only."""

    general: GeneralTasks | None = None
    """Other domains that are kept; resolved into a mixture, shares of a sampler, and sections of `mix`."""

    def plain_sources(self) -> list[PlainTaskSource]:
        """Every source of tasks, those in mixtures too."""
        train = self.train.sources.values() if isinstance(self.train, MixtureSource) else [self.train]
        return [source for source in (*train, self.held_out.source) if source is not None]

    def seed_in(self, run_seed: int) -> int:
        """The seed of generated tasks and of the split in a run of this seed."""
        return run_seed if self.seed is None else self.seed
