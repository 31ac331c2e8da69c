"""The engines that are installed: mlcheck's own, and those of other distributions.

A distribution offers an engine by an entry point of the group `mlcheck.engines`: the name is that
for `--engine`, the value refers to a `Declaration`.

The files are read as specified in
https://packaging.python.org/en/latest/specifications/entry-points/. `importlib.metadata` would do
it too, but takes a tenth of a second at every start, because it parses the metadata of all
distributions that are installed.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlcheck.engines.base import Declaration
from mlcheck.model.errors import EngineError, MlcheckError, UsageError

_GROUP = "[mlcheck.engines]"


class _EntryPoint(NamedTuple):
    """The location of an engine's declaration ("package.module:name"), and its distribution."""

    value: str
    distribution: str


@functools.cache
def names() -> tuple[str, ...]:
    """Return the engines' names for `--engine`: in the order in which "auto" tries them for an
    image of a registry, then those for a directory, then the others."""
    return tuple(sorted(_entry_points(), key=_place))


def _place(name: str) -> tuple[float, float, str]:
    try:
        opens = declaration(name).opens
    except MlcheckError:
        opens = {}
    first, second = (opens.get(kind) for kind in ("registry", "directory"))
    return (
        math.inf if first is None else first,
        math.inf if second is None else second,
        name,
    )


@functools.cache
def declaration(name: str) -> Declaration:
    """Return the declaration of an engine.

    Raises:
        UsageError: there is no such engine, or two distributions have one of this name.
        EngineError: it cannot be imported, or the object is not a declaration.
    """
    found = _entry_points().get(name)
    if not found:
        raise UsageError(
            f"there is no engine {name!r}.", f"There are: {', '.join(names()) or 'none'}."
        )
    first, *others = found
    if others:
        listed = " and ".join(dict.fromkeys(one.distribution for one in found))
        raise UsageError(
            f"more than one engine is called {name!r}: {listed} have one.",
            "Uninstall all of them but one.",
        )
    remedy = f"Install {first.distribution} again, or uninstall it."
    try:
        declared = pkgutil.resolve_name(first.value)
    except Exception as error:
        raise EngineError(
            f"the engine {name} of {first.distribution} cannot be imported: "
            f"{type(error).__name__}: {error}.",
            remedy,
        ) from error
    if not isinstance(declared, Declaration):
        raise EngineError(
            f"the engine {name} of {first.distribution} is none: {first.value} is no "
            "mlcheck.engines.base.Declaration.",
            remedy,
        )
    return declared


@functools.cache
def declarations() -> Mapping[str, Declaration]:
    """Return the declarations of all engines except those that cannot be imported.

    Raises:
        UsageError: two distributions have an engine of the same name, or there is no engine.
    """
    if not names():
        raise UsageError(
            "mlcheck finds no engine, not even its own: what is installed of it is older than its "
            "code.",
            "Install it again; in a clone: make venv-dev.",
        )
    found = {}
    for name in names():
        with contextlib.suppress(EngineError):
            found[name] = declaration(name)
    return found


@functools.cache
def _entry_points() -> Mapping[str, list[_EntryPoint]]:
    found: dict[str, list[_EntryPoint]] = {}
    for distribution, text in _files():
        inside = False
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                inside = line == _GROUP
            elif inside and line and line[0] not in "#;":
                name, _, value = line.partition("=")
                entry = _EntryPoint(value.partition("[")[0].strip(), distribution)
                found.setdefault(name.strip(), []).append(entry)
    return found


def _files() -> Iterator[tuple[str, str]]:
    """Iterate over the names of the distributions that offer engines, each with its
    entry_points.txt; of two with the same name, the one that Python would import."""
    seen = set()
    for directory in sys.path:
        try:
            inside = sorted(os.listdir(directory or "."))  # noqa: PTH208 - many times faster
        except OSError:
            continue
        for folder in inside:
            if not folder.endswith((".dist-info", ".egg-info")):
                continue
            distribution = folder.rpartition(".")[0].partition("-")[0].replace("_", "-").lower()
            if distribution in seen:
                continue
            seen.add(distribution)
            file = os.path.join(directory, folder, "entry_points.txt")  # noqa: PTH118
            with contextlib.suppress(OSError), open(file, "rb") as data:  # noqa: PTH123
                content = data.read()
                if _GROUP.encode() in content:
                    yield distribution, content.decode("utf-8", "replace")
