"""One rank of the learner: DeepSpeed around a model. The only file that knows DeepSpeed.

Every method that a comment calls collective must be entered by all ranks, in the same order.

Gradients: a micro-batch contributes `sum of weighted token losses / normalizer`, where the normalizer already counts
the whole optimizer step, all ranks and all micro-batches. So contributions are to be added. DeepSpeed averages over
ranks instead; `_backward` undoes that, and nothing else scales anything. `managed_gradient_accumulation` is off: the
number of micro-batches differs from step to step, and `step()` is where accumulation ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch

from rl.diagnostics.geometry import geometry, last_states
from rl.diagnostics.gradient_cosine import cosine_of_gradients
from rl.diagnostics.gradient_probe import attention_matrices, probe_gradients
from rl.learner.collectives import gather_names, gather_rows, sum_over_ranks
from rl.learner.config import Layout, LearnerConfig
from rl.learner.dump import dump_name, dump_step
from rl.learner.errors import NonFiniteError
from rl.learner.export import Exporter
from rl.learner.forward import TokenScorer
from rl.learner.lora import add_adapters, save_adapter
from rl.learner.micro_batch import DeviceBatch, probe_batch, to_device
from rl.learner.model import has_varlen_kernel, load_model, save_model
from rl.learner.optimizer import build_optimizer
from rl.learner.result import RankInfo, RankResult
from rl.learner.schedule import learning_rate
from rl.learner.zero import deepspeed_config
from rl.losses.config import LossConfig
from rl.losses.contract import LossFunction
from rl.losses.estimator_config import StreamEstimators
from rl.losses.objective import Objective
from rl.packing import MicroBatch, PackedBatch, PackedStep
from rollout.schema import Float32Array

COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # the longest one rank may wait for another
MAX_NAMED = 8  # samples listed in an error
TAG = "engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the ranks meet."""

    rank: int
    num_ranks: int
    address: str  # "tcp://host:port" of rank 0


class LearnerEngine:
    """Weights, optimizer and version of one rank."""

    def __init__(
        self,
        config: LearnerConfig,
        loss: LossConfig,
        model_dir: str,
        rendezvous: Rendezvous,
        *,
        temperature: float,
        seed: int,
        total_steps: int,
        dump_dir: str,
        load_loss: Callable[[], LossFunction] | None = None,
        streams: StreamEstimators | None = None,
    ) -> None:
        """Load the model and split it over the ranks. Collective.

        Args:
            streams: how samples that are not fresh are trained on; None takes the defaults.
            dump_dir: where a batch goes that gave a non-finite loss or gradient.
            load_loss: gives the function of a plugin loss.
            temperature: sampling temperature; log-probabilities are computed after it, as the engine reports them.
            total_steps: optimizer steps of the whole run, for the learning-rate schedule.
        """
        torch.set_num_threads(config.threads_per_rank)
        torch.manual_seed(seed)
        self.version = 0
        self._is_spoiled = False
        self._config = config
        function = None if load_loss is None else load_loss()
        self._make_objective = partial(Objective, loss, function, streams)
        self._objective = self._make_objective()
        self._model_dir = model_dir
        self._rendezvous = rendezvous
        self._total_steps = total_steps
        self._dump_dir = Path(dump_dir)
        self._varlen = config.layout != "buckets" and has_varlen_kernel(config)
        _join(rendezvous, config.device)
        self._hf_model = load_model(model_dir, config)
        self._num_parameters = sum(p.numel() for p in self._hf_model.parameters())
        if config.lora is not None:
            add_adapters(self._hf_model, config.lora, seed=seed)
        whole = partial(deepspeed.zero.GatheredParameters, enabled=config.zero_stage == 3)
        self._exporter = Exporter(self._hf_model, rank=rendezvous.rank, whole=whole)
        self._optimizer = build_optimizer(self._hf_model, config)
        num_trainable = sum(p.numel() for p in self._hf_model.parameters() if p.requires_grad)
        self._engine, *_ = deepspeed.initialize(
            model=TokenScorer(self._hf_model, temperature=temperature, max_logit_mib=config.max_logit_mib),
            optimizer=self._optimizer,
            config=deepspeed_config(config, num_trainable),
        )
        self._device = self._engine.device

    def info(self) -> RankInfo:
        auto: Layout = "packed" if self._varlen else "buckets"
        return RankInfo(
            layout=auto if self._config.layout == "auto" else self._config.layout,
            row_tokens=self._config.micro_batch_tokens if self._varlen else None,
            num_parameters=self._num_parameters,
            num_chunks=self._exporter.num_chunks,
        )

    # -------------------------------------------------------------------------------------------- training

    def train(self, batch: PackedBatch) -> RankResult:
        """One optimizer step per step of the batch, `epochs` times over. Collective.

        Raises:
            NonFiniteError: on every rank, before the update that would have used the value. Half a step of gradients is
                left behind, so the engine can be exported and saved, but not trained any more.
        """
        if self._is_spoiled:
            raise RuntimeError("the learner stopped at a non-finite value; load a checkpoint into a new one to go on")
        result = RankResult(version=self.version)
        self._is_spoiled = True
        steps = [[self._to_device(m) for m in step.ranks[self._rendezvous.rank]] for step in batch.steps]
        # All is anchored to the weights before the first update. The very first step's anchor is its own forward.
        anchors: list[list[torch.Tensor | None]] = [[None] * len(steps[0])]
        with result.span("anchor"):
            for later in steps[1:]:
                anchors.append([self._score_quietly(m)[0] if self._objective.needs_anchor else None for m in later])
        for _ in range(self._config.epochs):
            for packed, micro_batches, anchor in zip(batch.steps, steps, anchors, strict=True):
                self._train_step(packed, micro_batches, anchor, batch.names, result)
        self._is_spoiled = False
        result.version = self.version
        return result

    def _train_step(
        self,
        packed: PackedStep,
        micro_batches: list[DeviceBatch],
        anchors: list[torch.Tensor | None],
        names: tuple[str, ...],
        result: RankResult,
    ) -> None:
        """Accumulate and update. An anchor that is None becomes the log-probabilities of this pass."""
        result.lr = learning_rate(self._config, self.version, self._total_steps)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = result.lr
        bad: list[int] = []
        result.losses.append(0.0)
        with result.span("select"):
            selected = self._select(micro_batches)
        for index, (micro_batch, chosen) in enumerate(zip(micro_batches, selected, strict=True)):
            with result.span("forward and backward"):
                segments, anchors[index] = self._accumulate(micro_batch, anchors[index], chosen, packed, result)
            bad += segments
        bad_names = gather_names([names[i] for i in bad], self._rendezvous.num_ranks)
        if bad_names:
            raise self._refusal(packed, names, f"non-finite loss in {_listed(bad_names)}", bad_names)
        try:
            with result.span("optimizer"):
                self._engine.step()
        except NonFiniteError as error:
            raise self._refusal(packed, names, f"{error}, with a finite loss", []) from None
        if not self._engine.was_step_applied():
            raise self._refusal(packed, names, "non-finite gradient norm, with a finite loss", [])
        self._objective.end_step(partial(sum_over_ranks, num_ranks=self._rendezvous.num_ranks))
        self.version += 1
        stage_0_norm = self._optimizer.grad_norm
        result.grad_norms.append(float(self._engine.get_global_grad_norm() if stage_0_norm is None else stage_0_norm))

    def _select(self, micro_batches: list[DeviceBatch]) -> list[torch.Tensor | None]:
        """Tokens that the loss chooses over the whole step, with one more forward pass where it does."""
        if not self._objective.needs_selection:
            return [None] * len(micro_batches)
        scored = [m.scored(*self._score_quietly(m)) for m in micro_batches]
        gather = partial(gather_rows, num_ranks=self._rendezvous.num_ranks)
        return list(self._objective.select(scored, gather, salt=self.version))

    def _accumulate(
        self,
        micro_batch: DeviceBatch,
        anchor: torch.Tensor | None,
        selected: torch.Tensor | None,
        packed: PackedStep,
        result: RankResult,
    ) -> tuple[list[int], torch.Tensor]:
        """Forward and backward of one micro-batch; adds its metrics.

        Returns:
            The segments with a non-finite value, and the anchor that was used.
        """
        learner, entropies = self._engine(
            *micro_batch.tokens,
            attention=micro_batch.attention,
            entropy_gradient=self._objective.needs_entropy_gradient,
        )
        anchor = learner.detach() if anchor is None else anchor
        output = self._objective(micro_batch.loss_inputs(learner, entropies, anchor, selected, packed))
        if not bool(torch.isfinite(output.loss)):
            # No backward pass: the other ranks still need their collectives, so a zero of the whole graph goes instead.
            self._backward((torch.nan_to_num(learner).sum() + torch.nan_to_num(entropies).sum()) * 0.0)
            return micro_batch.non_finite(learner.detach()), anchor
        self._backward(output.loss)
        result.losses[-1] += float(output.loss.detach())
        _add(result.sums, output.sums)
        for name, value in output.maxima.items():
            result.maxima[name] = max(result.maxima.get(name, -np.inf), float(value))
        result.drift |= micro_batch.drift(anchor)
        return [], anchor

    def _backward(self, loss: torch.Tensor) -> None:
        """THE place where DeepSpeed's mean over ranks is undone: loss shares add up over ranks, they do not average."""
        self._engine.backward(loss * self._rendezvous.num_ranks, scale_wrt_gas=False)

    def _score_quietly(
        self, micro_batch: DeviceBatch, temperature: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies without a graph. Collective with ZeRO-3."""
        with torch.no_grad():
            logprobs, entropies = self._engine(
                *micro_batch.tokens, attention=micro_batch.attention, temperature=temperature
            )
        return logprobs, entropies

    def _to_device(self, micro_batch: MicroBatch) -> DeviceBatch:
        return to_device(micro_batch, self._device, varlen=self._varlen)

    def _refusal(self, packed: PackedStep, names: tuple[str, ...], what: str, blamed: list[str]) -> NonFiniteError:
        """The error of a step that was not applied; its batch is written down first."""
        step = self.version + 1
        error = f"optimizer step {step} ({packed.num_loss_tokens} loss tokens) was not applied: {what}"
        path = self._dump_dir / dump_name(step)
        if self._rendezvous.rank == 0:
            dump_step(path, packed, names, step=step, error=error, blamed=blamed)
        return NonFiniteError(f"{error}; the batch is in {path}")

    def adopt(self, config: LearnerConfig, loss: LossConfig, temperature: float) -> None:
        """Learning rate, weights of the loss's terms and temperature from the next step on."""
        self._config = config
        self._objective.adopt(loss)
        self._engine.module.temperature = temperature

    # -------------------------------------------------------------------------------------------- publishing

    def export_chunk(self, index: int) -> list[tuple[str, torch.Tensor]]:
        """Full weights of one chunk, on the CPU, by Hugging Face name; empty on all ranks but the first. Collective."""
        return self._exporter.chunk(index)

    @property
    def exporter(self) -> Exporter:
        return self._exporter

    def checksums(self) -> dict[str, str]:
        """Digest of every exported tensor. Collective; empty on all ranks but the first."""
        return self._exporter.checksums()

    def probe(self, token_ids: list[list[int]]) -> list[Float32Array]:
        """Per sequence, [L] log-probability of each token given its prefix, at temperature 1. Collective with ZeRO-3.

        The first token has no prefix; its entry is 0.
        """
        batch = to_device(probe_batch(token_ids), self._device, varlen=False)
        scored = self._score_quietly(batch, temperature=1.0)[0].cpu().numpy()
        return [np.append(np.float32(0), scored[row, : len(ids) - 1]) for row, ids in enumerate(token_ids)]

    # -------------------------------------------------------------------------------------------- diagnostics

    def geometry(self, prompts: list[list[int]]) -> dict[str, float]:
        """Metrics of the hidden states at the end of each prompt. Collective with ZeRO-3."""
        max_tokens = self._config.micro_batch_tokens
        return geometry(last_states(self._hf_model.base_model, prompts, device=self._device, max_tokens=max_tokens))

    def layer_gradients(self, samples: Sequence[MicroBatch]) -> dict[str, float]:
        """Metrics of the gradients of single samples, one a micro-batch. Not with ZeRO-3, which splits every matrix."""
        if self._config.zero_stage == 3:
            raise ValueError("layer gradients need whole matrices, and learner.zero_stage = 3 splits them; use 2")
        return probe_gradients(attention_matrices(self._hf_model), self._sample_losses(samples))

    def gradient_cosine(self, some: PackedBatch, others: PackedBatch) -> float:
        """Cosine of the gradients of the recipe's loss on two batches. On one rank alone, and not with ZeRO-3."""
        if self._config.zero_stage == 3:
            raise ValueError("a gradient cosine needs whole matrices, and learner.zero_stage = 3 splits them; use 2")
        parameters = [p for p in self._hf_model.parameters() if p.requires_grad]
        return cosine_of_gradients(parameters, [self._losses(batch) for batch in (some, others)])

    def _losses(self, batch: PackedBatch) -> Iterator[torch.Tensor]:
        """The shares of the loss, anchored to the weights as they are; a new objective, so that nothing is counted."""
        objective, packed = self._make_objective(), batch.steps[0]
        for micro_batch in map(self._to_device, packed.ranks[0]):
            learner, entropies = self._engine.module(*micro_batch.tokens, attention=micro_batch.attention)
            yield objective(micro_batch.loss_inputs(learner, entropies, learner.detach(), None, packed)).loss

    def _sample_losses(self, samples: Sequence[MicroBatch]) -> Iterator[tuple[torch.Tensor, float]]:
        """Mean negative log-probability and mean advantage of each sample, over its loss tokens."""
        for sample in map(self._to_device, samples):
            # Past DeepSpeed's wrapper: this forward pass is none of a training step.
            logprobs = self._engine.module(*sample.tokens, attention=sample.attention)[0]
            yield -logprobs[sample.loss_mask].mean(), float(sample.advantages[sample.loss_mask].mean())

    # -------------------------------------------------------------------------------------------- checkpoints

    def save_model(self, out_dir: str) -> None:
        """Write the weights as a Hugging Face model directory. Collective."""
        weights = dict(self._exporter.all())
        if self._rendezvous.rank == 0:
            save_model(self._hf_model, weights, self._model_dir, out_dir)

    def save(self, path: str) -> None:
        """Write `path/model` and all it takes to go on bit-identically: optimizer, version, RNG. Collective.

        With LoRA, `path/model` holds the merged weights and `path/adapter` the adapter alone, as peft reads it.
        """
        root = Path(path)
        self.save_model(str(root / "model"))
        if self._config.lora is not None:
            adapters = self._exporter.adapters()
            if self._rendezvous.rank == 0:
                save_adapter(self._hf_model, adapters, str(root / "adapter"))
        self._engine.save_checkpoint(str(root), tag=TAG)
        torch.save(torch.get_rng_state(), root / f"rng_{self._rendezvous.rank}.pt")
        if self._rendezvous.rank == 0:
            objective = self._objective.coefficients.state()
            saved = {"version": self.version, "objective": objective, **self._shape()}
            (root / "learner.json").write_text(json.dumps(saved))

    def load(self, path: str) -> None:
        """Restore what `save` wrote. Collective.

        Raises:
            ValueError: not a learner checkpoint, or written with another split over ranks or precision.
        """
        root = Path(path)
        if not (root / "learner.json").is_file():
            raise ValueError(f"{path!r} is no learner checkpoint: it has no learner.json")
        saved = json.loads((root / "learner.json").read_text())
        version, objective = saved.pop("version"), saved.pop("objective")
        if saved != self._shape():
            raise ValueError(
                f"the checkpoint was written with {saved}, this run has {self._shape()}; use the same settings"
            )
        self._engine.load_checkpoint(str(root), tag=TAG)
        torch.set_rng_state(torch.load(root / f"rng_{self._rendezvous.rank}.pt"))
        self._objective.coefficients.load(objective)
        self.version = version

    def _shape(self) -> dict[str, Any]:
        """Settings that decide what the optimizer state holds and how it is cut into files."""
        return self._config.model_dump(mode="json", include={"num_ranks", "zero_stage", "dtype", "lora"})


def _join(rendezvous: Rendezvous, device: str) -> None:
    backend = "nccl" if device == "cuda" else "gloo"
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed's own registry of optional kernels. This one, a shared-memory all-reduce for CPU ranks, would be
    # compiled on first use: 40 s, and a crash on a machine without a C++ compiler. gloo does the same work.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend=backend,
        auto_mpi_discovery=False,
        verbose=False,
        timeout=COLLECTIVE_TIMEOUT,
        init_method=rendezvous.address,
        rank=rendezvous.rank,
        world_size=rendezvous.num_ranks,
    )


def _add(totals: dict[str, float], values: Mapping[str, torch.Tensor]) -> None:
    for name, value in zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True):
        totals[name] = totals.get(name, 0.0) + value


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
