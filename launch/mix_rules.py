"""Rules between what joins the fresh samples and the other sections of a recipe: rule, values, remedy."""

from __future__ import annotations

from budgets.config import BudgetsConfig
from rl.learner.config import LearnerConfig
from rl.losses.config import LossConfig
from rl.losses.term_config import TopEntropy
from rl.mix_config import MixConfig
from rl.replay.config import ShareReplay


def check(mix: MixConfig, learner: LearnerConfig, loss: LossConfig, budgets: BudgetsConfig) -> None:
    """Raise ValueError for what cannot be measured or trained."""
    if mix.hints is not None and any(effort.prefix for effort in budgets.efforts.values()):
        raise ValueError(
            "mix.hints begins responses with a part of the solution, and an effort has a prefix of its own that the "
            "policy is not to learn; leave one of the two out"
        )
    if mix.text is not None and mix.text.chunk_tokens - 1 > learner.micro_batch_tokens:
        raise ValueError(
            f"learner.micro_batch_tokens = {learner.micro_batch_tokens} cannot hold a chunk of mix.text.chunk_tokens = "
            f"{mix.text.chunk_tokens} - 1 positions; lower the second"
        )
    replay = mix.replay
    if not isinstance(replay, ShareReplay) or not replay.watch_every:
        return
    if learner.zero_stage == 3:
        raise ValueError(
            f"mix.replay.watch_every = {replay.watch_every} compares whole gradients on a rank, and "
            "learner.zero_stage = 3 splits them; set zero_stage = 2 or watch_every = 0"
        )
    if isinstance(loss.entropy, TopEntropy) or getattr(loss, "covariance", None) is not None:
        raise ValueError(
            f"mix.replay.watch_every = {replay.watch_every} takes gradients of a few samples, and the loss chooses its "
            "tokens among those of a whole step (entropy.type = 'top_fraction' or covariance); leave these out or set "
            "watch_every = 0"
        )
