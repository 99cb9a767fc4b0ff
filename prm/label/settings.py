"""Settings of a labelling job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from prm.config import NewlineSplitter, Section, SplitterConfig

Method = Literal["completion", "search", "grow", "tree", "exact", "outcome"]


class LabelSettings(Section):
    """What is labelled, and how."""

    method: Method = "completion"
    """completion: shares of right completions at every step; search: first error by binary search; grow: OmegaPRM's
    choice of rollouts to search; tree: values and preferences from PUCT; exact: arithmetic; outcome: answers alone."""
    solutions: PositiveInt = 4
    """Solutions sampled of each task; equal ones are labelled once."""
    completions: PositiveInt = 8
    """Completions from one prefix."""
    searches: PositiveInt = 10
    """grow: wrong rollouts searched of each task."""
    simulations: PositiveInt = 40
    """tree: simulations of each task."""
    width: PositiveInt = 5
    """tree: candidate steps of one expansion."""
    max_depth: PositiveInt = 8
    """tree: steps of a path."""
    splitter: SplitterConfig = NewlineSplitter()
    """Where the thinking text is cut into steps."""
    include_answer: bool = False
    """The answer is a last step of its own, as good as its verdict."""
    chain: bool = False
    """exact: each step is an expression that must equal the one before it."""
    tasks_at_once: Annotated[int, Field(ge=1, le=4096)] = 16
    """Tasks under way together; their requests share the engines' batches."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of solutions and completions: the same job makes the same labels."""

    @property
    def stop(self) -> str:
        """The text that ends a step."""
        match self.splitter.type:
            case "separator":
                return self.splitter.separator
            case "blank_line":
                return "\n\n"
        return "\n"
