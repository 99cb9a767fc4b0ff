"""AdaCtrl's three terms: be right, judge the difficulty truly, be short where it is easy.

With p the share of right attempts in the group, label = easy if p > 0.625 else hard, and L the longest response

    r = r_o + tag_weight * r_f + length_weight * r_l
    r_o = +1 right, -1 wrong
    r_f = +1 tag is the label; 0 tag is not; -1 no tag
    r_l = (1 + cos(pi * len / L)) / 2   if tagged [Easy] and right, else 0

Source: AdaCtrl (arXiv 2505.18822) and its released code, weights 0.5 and 0.5; its soft penalty on overlong answers is
`overlong` in `budgets.penalties`. The outcome score s of an attempt is its own part of r, so the component `polarity`
is s - 1, which makes r_o = 2 s - 1 of it.

Assumption: the tag stands at the very beginning, see `budgets.self_assessment`. Telling the truth then pays at least as
much as any other tag. What it is not: calibrated. The label moves with the policy, and with 8 attempts "easy" means 6
right ones. A forced tag gets the same r_f in the whole group, which group baselines take out. Decide what may train on
the final reward (`sampling.judge_on`), otherwise the easiest tasks never teach [Easy].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from budgets.self_assessment import Tag, tag_of
from budgets.shaping.config import AdaCtrlConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings
from rollout.schema import BoolArray, Group


class AdaCtrl(GroupShaper):
    """The shaper: components `polarity`, `tag` and `easy_length`."""

    name = "adactrl"

    def __init__(self, config: AdaCtrlConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        config, judged = self._config, siblings.judged
        tags = [tag_of(t.text, t.thinking) for t in group.trajectories]
        success = float(siblings.correct[judged].mean()) if judged.any() else 0.0
        label: Tag = "easy" if success > config.easy_above else "hard"
        longest = float(siblings.lengths[judged].max()) if judged.any() else 0.0
        return {
            "polarity": siblings.scores - 1.0,
            "tag": config.tag_weight * tag_term(tags, label),
            "easy_length": config.length_weight * easy_length_term(siblings.lengths, longest, tags, siblings.correct),
        }


def tag_term(tags: Sequence[Tag | None], label: Tag) -> FloatArray:
    """r_f, [G]."""
    return np.array([-1.0 if tag is None else float(tag == label) for tag in tags])


def easy_length_term(lengths: FloatArray, longest: float, tags: Sequence[Tag | None], correct: BoolArray) -> FloatArray:
    """r_l, [G]: from 1 for no token to 0 for the longest response of the group."""
    counts = correct & np.array([tag == "easy" for tag in tags])
    return np.where(counts, 0.5 * (1.0 + np.cos(np.pi * lengths / max(longest, 1.0))), 0.0)
