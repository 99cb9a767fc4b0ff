"""Direct reward optimization: REINFORCE with a quadratic pull to the anchor.

    l_t = -(A_t learner_t - beta / 2 (learner_t - anchor_t)^2)

Source: Richemond et al. 2024 (arXiv 2405.19107), token by token. Assumption: the optimum is A = beta (log p - log
anchor), which the quadratic reaches without a ratio, so it may be used on tokens of any age. What it is not: clipped;
`beta` alone holds the policy near the anchor.
"""

from __future__ import annotations

from rl.losses.config import Dro
from rl.losses.contract import TokenLoss, Tokens


def dro(config: Dro, tokens: Tokens) -> TokenLoss:
    """[K] quadratic losses."""
    pull = 0.5 * config.beta * (tokens.learner - tokens.anchor).square()
    return TokenLoss(values=pull - tokens.advantages * tokens.learner)
