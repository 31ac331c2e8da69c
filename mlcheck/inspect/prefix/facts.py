"""Environments of conda and Python, in which packages are installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NewType

from mlcheck.model.files import Problem

PrefixKind = Literal["conda", "venv", "system", "python", "packages"]

KIND_WORDS: Mapping[PrefixKind, str] = {
    "conda": "conda environment",
    "venv": "virtual environment",
    "system": "the system's Python",
    "python": "Python of its own",
    "packages": "Python packages without a Python",
}
"""Name of each kind, for people."""


NAMES: Mapping[PrefixKind, str] = {
    "conda": "a conda environment",
    "venv": "a virtual environment",
    "python": "a Python",
    "system": "the system's Python",
    "packages": "Python packages without a Python",
}
"""The same with an article."""


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
        looked_in: number of directories that were searched for them, or 0 if their places were
            given.
        problems: directories that could not be searched.
    """

    found: tuple[Prefix, ...]
    looked_in: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def searched(self) -> str:
        """Describe the targets and places of the search, for people."""
        marks = "conda-meta, pyvenv.cfg, lib*/python*/{site,dist}-packages or *.dist-info"
        return f"no {marks} in the image's {self.looked_in} directories"


@dataclass(frozen=True, slots=True)
class PromisedPrefix:
    """The promised environment, or the content of its path.

    Args:
        kind: kind of the environment, or None if there is none.
        problem: reason why there is none, in words.
        filled: True if it is a non-empty directory.
        others: the environments of the image; searched only if `kind` is None.
    """

    path: str
    kind: PrefixKind | None
    problem: str = ""
    filled: bool = True
    others: tuple[Prefix, ...] = ()


PrefixPath = NewType("PrefixPath", str)
"""Root of the profile's environment in the image, which is not empty."""

Environments = NewType("Environments", Prefixes)
"""The environments whose packages are examined: the profile's, or the system's Python."""

CondaPrefix = NewType("CondaPrefix", str)
"""The same, for an environment of conda's."""

Python3 = NewType("Python3", str)
"""The Python that has Jupyter: the prefix's, or that of PATH."""
