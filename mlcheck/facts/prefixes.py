"""Environments of conda and Python: where packages are installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mlcheck.facts.files import Problem

PrefixKind = Literal["conda", "venv", "system", "python", "packages"]

KIND_WORDS: Mapping[PrefixKind, str] = {
    "conda": "conda environment",
    "venv": "virtual environment",
    "system": "the system's Python",
    "python": "Python of its own",
    "packages": "Python packages without a Python",
}
"""What people call each kind."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """An environment: a place with packages of its own, of conda or Python.

    Args:
        path: its root, as `sys.prefix` has it; of packages that lie in a directory of their own,
            as `pip install --target` puts them, that directory.
        kind: "conda" has conda's records, "venv" a pyvenv.cfg, "system" is /usr or /usr/local,
            "python" any other place with an interpreter.
        packages: the directories with Python packages (site-packages, dist-packages).
    """

    path: str
    kind: PrefixKind
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The environments of an image, sorted by path.

    Args:
        looked_in: how many directories were searched for them; 0: somebody said where they are.
        problems: where could not be searched.
    """

    found: tuple[Prefix, ...]
    looked_in: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def searched(self) -> str:
        """What was looked for and where, for people."""
        marks = "conda-meta, pyvenv.cfg, lib*/python*/{site,dist}-packages or *.dist-info"
        return f"no {marks} in the image's {self.looked_in} directories"


@dataclass(frozen=True, slots=True)
class PromisedPrefix:
    """What is at the path at which an environment should be.

    Args:
        kind: of the environment; None: there is none.
        problem: why there is none, in words.
        filled: whether it is a directory with anything in it.
        others: the environments of the image; looked for only if `kind` is None.
    """

    path: str
    kind: PrefixKind | None
    problem: str = ""
    filled: bool = True
    others: tuple[Prefix, ...] = ()
