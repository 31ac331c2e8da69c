"""The base of all tables of an `image.toml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

AbsolutePath = Annotated[str, Field(pattern=r"^/")]
Glob = Annotated[str, Field(min_length=1)]
Reason = Annotated[str, Field(min_length=1)]
ByteSize = Annotated[str, Field(pattern=r"^\d{1,6}(\.\d+)? ?(B|kB|MB|GB)$")]
"""A number with a decimal unit: "8 GB", "0.5 MB"."""


class Table(BaseModel):
    """A TOML table: unknown keys are errors, and values are not converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
