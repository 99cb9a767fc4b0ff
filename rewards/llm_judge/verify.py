"""The verifier `llm_judge`: a model grades the answer by a rubric.

It waits for a network and computes nothing, so it runs in the judge's own event loop (`Traits.in_loop`) with a
deadline, where it can hold many requests open at once. The key stays there: the workers that run other people's code
have none.
"""

from __future__ import annotations

import asyncio
import json
import weakref

from rewards.llm_judge.judge import ModelJudge
from rewards.llm_judge.port import ChatError
from rewards.llm_judge.settings import ModelJudgeSettings
from rewards.outcome import Sample, judged, unjudged
from rollout.schema import Outcome, Status

# One judge for each event loop and settings: connections, cache and bounds are shared by all its samples.
_JUDGES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, ModelJudge]] = weakref.WeakKeyDictionary()


async def verify(sample: Sample) -> Outcome:
    """The grade in [0, 1]; unjudged when the model does not give one in time."""
    try:
        judge = _judge_for(sample)
    except ChatError as error:
        return unjudged(Status.CRASH, str(error))
    return await judge.judge(sample)


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1: whether a reference is good, only the model could say, and it is not asked for every task."""
    settings = ModelJudgeSettings.model_validate(sample.settings)
    if settings.shows_reference and not sample.reference.strip():
        return unjudged(Status.BAD_REFERENCE, "the reference is empty; `shows_reference = false` grades without one")
    return judged(1.0)


def _judge_for(sample: Sample) -> ModelJudge:
    from rewards.llm_judge.http import HttpChatModel  # only where a model is asked: the driver needs no HTTP client

    judges = _JUDGES.setdefault(asyncio.get_running_loop(), {})
    key = json.dumps(sample.settings, sort_keys=True)
    if key not in judges:
        settings = ModelJudgeSettings.model_validate(sample.settings)
        judges[key] = ModelJudge(settings, HttpChatModel(settings))
    return judges[key]


async def close_all() -> None:
    """Close the judges of the running event loop."""
    for judge in _JUDGES.pop(asyncio.get_running_loop(), {}).values():
        await judge.close()
