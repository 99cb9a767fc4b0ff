"""Our requests in vLLM's terms, and its answers in ours."""

from __future__ import annotations

import numpy as np
from vllm import SamplingParams
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from rollout.engine import Completion, Request, RequestError
from rollout.schema import Float32Array


def sampling_params(request: Request) -> SamplingParams:
    """Only what the request says may end it; the text is needed only to find stop texts."""
    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        thinking_token_budget=request.thinking_budget,
        stop_token_ids=list(request.stop_ids),
        stop=list(request.stop_texts),
        include_stop_str_in_output=True,
        ignore_eos=True,
        logprobs=0,  # the sampled token's own and no others
        flat_logprobs=True,
        detokenize=bool(request.stop_texts),
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def completion_of(output: RequestOutput) -> Completion:
    sampled = output.outputs[0]
    if sampled.finish_reason not in ("stop", "length", "abort"):
        raise RequestError(f"the engine ended a request with {sampled.finish_reason!r}: {sampled.stop_reason}")
    spans = sampled.weight_versions
    if not spans or len(sampled.logprobs.logprobs) != len(sampled.token_ids):
        raise RequestError("the engine returned tokens without their weight versions or log-probabilities")
    versions = [(int(span.version), span.end - span.start) for span in spans]
    return Completion(
        token_ids=np.asarray(sampled.token_ids, dtype=np.int32),
        logprobs=np.asarray(sampled.logprobs.logprobs, dtype=np.float32),
        versions=np.repeat(*np.asarray(versions, dtype=np.int32).T),
        finish=sampled.finish_reason,
    )


def prompt_logprobs(output: RequestOutput) -> Float32Array:
    """[L] from the positions of a prompt, each a mapping from token to log-probability, the first None."""
    ids = output.prompt_token_ids
    found = (position[token].logprob for token, position in zip(ids[1:], output.prompt_logprobs[1:], strict=True))
    return np.asarray([0.0, *found], dtype=np.float32)
