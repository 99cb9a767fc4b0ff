"""The KL penalty as a reward, token by token.

Formula: at every loss token t, -coefficient * k1_t with k1_t = log mu(t) - log ref(t), mu the distribution the token
was drawn from (the engine's) and ref the frozen reference. A number, not a graph: it is detached by construction.
Source: the penalty of RLHF (arXiv 2203.02155); k1 is the plain estimator of J. Schulman, "Approximating KL divergence".
Assumption: tokens were drawn from the current policy. The mean of k1 is then KL(policy || reference), and the score
function gives its exact gradient.
What it is not: a term for the loss. As a loss, the expected gradient of k1 is zero; there k2 or k3 belong
(`rl/losses`).
"""

from __future__ import annotations

import numpy as np

from rollout.schema import BoolArray, Float32Array


def kl_rewards(
    sampler_logprobs: Float32Array, reference_logprobs: Float32Array, sampled: BoolArray, *, coefficient: float
) -> Float32Array:
    """[L] reward per token, 0 at tokens the policy did not sample."""
    k1 = np.where(sampled, sampler_logprobs - reference_logprobs, np.float32(0))
    return (-coefficient * k1).astype(np.float32)
