"""Asking static probes about an open image.

    static(elf.probe, image.rootfs, prefix)

is `elf.probe(image.rootfs, prefix)`, kept. The answer is a fact of what the probe reads, so the
probe gets the files and the configuration of the image and nothing else: one that wants to run
something finds no way to. Facts that come from running something are never kept, because they
depend on this machine, its kernel, its processor and its load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import os
import threading
import time
import typing
from collections.abc import Callable, Mapping, Set
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from mlcheck.engines.base import OpenImage, RootFS
from mlcheck.errors import ProbeError
from mlcheck.facts import Environment
from mlcheck.kept.content import Content, already_looked_at, of_image
from mlcheck.kept.store import Kept, Store, default, switched_off
from mlcheck.kept.version import source_of
from mlcheck.layered import BY_LAYER, ByLayer, Parts
from mlcheck.rootfs import DirectoryRootFS

if TYPE_CHECKING:
    from mlcheck.kept.fact_json import FactJson

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Files:
    """All that a static probe gets of an image."""

    rootfs: RootFS
    environment: Environment


class _Later:
    """An answer that is made when it is first needed."""

    def __init__(self, question: str, make: Callable[[], object]) -> None:
        self.question = question
        self._make = make
        self._lock = threading.Lock()

    @property
    def answer(self) -> object:
        with self._lock:
            return self._once

    @functools.cached_property
    def _once(self) -> object:
        return self._make()


class Static:
    """Asks static probes about one open image, and keeps what they find. Several threads may ask.

    Args:
        since_ns: a moment before the image was opened (`time.time_ns`).
        pinned: whether the image's files are its own alone, and not also the machine's, as they
            are with GPUs, whose driver the engine mounts into it.
        store: where facts are kept; None: they are not.
    """

    def __init__(
        self, image: OpenImage, since_ns: int, *, pinned: bool = True, store: Store | None = None
    ) -> None:
        self._image = image
        self._since_ns = since_ns
        self._store = store if pinned else None
        self._known: dict[int, tuple[object, str]] = {}
        self._asked: set[str] = set()
        self._oldest: datetime.datetime | None = None
        self._lock = threading.Lock()

    def __call__(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of `probe`, kept or made now.

        Args:
            probe: a function of a module. It says its answer's type, a fact.
            args, kwargs: where the image or its files are expected, those; otherwise text,
                numbers, collections of them, and facts.

        Raises:
            what the probe raises; TypeError where that cannot be kept for reasons of its code.
        """
        if self._store is None or (content := self._pinned()) is None:
            return probe(*args, **kwargs)
        question = self._question(probe, args, kwargs)
        # What is cached by functools has lost its type variable.
        codec = cast("FactJson[T]", _codec(probe))
        found = self._store.find(content, question, codec, lambda: self._made(probe, args, kwargs))
        if question not in self._asked:  # else it may be this run that has kept it
            self._since(found)
            self._asked.add(question)
        if dataclasses.is_dataclass(found.value):
            self._known[id(found.value)] = (found.value, question)
        return found.value

    def later(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """An answer that other static probes need, and nobody else.

        What is returned stands for the answer and can only be handed on to `static`; a probe gets
        the answer itself. So an answer of many megabytes (every file of every conda package) is
        neither kept nor made when those are kept that follow from it.
        """
        if self._store is None or self._pinned() is None:
            return probe(*args, **kwargs)
        question = self._question(probe, args, kwargs)
        return cast("T", _Later(question, lambda: self._made(probe, args, kwargs)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a report should know of the facts."""
        found = []
        if self._oldest is not None:
            since = f"{self._oldest:%Y-%m-%dT%H:%MZ}"
            found.append(f"static facts: kept from {since} (--no-cache reads anew)")
        if self._store is not None and self._store.trouble:
            found.append(self._store.trouble)
        return tuple(found)

    def _since(self, found: Kept[Any]) -> None:
        if found.since is not None:
            self._oldest = min(found.since, self._oldest or found.since)

    def _made(self, probe: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
        """The answer of the probe, which gets what a static one may have."""
        files = _Files(self._image.rootfs, self._image.environment)

        def given(value: Any) -> Any:
            if isinstance(value, _Later):
                return value.answer
            return files if value is self._image else value

        args = tuple(map(given, args))
        kwargs = {name: given(item) for name, item in kwargs.items()}
        if (way := BY_LAYER.get(probe)) is not None:
            with contextlib.suppress(ProbeError):  # what is in the way may be hidden in the image
                if parts := self._parts(way, way.where(*args, **kwargs)):
                    return cast("T", way.joined(parts, *args, **kwargs))
        return probe(*args, **kwargs)

    def _parts(self, way: ByLayer, where: str) -> Parts[object]:
        """What is known of each layer, or found now; nothing where layers cannot be told apart."""
        rootfs = self._image.rootfs
        layers = rootfs.stored if isinstance(rootfs, DirectoryRootFS) else ()
        if self._store is None or not layers or rootfs.resolve(where).final_path != where:
            return ()  # with a symlink in the way, layers have the files elsewhere
        function = _plain_function(way.of_layer)
        name = f"{function.__module__}.{function.__qualname__}"
        question = json.dumps([name, source_of(function.__code__.co_filename), where])
        codec = _codec(function)
        parts = []
        for layer in layers:
            content = Content("layer", layer.digest, f"{os.geteuid()} {layer.digest}")
            make = functools.partial(way.of_layer, layer.rootfs, where)
            found = self._store.find(content, question, codec, make)
            self._since(found)
            parts.append((layer.rootfs, found.value))
        return parts

    @functools.cached_property
    def _environment(self) -> object:
        return self._text(self._image.environment)

    def _pinned(self) -> Content | None:
        with self._lock:  # two threads need not look at all files twice
            return self._content

    @functools.cached_property
    def _content(self) -> Content | None:
        return of_image(self._image, self._since_ns)

    def _question(
        self, probe: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> str:
        function = _plain_function(probe)
        asked = [
            f"{function.__module__}.{function.__qualname__}",
            source_of(function.__code__.co_filename),
            self._environment,
            [self._text(item) for item in args],
            {name: self._text(kwargs[name]) for name in sorted(kwargs)},
        ]
        return json.dumps(asked)

    def _text(self, value: object) -> object:
        """JSON data that stands for an argument: equal for equal arguments alone."""
        if value is self._image:
            return {"image": []}
        if value is self._image.rootfs:
            return {"rootfs": []}
        if value is not None and value is self._image.layers:
            return {"layers": []}
        if isinstance(value, _Later):
            return {"fact": value.question}
        if id(value) in self._known:
            return {"fact": self._known[id(value)][1]}
        if value is None or isinstance(value, (str, int, float)):
            return value
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
            return {type(value).__qualname__: self._text(fields)}
        if isinstance(value, Mapping):
            return {"mapping": [[self._text(key), self._text(value[key])] for key in value]}
        if isinstance(value, Set):
            return {"set": sorted((self._text(item) for item in value), key=json.dumps)}
        if isinstance(value, (list, tuple)):
            return [self._text(item) for item in value]
        raise TypeError(f"{type(value).__name__} is nothing that a kept fact can depend on")


def asking(image: OpenImage, since_ns: int | None = None, *, gpu: bool = False) -> Static:
    """Asks about an image through the user's store, unless the user wants nothing kept.

    Args:
        since_ns: a moment before it was opened; None: nothing was read from it before now.
        gpu: whether GPUs were asked for.
    """
    store = None if switched_off() else default()
    if store is None:
        already_looked_at(image.rootfs)
    since_ns = time.time_ns() if since_ns is None else since_ns
    return Static(image, since_ns, pinned=not gpu, store=store)


def _plain_function(probe: Callable[..., object]) -> FunctionType:
    if not isinstance(probe, FunctionType) or "<" in probe.__qualname__:
        # What a lambda or an inner function has closed over cannot be told.
        raise TypeError(
            f"{probe!r} is no function of a module, and what it answers depends on "
            "more than its arguments"
        )
    return probe


@functools.cache
def _codec(probe: Callable[..., object]) -> FactJson[object]:
    from mlcheck.kept.fact_json import FactJson  # with the cache off, pydantic is not needed

    try:
        shape = typing.get_type_hints(probe)["return"]
    except (KeyError, NameError) as error:
        raise TypeError(f"{probe!r} has no type of its answer: {error}") from None
    return FactJson(shape)
