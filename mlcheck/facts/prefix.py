"""The place of the image's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EnvironmentKind = Literal["conda", "venv", "python"]


@dataclass(frozen=True, slots=True)
class Prefix:
    """What is at a path at which an environment should be.

    Args:
        kind: of the environment; None: there is none.
        problem: why there is none, in words.
        filled: whether it is a directory with anything in it.
        others: where the image has environments, by path; looked for only if `kind` is None.
    """

    path: str
    kind: EnvironmentKind | None
    problem: str = ""
    filled: bool = True
    others: Mapping[str, EnvironmentKind] | None = None
