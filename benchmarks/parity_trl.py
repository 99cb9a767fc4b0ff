"""Do our losses and TRL's give the same number and the same gradient on the same data?

TRL computes with its own code, from end to end: a real GRPOTrainer (or RLOOTrainer) is built around a small model with
random weights, is handed finished completions and rewards, and makes advantages, importance weights, reference
log-probabilities, loss and gradient itself. We compute with what the learner uses: credit, packing, the token scorer
and the objective, cut into several micro-batches. The weights are moved by a random step before either loss is taken,
so that the ratios are not 1. Short completions are rewarded, so that the loss is not a difference of equal numbers.
Compared: the loss, and the gradient for every parameter of the model, in float32.

`max_rel_diff_grad` is the largest norm of a difference over the norm of the gradient, over parameters and cases.
`max_rel_diff_loss` is the largest difference over the summed sizes of the micro-batches' shares: a loss is a sum of
shares of both signs, and rounding goes with their size, not with what is left when they cancel.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from parity_trl_cases import CASES, LENGTH, Case
from result import arguments, finish
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rl.batch import TrainingSample
from rl.credit.batch_scaled import batch_scaled_advantages
from rl.credit.dr_grpo import dr_grpo_advantages
from rl.credit.grpo import grpo_advantages
from rl.credit.kl_penalty import kl_rewards
from rl.credit.rloo import rloo_advantages
from rl.learner.config import ScratchModel
from rl.learner.forward import TokenScorer
from rl.learner.micro_batch import DeviceBatch, to_device
from rl.learner.scratch import build_model
from rl.losses.contract import LossInputs
from rl.losses.objective import Objective
from rl.packing import pack
from rollout.schema import PolicySpan

SPEC = ScratchModel(hidden_size=64, num_layers=2, intermediate_size=128, num_heads=2, initializer_range=0.1)
GROUP_SIZE = 4
TEMPERATURE = 0.9
Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Finished completions of a few groups, as both sides are given them."""

    prompts: list[list[int]]
    completions: list[list[int]]
    noise: list[list[float]]  # sampler log-probability minus the model's own
    rewards: list[float]
    max_length: int


def make_data(num_groups: int, *, longest: int, seed: int) -> Data:
    """Prompts and completions of mixed lengths, rewards without ties, and what the sampler's numbers are off by."""
    rng = np.random.default_rng(seed)
    low, high = 8, SPEC.vocab_size  # no structural token: TRL reads meaning into them
    prompts = [rng.integers(low, high, rng.integers(3, 8)).tolist() for _ in range(num_groups)]
    lengths = rng.integers(4, longest + 1, num_groups * GROUP_SIZE)
    lengths[0] = longest
    return Data(
        prompts=[p for p in prompts for _ in range(GROUP_SIZE)],
        completions=[rng.integers(low, high, n).tolist() for n in lengths],
        noise=[rng.normal(0, 0.05, n).tolist() for n in lengths],
        rewards=(1 - lengths / longest + rng.normal(0, 0.2, lengths.size)).astype(np.float32).tolist(),
        max_length=longest,
    )


def moved(model: PreTrainedModel, *, seed: int, scale: float) -> None:
    """A random step in place, the same for every copy of the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def relative(ours: Gradients, theirs: Gradients) -> float:
    """Largest relative difference over the parameters."""
    assert ours.keys() == theirs.keys(), "the two sides must have the same parameters"
    return max(float((ours[n] - theirs[n]).norm() / theirs[n].norm()) for n in theirs)


# ------------------------------------------------------------------------------------------------ TRL


def trl_loss(case: Case, model_dir: str, data: Data, sampler: list[list[float]]) -> tuple[float, Gradients]:
    """Loss and gradients by TRL's own trainer."""
    with tempfile.TemporaryDirectory() as out_dir:
        trainer = _trainer(case, model_dir, data, sampler, out_dir)
        model = trainer.model
        model.train()
        if trainer.ref_model is not None:
            moved(trainer.ref_model, seed=2, scale=0.01)
        rows = [{"prompt": "1", "reward": reward} for reward in data.rewards]
        if case.uses_sampler:  # only now: earlier it would start an engine, whose part our finished completions play
            trainer.use_vllm = True
            trainer._last_loaded_step = trainer.state.global_step
        trainer.current_gradient_accumulation_steps = 1
        inputs = trainer._generate_and_score_completions(rows)
        moved(model, seed=1, scale=case.step)
        loss = trainer._compute_loss(model, inputs)
        loss.backward()
        return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}


def _trainer(case: Case, model_dir: str, data: Data, sampler: list[list[float]], out_dir: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    options: dict[str, Any] = {
        "output_dir": out_dir,
        "per_device_train_batch_size": len(data.rewards),
        "num_generations": GROUP_SIZE,
        "num_iterations": 2,  # so that the log-probabilities before the step are computed and kept
        "max_completion_length": data.max_length,
        "temperature": TEMPERATURE,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_dropout": True,
        **case.trl,
    }
    common: dict[str, Any] = {
        "model": AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32),
        "reward_funcs": lambda completions, reward, **_: reward,
        "train_dataset": Dataset.from_list([{"prompt": "1", "reward": 0.0}] * len(data.rewards)),
        "processing_class": tokenizer,
    }
    if case.is_rloo:
        trainer = RLOOTrainer(args=RLOOConfig(**options), **common)
        # No hook for finished completions here: the method that would sample them returns them.
        trainer._generate = lambda prompts: _generated_for_rloo(data)
        return trainer

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        return {"prompt_ids": data.prompts, "completion_ids": data.completions, "logprobs": sampler}

    return GRPOTrainer(args=GRPOConfig(**options), rollout_func=rollout, **common)


def _generated_for_rloo(data: Data) -> tuple[list[list[int]], list[list[int]], list[str]]:
    return data.prompts, data.completions, [""] * len(data.completions)


# ------------------------------------------------------------------------------------------------ ours


class Ours:
    """The learner's own parts around a model of their own: policy before and after the step, and reference."""

    def __init__(self, model_dir: str, case: Case) -> None:
        self.case = case
        self.objective = Objective(case.config)
        self.before, self.after, self.reference = (
            AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32) for _ in range(3)
        )
        moved(self.after, seed=1, scale=case.step)
        moved(self.reference, seed=2, scale=0.01)

    def scorer(self, model: PreTrainedModel) -> TokenScorer:
        return TokenScorer(model, temperature=TEMPERATURE, max_logit_mib=64)

    def loss(self, data: Data, sampler: list[list[float]]) -> tuple[list[float], Gradients]:
        """Shares of the micro-batches in the loss, and gradients added up over them."""
        reference = score(self.scorer(self.reference), data) if self.case.config.needs_reference else None
        advantages = credit(self.case, data, sampler, reference)
        samples = [_sample(data, i, a, sampler, reference) for i, a in enumerate(advantages)]
        packed = pack(
            samples,
            aggregation=self.case.config.aggregation,
            num_ranks=1,
            num_optimizer_steps=1,
            micro_batch_tokens=4 * (LENGTH + 8),
            layout="packed",
            row_tokens=LENGTH + 8,
        )
        (step,) = packed.steps
        batches = [to_device(m, torch.device("cpu"), varlen=False) for m in step.ranks[0]]
        before, after = self.scorer(self.before), self.scorer(self.after)
        selected: list[torch.Tensor | None] = [None] * len(batches)
        if self.objective.needs_selection:
            with torch.no_grad():
                scored = [b.scored(*after(*b.tokens, attention=b.attention)) for b in batches]
            selected = list(self.objective.select(scored, lambda rows: rows, salt=0))
        shares = []
        for batch, chosen in zip(batches, selected, strict=True):
            with torch.no_grad():
                anchor, _ = before(*batch.tokens, attention=batch.attention)
            learner, entropies = after(
                *batch.tokens, attention=batch.attention, entropy_gradient=self.objective.needs_entropy_gradient
            )
            share = self.objective(_inputs(batch, learner, anchor, entropies, chosen, step)).loss
            share.backward()
            shares.append(share.item())
        return shares, {n: p.grad for n, p in self.after.named_parameters()}


def _inputs(
    batch: DeviceBatch,
    learner: torch.Tensor,
    anchor: torch.Tensor,
    entropies: torch.Tensor,
    selected: torch.Tensor | None,
    step: Any,
) -> LossInputs:
    return LossInputs(
        learner_logprobs=learner,
        anchor_logprobs=anchor,
        sampler_logprobs=batch.sampler_logprobs,
        advantages=batch.advantages,
        mask=batch.loss_mask,
        weights=batch.weights,
        normalizer=step.normalizer,
        num_loss_tokens=step.num_loss_tokens,
        segments=batch.sequences,
        num_sequences=batch.num_sequences,
        reference_logprobs=batch.reference_logprobs,
        entropies=entropies,
        selected=selected,
    )


def score(scorer: TokenScorer, data: Data) -> list[list[float]]:
    """Log-probabilities of the completions' tokens."""
    found = []
    for prompt, completion in zip(data.prompts, data.completions, strict=True):
        ids = torch.tensor([prompt + completion])
        chosen = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        with torch.no_grad():
            logprobs, _ = scorer(ids[:, :-1], ids[:, 1:], chosen, attention={})
        found.append(logprobs[0, chosen].tolist())
    return found


def credit(case: Case, data: Data, sampler: list[list[float]], reference: list[list[float]] | None) -> list[float]:
    """Advantages by our estimators, the KL penalty in the reward included."""
    rewards = np.asarray(data.rewards, dtype=np.float64)
    coefficient = case.config.reward_kl_coefficient
    if coefficient and reference is not None:
        for i, (mine, theirs) in enumerate(zip(sampler, reference, strict=True)):
            ones = np.ones(len(mine), dtype=bool)
            penalty = kl_rewards(np.float32(mine), np.float32(theirs), ones, coefficient=coefficient)
            rewards[i] += float(penalty.sum())
    groups = list(rewards.reshape(-1, GROUP_SIZE))
    match case.credit:
        case "grpo":
            found = [grpo_advantages(g, epsilon=1e-4) for g in groups]
        case "dr_grpo":
            found = [dr_grpo_advantages(g) for g in groups]
        case "rloo":
            found = [rloo_advantages(g) for g in groups]
        case _:
            found = batch_scaled_advantages(groups, epsilon=1e-4)
    return [float(a) for a in np.concatenate(found)]


def _sample(
    data: Data, index: int, advantage: float, sampler: list[list[float]], reference: list[list[float]] | None
) -> TrainingSample:
    prompt, completion = data.prompts[index], data.completions[index]
    mask = np.arange(len(prompt) + len(completion)) >= len(prompt)

    def placed(values: list[float]) -> Any:
        return np.concatenate([np.zeros(len(prompt)), values]).astype(np.float32)

    return TrainingSample(
        group_id=f"g{index // GROUP_SIZE}",
        sibling=index % GROUP_SIZE,
        effort="high",
        token_ids=np.asarray(prompt + completion, dtype=np.int32),
        loss_mask=mask,
        advantages=np.where(mask, advantage, 0.0).astype(np.float32),
        sampler_logprobs=placed(sampler[index]),
        policy=PolicySpan(start=0, end=0),
        reference_logprobs=None if reference is None else placed(reference[index]),
    )


# ------------------------------------------------------------------------------------------------ comparison


def compare(case: Case, model_dir: str, data: Data) -> dict[str, Any]:
    """Both sides of one case."""
    ours = Ours(model_dir, case)
    own = score(ours.scorer(ours.before), data)
    noise = data.noise if case.uses_sampler else [[0.0] * len(row) for row in own]
    sampler = [[x + e for x, e in zip(row, errors, strict=True)] for row, errors in zip(own, noise, strict=True)]
    their_loss, their_gradients = trl_loss(case, model_dir, data, sampler)
    shares, our_gradients = ours.loss(data, sampler)
    return {
        "case": case.name,
        "trl_loss": their_loss,
        "our_loss": sum(shares),
        "rel_diff_loss": abs(sum(shares) - their_loss) / sum(map(abs, shares)),
        "rel_diff_grad": relative(our_gradients, their_gradients),
        "note": case.note,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table on standard error, conventions explained."""
    table = Table("case", "TRL loss", "our loss", "loss differs by", "gradient differs by", "convention")
    for row in rows:
        numbers = (f"{row['trl_loss']:+.7f}", f"{row['our_loss']:+.7f}")
        table.add_row(
            row["case"], *numbers, *(f"{row[k]:.1e}" for k in ("rel_diff_loss", "rel_diff_grad")), row["note"]
        )
    Console(stderr=True, width=180).print(table)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", default=[], help="names of cases, or parts of them")
    options = parser.parse_args()
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    torch.set_num_threads(1)
    cases = [c for c in CASES if not options.only or any(part in c.name for part in options.only)]
    cases = cases[:2] if options.quick else cases
    data = make_data(3, longest=LENGTH, seed=0)
    with tempfile.TemporaryDirectory() as model_dir, contextlib.redirect_stdout(sys.stderr):
        build_model(SPEC, model_dir, seed=0)
        rows = [compare(case, model_dir, data) for case in cases]
    show(rows)
    metrics = {
        "max_rel_diff_loss": max(row["rel_diff_loss"] for row in rows),
        "max_rel_diff_grad": max(row["rel_diff_grad"] for row in rows),
        "num_cases": len(rows),
    }
    finish("parity_trl_quick" if options.quick else "parity_trl", metrics, {"cases": rows}, store=options.store)


if __name__ == "__main__":
    main()
