"""Settings of learned step scorers: which model, how it reads a trajectory, and how it is served."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from prm.config import NewlineSplitter, Section, SplitterConfig


class _Served(Section):
    """What every learned scorer needs to be served."""

    splitter: SplitterConfig = NewlineSplitter()
    """Where the thinking text is cut into steps."""

    include_answer: bool = False
    """Score the answer text as a last step of its own."""

    max_tokens: Annotated[int, Field(ge=8)] = 4096
    """Longest sequence that is read; steps beyond it stay unscored and the scores say that they are truncated."""

    batch_tokens: Annotated[int, Field(ge=8)] = 8192
    """Token positions of one forward pass, padding included; all that waits is packed up to this bound."""

    num_actors: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that hold the model; a group goes to the one with the least to do."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model computes; cuda takes one GPU an actor."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations."""

    threads: PositiveInt = 1
    """CPU threads of one actor."""

    max_pending_groups: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Groups that may be waiting or in work; a further caller waits."""

    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds after which a group is given up: no step scores for its trajectories."""

    @model_validator(mode="after")
    def _a_sequence_fits(self) -> Self:
        if self.batch_tokens < self.max_tokens:
            raise ValueError(
                f"prm.batch_tokens = {self.batch_tokens} cannot hold one sequence of prm.max_tokens = "
                f"{self.max_tokens}; raise the first or lower the second"
            )
        return self


class ProbeConfig(Section):
    """A look, now and then, at whether a model that is trained online still finds first errors."""

    data: Annotated[str, Field(min_length=1)]
    """File of labelled solutions, in any format that `ponder prm eval` reads."""

    every: PositiveInt = 10
    """Updates from one look to the next; the first look is before the first update."""

    max_rows: PositiveInt = 200
    """Solutions that are scored, from the beginning of the file."""


class OnlineConfig(Section):
    """Training of the implicit model on the rollouts of the run, with their outcomes as labels."""

    order: Literal["after", "before"] = "after"
    """Whether a batch is trained on after its steps were scored (scores of the older model) or before."""

    lr: PositiveFloat = 1e-6
    """Learning rate of AdamW."""

    max_grad_norm: PositiveFloat = 10.0
    """Largest gradient norm; larger gradients are scaled down to it."""

    epochs: PositiveInt = 1
    """Passes over each batch, one optimizer step each."""

    probe: ProbeConfig | None = None
    """Score labelled solutions at intervals; left out: never."""


class ImplicitPrmConfig(_Served):
    """Log-ratio of two language models: a step is worth what it adds. Trained on outcomes alone."""

    type: Literal["implicit"] = "implicit"
    """Selects the implicit model."""

    path: str | None = None
    """Model directory; left out: the model that reinforcement learning starts from."""

    reference: str | None = None
    """Model directory of the denominator; left out: the model that reinforcement learning starts from."""

    beta: PositiveFloat = 0.05
    """Scale of the log-ratio."""

    granularity: Literal["step", "token"] = "step"
    """One score a step, or one a sampled token (each token is then a span of its own)."""

    kind: Literal["logratio", "q"] = "logratio"
    """What a score is: the increment of a span, or the cumulative value at its end."""

    online: OnlineConfig | None = None
    """Train on each batch of rollouts; left out: frozen."""

    @model_validator(mode="after")
    def _one_trained_model(self) -> Self:
        if self.online is not None and self.num_actors != 1:
            raise ValueError(f"a model that is trained online lives in one actor, got prm.num_actors {self.num_actors}")
        if self.online is None and self.path is None:
            raise ValueError(
                "a frozen implicit model that is its own reference scores 0 everywhere; set prm.path to a trained one, "
                "or add [prm.online]"
            )
        return self


class _StepHeadConfig(_Served):
    path: Annotated[str, Field(min_length=1)]
    """Model directory, as `ponder prm train` writes it."""

    input: Literal["tokens", "chat"] = "tokens"
    """Read the policy's own tokens (one vocabulary), or the text through this model's chat template and separator."""

    system: str = ""
    """With input = "chat": the system message, if any."""


class DiscriminativePrmConfig(_StepHeadConfig):
    """A language model with a classifier at the end of each step."""

    type: Literal["discriminative"] = "discriminative"
    """Selects the classifier."""

    engine: Literal["torch", "vllm"] = "torch"
    """What computes: our own packed forward passes, or vLLM as a pooling model (Qwen2 with two classes alone)."""

    kv_cache_gib: PositiveFloat = 1.0
    """With vllm: memory of its cache, which holds the sequences in work."""


class ValuePrmConfig(_StepHeadConfig):
    """A language model with a scalar head at the end of each step: how likely is success from here."""

    type: Literal["value"] = "value"
    """Selects the value model."""


class GenerativePrmConfig(Section):
    """A chat model that reads one step after the other."""

    type: Literal["generative"] = "generative"
    """Selects the chat model."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] = "http://127.0.0.1:8000/v1"
    """Where an OpenAI-compatible service answers, up to but without `/chat/completions`."""

    model: Annotated[str, Field(min_length=1)]
    """Name of the model, as the service knows it."""

    api_key_variable: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """Name of the environment variable that holds the key; empty sends none."""

    splitter: SplitterConfig = NewlineSplitter()
    """Where the thinking text is cut into steps."""

    include_answer: bool = False
    """Score the answer text as a last step of its own."""

    votes: Annotated[int, Field(ge=1, le=64)] = 1
    """Replies asked for about each step; the score is the share that says right."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature; several votes need one above 0."""

    max_reply_tokens: Annotated[int, Field(ge=16, le=65_536)] = 1024
    """Longest reply."""

    stops_at_error: bool = True
    """Leave the steps after the first wrong one unscored, which saves their replies."""

    max_pending_groups: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Groups that may be in work; a further caller waits."""

    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Seconds after which a group is given up: no step scores for its trajectories."""

    @model_validator(mode="after")
    def _votes_differ(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"{self.votes} votes at temperature 0 are one vote: set a temperature above 0, or 1 vote")
        return self


LearnedPrmConfig = Annotated[
    ImplicitPrmConfig | DiscriminativePrmConfig | ValuePrmConfig | GenerativePrmConfig, Field(discriminator="type")
]
