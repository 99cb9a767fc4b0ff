"""From settings to the estimator they describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from rl.credit.batch_scaled import batch_scaled_advantages
from rl.credit.best_of_group import best_of_group_advantages
from rl.credit.config import CreditConfig, GdpoCredit, ReinforcePlusPlusCredit
from rl.credit.dr_grpo import dr_grpo_advantages
from rl.credit.gdpo import gdpo_advantages
from rl.credit.gpg import gpg_advantages
from rl.credit.group_credit import BatchRule, GroupCredit
from rl.credit.grpo import grpo_advantages
from rl.credit.opo import opo_advantages
from rl.credit.reinforce_pp_baseline import reinforce_pp_baseline_advantages
from rl.credit.remax import remax_advantages
from rl.credit.rloo import rloo_advantages
from rl.credit.siblings import Siblings, components_of, siblings_of
from rl.credit.steps.build import build_process
from rl.credit.token_credit import ReturnCredit
from rl.credit.w_reinforce import w_reinforce_advantages
from rl.ports import Credit
from rollout.schema import ScoredGroup

FloatArray = npt.NDArray[np.float64]


def build_credit(config: CreditConfig) -> Credit:
    """The estimator that `config` describes."""
    if isinstance(config, ReinforcePlusPlusCredit):
        return ReturnCredit(config.type, gamma=config.gamma)
    process = build_process(getattr(config, "process", None))
    return GroupCredit(config.type, _rule(config), process, needs_greedy_baseline=config.needs_greedy_baseline)


def _rule(config: CreditConfig) -> BatchRule:
    match config.type:
        case "grpo":
            return _each(lambda s: grpo_advantages(s.rewards, epsilon=config.epsilon))
        case "dr_grpo":
            return _each(lambda s: dr_grpo_advantages(s.rewards))
        case "rloo":
            return _each(lambda s: rloo_advantages(s.rewards))
        case "remax":
            return _each(lambda s: remax_advantages(s.rewards, greedy=s.greedy))
        case "opo":
            return _each(lambda s: opo_advantages(s.rewards, s.lengths))
        case "best_of_group":
            return _each(lambda s: best_of_group_advantages(s.rewards, epsilon=config.epsilon))
        case "w_reinforce":
            weights = {"positive": config.positive, "negative": config.negative}
            return _each(lambda s: w_reinforce_advantages(s.correct, **weights))
        case "batch_scaled":
            return _all(lambda ss: batch_scaled_advantages([s.rewards for s in ss], epsilon=config.epsilon))
        case "gpg":
            return _all(lambda ss: gpg_advantages([s.rewards for s in ss]))
        case "reinforce_pp_baseline":
            return _all(lambda ss: reinforce_pp_baseline_advantages([s.rewards for s in ss], [s.lengths for s in ss]))
        case "gdpo":
            return partial(_gdpo, config)
    raise AssertionError(f"no estimator for {config.type}")


def _each(rule: Callable[[Siblings], FloatArray]) -> BatchRule:
    return lambda groups: [rule(siblings_of(scored)) for scored in groups]


def _all(rule: Callable[[Sequence[Siblings]], list[FloatArray]]) -> BatchRule:
    return lambda groups: rule([siblings_of(scored) for scored in groups])


def _gdpo(config: GdpoCredit, groups: Sequence[ScoredGroup]) -> list[FloatArray]:
    names = frozenset(config.weights)
    components = [components_of(g, names, process_on_all_wrong=config.process_on_all_wrong) for g in groups]
    return gdpo_advantages(components, config.weights, epsilon=config.epsilon)
