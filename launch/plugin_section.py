"""A part of one's own in the place of a built-in one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class PluginSection(BaseModel):
    """A part of one's own in the place of a built-in one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    type: Literal["plugin"]
    """Selects a plugin."""

    name: Annotated[str, Field(min_length=1)]
    """Registered name, dotted path (package.module:attribute) or file (path/to/file.py:attribute)."""

    params: dict[str, Any] = {}
    """Settings that the plugin is called with."""
