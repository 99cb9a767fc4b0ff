"""Settings of the verifier `llm_judge`."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_RUBRIC = (
    "Grade whether the answer is correct and complete. Full marks: it says what the reference says, in whatever words. "
    "No marks: it contradicts the reference, leaves the question open, or gives several answers."
)


class ModelJudgeSettings(BaseModel):
    """`llm_judge`: a model that grades by a rubric."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] = "http://127.0.0.1:8000/v1"
    """Where an OpenAI-compatible service answers, up to but without `/chat/completions`."""

    model: Annotated[str, Field(min_length=1)]
    """Name of the model, as the service knows it."""

    api_key_variable: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """Name of the environment variable that holds the key; empty sends none. The key itself belongs in no recipe."""

    rubric: Annotated[str, Field(min_length=1, max_length=20_000)] = DEFAULT_RUBRIC
    """What earns marks and what loses them."""

    max_marks: Annotated[int, Field(ge=1, le=100)] = 4
    """Best grade; the score is the grade divided by it."""

    shows_reference: bool = True
    """Show the task's reference to the model."""

    votes: Annotated[int, Field(ge=1, le=32)] = 1
    """Independent gradings of one answer."""

    aggregate: Literal["mean", "median", "majority"] = "mean"
    """How the votes make one grade; a majority shared by several grades takes the lowest."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature; several votes need one above 0."""

    max_tokens: Annotated[int, Field(ge=16, le=65_536)] = 1024
    """Longest grading, rationale included."""

    guides_reply: bool = False
    """Ask the service to hold the model to the verdict's JSON schema (`response_format`), as vLLM and others can.
    A small model may give no readable verdict without it."""

    max_answer_chars: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    """Longest answer that is graded; a longer one scores 0."""

    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 45.0
    """Wall seconds for one answer: all its votes, waiting and further tries included."""

    max_concurrent: Annotated[int, Field(ge=1, le=1024)] = 16
    """Requests under way at once."""

    max_tries: Annotated[int, Field(ge=1, le=20)] = 4
    """Requests made for one vote before it is given up."""

    cache_size: Annotated[int, Field(ge=0, le=1_000_000)] = 16_384
    """Grades kept for answers that come again; 0 turns it off."""

    @model_validator(mode="after")
    def _votes_differ(self) -> ModelJudgeSettings:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"{self.votes} votes at temperature 0 are one vote: set a temperature above 0, or 1 vote")
        return self

    @model_validator(mode="after")
    def _keys_travel_protected(self) -> ModelJudgeSettings:
        url = urlsplit(self.base_url)
        if self.api_key_variable and url.scheme == "http" and not _is_loopback(url.hostname or ""):
            raise ValueError(f"a key must not travel in the clear: use https for {self.base_url}, or no key")
        if url.username or url.password:
            raise ValueError("base_url must hold no user or password: name a variable in api_key_variable")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
