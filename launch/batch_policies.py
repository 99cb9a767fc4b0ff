"""What a step trains on besides its fresh samples: from the recipe's sections to the policies of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from budgets.allocate import HistoryAllocator
from launch import demonstrations, texts
from launch.config import RunConfig
from launch.rundir import RunDirectory
from rl.hybrid.hints import Hints
from rl.hybrid.policy import DemonstrationPolicy, HintPolicy
from rl.hybrid.text import TextPolicy
from rl.losses.estimator_config import StreamEstimators
from rl.plan import BatchPolicy
from rl.ports import Allotter, Credit
from rl.replay.config import RoRecomp
from rl.replay.rorecomp import RoRecompPolicy
from rl.replay.share import SharePolicy
from rl.replay.store import TrajectoryStore
from rl.replay.watch import GradientComparer
from rl.reporter import Reporter
from rl.reweight.policy import RecapPolicy, ReweighedCredit
from rollout.schema import Task

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def build_policies(
    config: RunConfig,
    directory: RunDirectory,
    comparer: GradientComparer,
    reporter: Reporter,
    tasks: Sequence[Task],
) -> list[BatchPolicy]:
    """The policies, in the order of their acting. `tasks` are those of training."""
    recap = None
    if config.mix.reweight is not None:
        weights = {name: component.weight for name, component in config.rewards.components.items()}
        recap = RecapPolicy(config.mix.reweight, weights)
    policies: list[BatchPolicy] = []
    if config.mix.replay is not None:
        policies.append(_replay(config, directory, comparer, reporter, recap))
    if config.mix.demonstrations is not None:
        shown = demonstrations.load(config, directory, tasks)
        policies.append(DemonstrationPolicy(config.mix.demonstrations, shown))
    if config.mix.hints is not None:
        policies.append(HintPolicy(config.mix.hints.coefficient))
    if (text := config.mix.text) is not None:
        chunks = texts.load(config, text, directory)
        seed = config.run.seed
        policies.append(TextPolicy(chunks, per_step=text.chunks_per_step, coefficient=text.coefficient, seed=seed))
    if recap is not None:
        policies.append(recap)
    return policies


def build_allotters(config: RunConfig) -> list[Allotter]:
    """What changes every fresh job, in order: the allocation by history, then hints, which know the effort."""
    allotters: list[Allotter] = []
    if config.budgets.allocation is not None:
        allotters.append(HistoryAllocator(config.budgets.allocation, config.budgets))
    if config.mix.hints is not None:
        marks = config.format
        is_opened = marks.prefill_thinking or not marks.has_thinking
        allotters.append(Hints(config.mix.hints, opening="" if is_opened else marks.thinking_open))
    return allotters


def reweighed(credit: Credit, policies: Sequence[BatchPolicy]) -> Credit:
    """The credit, given over scores that a re-weighting policy recomposes, if there is one."""
    recap = next((policy for policy in policies if isinstance(policy, RecapPolicy)), None)
    return credit if recap is None else ReweighedCredit(credit, recap)


def stream_estimators(config: RunConfig) -> StreamEstimators:
    """How samples that are not fresh are trained on."""
    sections = {"replay": config.mix.replay, "demonstration": config.mix.demonstrations, "text": config.mix.text}
    return StreamEstimators(**{name: section.estimator for name, section in sections.items() if section is not None})


def tokenizer_fingerprint(model: Path) -> str:
    """Digest of the tokenizer of a model directory; equal for models that share one."""
    digest = hashlib.blake2b(digest_size=8)
    for name in TOKENIZER_FILES:
        if (model / name).is_file():
            digest.update((model / name).read_bytes())
    return digest.hexdigest()


def _replay(
    config: RunConfig,
    directory: RunDirectory,
    comparer: GradientComparer,
    reporter: Reporter,
    recap: RecapPolicy | None,
) -> BatchPolicy:
    section = config.mix.replay
    assert section is not None
    tokenizer = tokenizer_fingerprint(directory.start_model)
    store = TrajectoryStore(directory.replay, tokenizer=tokenizer, capacity=section.capacity)
    if isinstance(section, RoRecomp):
        return RoRecompPolicy(section, store, num_steps=config.loop.num_steps, seed=config.run.seed)
    domain_weights = dict if recap is None else recap.domain_weights
    return SharePolicy(
        section, store, comparer, seed=config.run.seed, warn=reporter.warning, domain_weights=domain_weights
    )
