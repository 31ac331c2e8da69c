"""Jupyter in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class Kernelspec:
    """One kernel.json.

    Args:
        name: name of its directory.
        path: path of kernel.json.
        argv0: what argv[0] resolves to on the image's PATH inside the image; None: nothing.
        env: variables that it sets.
    """

    name: str
    path: str
    argv: tuple[str, ...]
    display_name: str
    language: str
    metadata: Mapping[str, object]
    env: Mapping[str, str]
    argv0: str | None


@dataclass(frozen=True, slots=True)
class Kernelspecs:
    """All kernelspecs in the directories that Jupyter searches in the image.

    Args:
        searched: the directories, in Jupyter's order.
        listed: what `jupyter kernelspec list --json` said, name to directory; None when it
            could not be run (`note` says why).
    """

    specs: tuple[Kernelspec, ...]
    searched: tuple[str, ...]
    listed: Mapping[str, str] | None
    note: str = ""
    problems: tuple[Problem, ...] = ()
