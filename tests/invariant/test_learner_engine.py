"""One rank of the learner on real DeepSpeed: sums independent of the cut, resume to the bit, refusal to break."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl.batch import TrainingBatch
from rl.learner import engine as engine_module
from rl.learner import export as export_module
from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.errors import NonFiniteError
from rl.learner.result import RankResult, combine
from rl.learner.scratch import build_model
from rl.losses.config import LossConfig, PpoClip
from rl.losses.contract import LossInputs, LossOutput
from rl.losses.objective import Objective
from rl.losses.term_config import AdaptiveEntropy, KlCov, TopEntropy
from rl.packing import PackedBatch, pack
from tests.fakes.learner import training_batch, training_sample

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("rank_environment")]
SPEC = ScratchModel(hidden_size=64, num_layers=2, intermediate_size=64, num_heads=2, initializer_range=0.1)
BATCHES = [training_batch(16, seed=seed) for seed in range(4)]
PROBES = [[8, 9, 10, 11], [12, 13], [9, 9, 14, 15, 16]]
PPO = PpoClip()
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, str]:
    """Model directory by `tied`."""
    root = tmp_path_factory.mktemp("models")
    for tied in (False, True):
        build_model(SPEC.model_copy(update={"tied": tied}), str(root / str(tied)), seed=0)
    return {tied: str(root / str(tied)) for tied in (False, True)}


def make(model_dir: str, loss: LossConfig = PPO, **settings: Any) -> engine_module.LearnerEngine:
    rendezvous = engine_module.Rendezvous(rank=0, num_ranks=1, address="tcp://127.0.0.1:29631")
    config = LearnerConfig(**{"lr": 1e-3, "num_optimizer_steps": 2, "micro_batch_tokens": 256, **settings})
    return engine_module.LearnerEngine(
        config,
        loss,
        model_dir,
        rendezvous,
        temperature=1.0,
        seed=0,
        total_steps=100,
        dump_dir=f"{model_dir}_dump",
    )


def packed(engine: engine_module.LearnerEngine, batch: TrainingBatch, **settings: Any) -> PackedBatch:
    config = engine._config
    options = {"num_optimizer_steps": config.num_optimizer_steps, "layout": engine.info().layout, **settings}
    return pack(
        batch.samples,
        aggregation=PPO.aggregation,
        num_ranks=1,
        micro_batch_tokens=config.micro_batch_tokens,
        **options,
    )


def weights(engine: engine_module.LearnerEngine) -> Weights:
    return {name: tensor for i in range(engine.info().num_chunks) for name, tensor in engine.export_chunk(i)}


def difference(a: Weights, b: Weights) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def read_dump(message: str) -> dict[str, Any]:
    """The record that an error names, with its own path added."""
    path = Path(message.rpartition("the batch is in ")[2])
    return json.loads(path.read_text()) | {"path": path}


def test_accumulation_does_not_change_the_update(model_dirs: dict[bool, str]) -> None:
    """(accumulation, micro-batch) of (1, 8), (8, 1) and (4, 2) of equal lengths, and mixed lengths in either layout."""
    equal = TrainingBatch(
        step=1,
        version=0,
        num_groups=2,
        samples=tuple(training_sample(i, length=13, advantage=i - 3.0) for i in range(8)),
    )
    seen: list[tuple[Weights, RankResult]] = []
    for tokens, count in ((96, 1), (12, 8), (24, 4)):
        engine = make(model_dirs[False], micro_batch_tokens=tokens, num_optimizer_steps=1)
        batch = packed(engine, equal)
        assert len(batch.steps[0].ranks[0]) == count
        result = [engine.train(batch) for _ in range(3)][-1]
        seen.append((weights(engine), result))
    for other, result in seen[1:]:
        assert difference(seen[0][0], other) <= 1e-5
        # Adam forgives a wrong factor on the gradient; its norm does not.
        assert result.grad_norms == pytest.approx(seen[0][1].grad_norms, rel=1e-5)
        assert result.losses == pytest.approx(seen[0][1].losses, abs=1e-6)


def test_layouts_give_the_same_update(model_dirs: dict[bool, str]) -> None:
    seen = []
    for layout in ("buckets", "packed"):
        engine = make(model_dirs[False], layout=layout)
        result = engine.train(packed(engine, BATCHES[0]))
        seen.append((weights(engine), result))
    assert difference(seen[0][0], seen[1][0]) <= 1e-5
    assert seen[0][1].grad_norms == pytest.approx(seen[1][1].grad_norms, rel=1e-5)


@pytest.mark.parametrize("loss", [PpoClip(entropy=TopEntropy(fraction=0.3)), PpoClip(covariance=KlCov(fraction=0.2))])
def test_tokens_are_chosen_over_the_whole_step(model_dirs: dict[bool, str], loss: LossConfig) -> None:
    seen = []
    for layout, tokens in (("buckets", 256), ("buckets", 64), ("packed", 64)):
        engine = make(model_dirs[False], loss, layout=layout, micro_batch_tokens=tokens)
        seen.append(engine.train(packed(engine, BATCHES[0])).grad_norms)
    engine = make(model_dirs[False])
    assert seen[1] == pytest.approx(seen[0], rel=1e-5) and seen[2] == pytest.approx(seen[0], rel=1e-5)
    assert seen[0] != pytest.approx(engine.train(packed(engine, BATCHES[0])).grad_norms, rel=1e-3)


@pytest.mark.parametrize(("zero_stage", "loss"), [(0, PpoClip(entropy=AdaptiveEntropy(target=9.0))), (2, PPO)])
def test_resume_is_bit_identical(
    model_dirs: dict[bool, str], tmp_path: Path, zero_stage: int, loss: LossConfig
) -> None:
    settings = {"zero_stage": zero_stage, "schedule": "cosine", "warmup_steps": 3}
    straight = make(model_dirs[False], loss, **settings)
    for batch in BATCHES:
        straight.train(packed(straight, batch))

    first = make(model_dirs[False], loss, **settings)
    for batch in BATCHES[:2]:
        first.train(packed(first, batch))
    first.save(str(tmp_path))
    resumed = make(str(tmp_path / "model"), loss, **settings)
    resumed.load(str(tmp_path))
    assert resumed.version == 4
    for batch in BATCHES[2:]:
        resumed.train(packed(resumed, batch))

    assert resumed.version == straight.version == 8
    assert difference(weights(straight), weights(resumed)) == 0.0
    assert straight.checksums() == resumed.checksums()
    adapted = straight._objective.coefficients.state()
    assert resumed._objective.coefficients.state() == adapted
    assert adapted["entropy_coefficient"] == pytest.approx(0.04 if zero_stage == 0 else 0.0)  # .005 a step, 8 steps


def test_a_checkpoint_of_another_shape_is_refused(model_dirs: dict[bool, str], tmp_path: Path) -> None:
    engine = make(model_dirs[False], zero_stage=1)
    with pytest.raises(ValueError, match="is no learner checkpoint"):
        engine.load(str(tmp_path))
    engine.save(str(tmp_path))
    with pytest.raises(ValueError, match=r"'zero_stage': 1.*this run has.*'zero_stage': 0"):
        make(model_dirs[False]).load(str(tmp_path))


@pytest.mark.parametrize("zero_stage", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_the_update_and_names_the_sample(
    model_dirs: dict[bool, str], zero_stage: int, value: float
) -> None:
    engine = make(model_dirs[False], zero_stage=zero_stage, num_optimizer_steps=1, micro_batch_tokens=64)
    before = weights(engine)
    batch = training_batch(16, seed=9)
    batch.samples[5].advantages[-1] = value
    message = r"optimizer step 1 .* was not applied: non-finite loss in g1/1; the batch is in (.*_dump/.*_000001.json)$"
    with pytest.raises(NonFiniteError, match=message) as caught:
        engine.train(packed(engine, batch))
    assert engine.version == 0 and difference(before, weights(engine)) == 0.0
    record = read_dump(str(caught.value))
    assert record["blamed"].keys() == {"g1/1"} and record["samples"].keys() >= {"g0/0", "g3/3"}
    guilty = record["blamed"]["g1/1"]
    assert (guilty["group"], guilty["sibling"], guilty["not_finite"]) == ("g1", 1, ["advantages"])
    with np.load(record["path"].with_name(record["arrays"]), allow_pickle=False) as arrays:
        where = arrays[f"{guilty['micro_batch']}/segments"] == guilty["segment"]
        assert arrays[f"{guilty['micro_batch']}/input_ids"][where].tolist() == batch.samples[5].token_ids[:-1].tolist()
        assert np.isfinite(arrays[f"{guilty['micro_batch']}/advantages"][where]).sum() == where.sum() - 1
    with pytest.raises(RuntimeError, match="stopped at a non-finite value"):
        engine.train(packed(engine, BATCHES[1]))


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_a_non_finite_gradient_stops_before_the_update(model_dirs: dict[bool, str], zero_stage: int) -> None:
    engine = make(model_dirs[False], zero_stage=zero_stage, num_optimizer_steps=1)
    before = weights(engine)
    engine._hf_model.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteError, match=r"gradient norm.*with a finite loss") as caught:
        engine.train(packed(engine, BATCHES[0]))
    assert engine.version == 0 and difference(before, weights(engine)) == 0.0
    record = read_dump(str(caught.value))
    assert record["blamed"] == {} and len(record["samples"]) == 16


def test_overflowing_weights_blame_every_sample(model_dirs: dict[bool, str]) -> None:
    engine = make(model_dirs[False], num_optimizer_steps=1)
    with torch.no_grad():
        engine._hf_model.lm_head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"non-finite loss in g0/0, g0/1, .* and 8 more") as caught:
        engine.train(packed(engine, BATCHES[0]))
    record = read_dump(str(caught.value))
    assert record["blamed"].keys() == record["samples"].keys()
    assert all(sample["not_finite"] == [] for sample in record["blamed"].values())  # the batch itself was fine


def test_later_steps_are_anchored_to_the_weights_before_the_batch(
    model_dirs: dict[bool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(model_dirs[False], lr=1e-2)
    batch = packed(engine, BATCHES[0])
    fresh = [engine._score_quietly(engine._to_device(step.ranks[0][0]))[0] for step in batch.steps]
    calls: list[LossInputs] = []

    class Spy(Objective):
        def __call__(self, inputs: LossInputs) -> LossOutput:
            calls.append(inputs)
            return super().__call__(inputs)

    monkeypatch.setattr(engine, "_objective", Spy(PPO))
    result = engine.train(batch)
    assert len(calls) == 2 and result.version == 2
    for inputs, anchor in zip(calls, fresh, strict=True):
        assert torch.equal(inputs.anchor_logprobs, anchor)
    assert torch.equal(calls[0].learner_logprobs, calls[0].anchor_logprobs)
    assert not torch.allclose(calls[1].learner_logprobs, calls[1].anchor_logprobs, atol=1e-3)


def test_epochs_repeat_the_steps_and_keep_the_anchors(
    model_dirs: dict[bool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(model_dirs[False], lr=1e-2, epochs=2)
    batch = packed(engine, BATCHES[0])
    fresh = [engine._score_quietly(engine._to_device(step.ranks[0][0]))[0] for step in batch.steps]
    anchors: list[torch.Tensor] = []

    class Spy(Objective):
        def __call__(self, inputs: LossInputs) -> LossOutput:
            anchors.append(inputs.anchor_logprobs)
            return super().__call__(inputs)

    monkeypatch.setattr(engine, "_objective", Spy(PPO))
    result = engine.train(batch)
    assert result.version == engine.version == 4 and len(result.losses) == len(result.grad_norms) == 4
    assert all(torch.equal(anchor, other) for anchor, other in zip(anchors, fresh * 2, strict=True))
    means = {m.name: m.value for m in combine(batch, [result], 1.0, epochs=2)}
    assert means["learner/loss_tokens"] == 2 * sum(step.num_loss_tokens for step in batch.steps)
    assert means["loss/entropy"] == pytest.approx(np.log(SPEC.vocab_size), rel=0.2)


def test_weight_decay_shrinks_matrices_alone(model_dirs: dict[bool, str]) -> None:
    """With every advantage 0 there is no gradient, and a step multiplies what decays by 1 - lr * weight_decay."""
    still = TrainingBatch(
        step=1, version=0, num_groups=1, samples=tuple(training_sample(i, length=9, advantage=0.0) for i in range(4))
    )
    for tied in (False, True):
        engine = make(model_dirs[tied], lr=0.1, weight_decay=0.5, num_optimizer_steps=1)
        before = weights(engine)
        engine.train(packed(engine, still))
        for name, after in weights(engine).items():
            factor = 1.0 if "norm" in name or "embed" in name else 0.95
            assert torch.allclose(after, factor * before[name]), name
        assert ("lm_head.weight" in before) is not tied


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_clipping_bounds_the_step_and_reports_the_norm_before_it(model_dirs: dict[bool, str], zero_stage: int) -> None:
    """Clipped gradients are the unclipped ones times bound / norm: Adam's first moment shows it."""
    norms = []
    moments = []
    for bound in (1e6, 1e-3):
        engine = make(model_dirs[False], zero_stage=zero_stage, num_optimizer_steps=1, max_grad_norm=bound)
        norms += engine.train(packed(engine, BATCHES[0])).grad_norms
        state = engine._optimizer.state
        moments.append(sum(float(s["exp_avg"].square().sum()) for s in state.values()) ** 0.5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) and norms[0] > 1e-2
    assert moments[1] / moments[0] == pytest.approx(1e-3 / norms[0], rel=1e-3)


def test_gradient_checkpointing_changes_nothing_but_memory(model_dirs: dict[bool, str]) -> None:
    plain, recomputed = (make(model_dirs[False], gradient_checkpointing=flag) for flag in (False, True))
    for engine in (plain, recomputed):
        engine.train(packed(engine, BATCHES[0]))
    assert recomputed._hf_model.is_gradient_checkpointing and not plain._hf_model.is_gradient_checkpointing
    assert difference(weights(plain), weights(recomputed)) <= 1e-6


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_exported_is_what_the_learner_computes(
    model_dirs: dict[bool, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    monkeypatch.setattr(export_module, "EXPORT_CHUNK_BYTES", 40_000)
    engine = make(model_dirs[tied], zero_stage=1)
    engine.train(packed(engine, BATCHES[0]))
    chunks = [engine.export_chunk(i) for i in range(engine.info().num_chunks)]
    names = [name for chunk in chunks for name, _ in chunk]
    assert len(chunks) > 2 and len(set(names)) == len(names)
    assert ("lm_head.weight" in names) is not tied
    for chunk in chunks:  # a view of the flat buffer would carry all of it
        assert len(pickle.dumps(chunk)) < 1.2 * sum(t.numel() * 4 for _, t in chunk) + 4096

    engine.save_model(str(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == SPEC.vocab_size
    for ids, probe in zip(PROBES, engine.probe(PROBES), strict=True):
        with torch.no_grad():
            logprobs = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        expected = logprobs[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()
        assert probe[0] == 0.0 and np.abs(probe[1:] - expected).max() < 1e-5


def optimizer_tensors(engine: engine_module.LearnerEngine) -> list[torch.Tensor]:
    return [torch.as_tensor(value).clone() for state in engine._optimizer.state.values() for value in state.values()]


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_diagnostics_change_nothing_to_the_bit(model_dirs: dict[bool, str], zero_stage: int) -> None:
    """Weights, optimizer, random state, and all that follows; gradients are refused where matrices are split."""
    looked, plain = (make(model_dirs[False], zero_stage=zero_stage, micro_batch_tokens=64) for _ in range(2))
    for engine in (looked, plain):
        engine.train(packed(engine, BATCHES[0]))
    before, state, seed = weights(looked), optimizer_tensors(looked), torch.get_rng_state()

    values = looked.geometry([[8, 9, 10], [11] * 40, [12, 13], [14]])
    assert 1.0 < values["geometry/rankme"] <= 4.0 and 1.0 < values["geometry/covariance_rank"] <= 3.0
    alone = [packed(looked, replace(BATCHES[1], samples=(s,))).steps[0].ranks[0][0] for s in BATCHES[1].samples[:3]]
    if zero_stage == 3:
        with pytest.raises(ValueError, match=r"learner\.zero_stage = 3 splits them; use 2"):
            looked.layer_gradients(alone)
    else:
        gradients = looked.layer_gradients(alone)
        assert gradients == looked.layer_gradients(alone)
        names = {name for name in gradients if name.startswith("gradients/nuclear/")}
        assert names == {f"gradients/nuclear/layer_{i:02d}" for i in range(SPEC.num_layers)}
        assert all(gradients[name] > 0 for name in names)

    assert difference(before, weights(looked)) == 0.0 and torch.equal(seed, torch.get_rng_state())
    assert state and all(map(torch.equal, state, optimizer_tensors(looked)))
    results = [engine.train(packed(engine, BATCHES[2])) for engine in (looked, plain)]
    assert results[0] == results[1]
    assert looked.checksums() == plain.checksums()


def test_layer_gradients_are_those_of_the_plain_model(model_dirs: dict[bool, str]) -> None:
    """Against an ordinary backward pass of the mean negative log-probability of the response."""
    engine = make(model_dirs[False])
    sample = BATCHES[0].samples[0]
    found = engine.layer_gradients([packed(engine, replace(BATCHES[0], samples=(sample,))).steps[0].ranks[0][0]])
    model = AutoModelForCausalLM.from_pretrained(model_dirs[False])
    ids = torch.tensor(sample.token_ids.astype(np.int64))
    logprobs = model(input_ids=ids[None, :-1]).logits[0].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    (-logprobs[torch.tensor(sample.loss_mask[1:])].mean()).backward()
    for layer, block in enumerate(model.model.layers):
        rows = (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj, block.self_attn.o_proj)
        nuclear = np.mean([float(torch.linalg.svdvals(row.weight.grad.double()).sum()) for row in rows])
        assert found[f"gradients/nuclear/layer_{layer:02d}"] == pytest.approx(nuclear, rel=1e-4)


def test_nothing_was_compiled(rank_environment: Path) -> None:
    """DeepSpeed would build a C++ kernel at start: 40 s, and a crash where there is no compiler."""
    assert os.listdir(rank_environment) == []
