"""The contents of a `mlcheck.toml`: options that need not be typed again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """The whole of a `mlcheck.toml`, and of `[tool.mlcheck]` in a `pyproject.toml`. Paths are
    relative to the file."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    profiles: list[str] | None = None
    """Directories with image.toml folders."""
    profile: str | None = None
    """NAME[:TAG] of the profile for all images, if their names do not select it."""
    engine: list[str] | None = None
    """The engines that judge."""
    pull: Literal["missing", "always", "never"] | None = None
    """When to fetch an image from its registry."""
    nv: Literal["auto", "always", "never"] | None = None
    """Whether NVIDIA GPUs are requested."""
    bind: list[str] | None = None
    """DIR:TARGET, directories that commands in an image see."""
    rule: list[str] | None = None
    """The only rules to judge."""
    skip_rule: list[str] | None = None
    """Rules to leave out."""
    fail_on: Literal["error", "warning"] | None = None
    """The least severity of a rule that fails an image."""
    waivers: list[str] | None = None
    """Files of waivers."""
    output: list[str] | None = None
    """FORMAT[=FILE], the reports to write."""
