"""The registry of facts: the function that finds the fact of a type, and its needs.

A function with `@fact` finds the fact that its return type names. Its parameters are its needs, by
their types: other facts, and the other things that `Facts` has of an image. A fact of mlcheck's own
is found by a module beside its type; these are imported when it is first requested.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FactType = object
"""A class, or a `typing.NewType` if two facts are of one class."""


@dataclass(frozen=True, slots=True)
class FactFunction:
    """A function that finds a fact.

    Args:
        type: of the fact.
        needs: parameter to its type.
        runs: True if it runs commands in the image: such facts are found side by side.
        apart: True if nothing else may run meanwhile, because it measures time.
    """

    find: Callable[..., object]
    type: FactType
    needs: Mapping[str, FactType]
    runs: bool
    apart: bool


_FACTS: dict[FactType, FactFunction] = {}


def fact(*, runs: bool = False, apart: bool = False) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Register a function that finds the fact of its return type; the function itself is unchanged.

    Args:
        runs: it runs commands in the image. Such a function is called in a thread beside others;
            no other fact that runs is among its parameters.
        apart: nothing else is run meanwhile, because it measures time.
    """

    def register(find: Callable[P, T]) -> Callable[P, T]:
        needs = needs_of(find)
        made = FactFunction(find, needs.pop("return"), needs, runs or apart, apart)
        _FACTS[made.type] = made
        return find

    return register


def function_of(kind: FactType) -> FactFunction | None:
    """Return the function that finds the fact of a type, or None if the type is not a fact's."""
    if kind not in _FACTS:
        package = str(getattr(kind, "__module__", "")).rpartition(".")[0]
        if package.startswith("mlcheck.inspect."):
            _import_all(package)
    return _FACTS.get(kind)


@functools.cache
def _import_all(package: str) -> None:
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{found.name}")


def needs_of(function: Callable[..., object]) -> dict[str, FactType]:
    """Return the types of a function's parameters and of its result ("return"), `X | None` as X."""
    hints = typing.get_type_hints(function)
    return {name: _plain(hint) for name, hint in hints.items()}


def running(kinds: Set[FactType]) -> Iterator[FactFunction]:
    """Yield the facts, among these and their needs, that run something."""
    for kind in with_needs(kinds):
        if (found := function_of(kind)) is not None and found.runs:
            yield found


def with_needs(kinds: Set[FactType]) -> Set[FactType]:
    """Return these types, and those that finding their facts needs."""
    seen: set[FactType] = set()
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        if kind not in seen:
            seen.add(kind)
            if (found := function_of(kind)) is not None:
                waiting += found.needs.values()
    return seen


def _plain(hint: FactType) -> FactType:
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        others = [one for one in typing.get_args(hint) if one is not NoneType]
        if len(others) == 1:
            return others[0]
    return hint


def name_of(kind: FactType) -> str:
    """Return the name of a type, for people."""
    return getattr(kind, "__name__", str(kind))


def about(kind: FactType) -> str:
    """Describe a fact: the beginning of its type's docstring, or of the function that finds it."""
    text = kind.__doc__ if isinstance(kind, type) else None
    if text is None and (found := function_of(kind)) is not None:
        text = found.find.__doc__
    return " ".join((text or "").strip().partition("\n\n")[0].split())
