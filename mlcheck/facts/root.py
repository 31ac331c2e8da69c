"""ROOT in an image."""

from __future__ import annotations

from dataclasses import dataclass

from mlcheck.facts.commands import CommandResult
from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class RootConfig:
    """`root-config --libs`: run, and read.

    Args:
        path: where root-config was found on PATH; None when it was not.
        run: the answer of `root-config --libs`; None when nothing can be started.
        text: the script itself; None when it is no readable text.
    """

    path: str | None
    run: CommandResult | None
    text: str | None
    problems: tuple[Problem, ...] = ()
