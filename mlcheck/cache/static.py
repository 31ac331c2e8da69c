"""Asking static probes about an open image.

    static(elf.probe, image.rootfs, prefix)

is `elf.probe(image.rootfs, prefix)`, kept. The answer is a fact of what the probe reads, so the
probe gets the files and the configuration of the image and nothing else: a probe cannot run
anything. Facts that come from running something are never kept, because they depend on this
machine, its kernel, its processor and its load.
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
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from mlcheck.cache.content import Content, already_looked_at, of_image
from mlcheck.cache.layer_facts import BY_LAYER, ByLayer, Parts
from mlcheck.cache.store import Kept, Store, default, switched_off
from mlcheck.cache.version import source_of
from mlcheck.engines.base import Later, OpenImage
from mlcheck.image.api import RootFS
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.environment import Environment
from mlcheck.model.errors import ProbeError

if TYPE_CHECKING:
    from mlcheck.cache.fact_json import FactJson

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Files:
    """Everything that a static probe gets of an image."""

    rootfs: RootFS
    environment: Environment


class Static:
    """Asks static probes about one open image and keeps what they find. Safe for use from
    several threads.

    Args:
        since_ns: a time before the image was opened (`time.time_ns`).
        pinned: True if the image's files are its own alone. With GPUs they are not, because the
            engine mounts the machine's driver into the image.
        store: where facts are kept; None if they are not kept.
    """

    def __init__(
        self, image: OpenImage, since_ns: int, *, pinned: bool = True, store: Store | None = None
    ) -> None:
        self._image = image
        self._since_ns = since_ns
        self._store = store if pinned else None
        self._facts: dict[type, list[tuple[object, str]]] = {}
        self._asked: set[str] = set()
        self._oldest: datetime.datetime | None = None
        self._lock = threading.Lock()

    def __call__(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the answer of `probe`, either kept or computed now.

        Args:
            probe: a function of a module, with the type of its answer, a fact, as its
                return annotation.
            args, kwargs: the image or its files, where the probe expects those; otherwise text,
                numbers, collections of them, and facts.

        Raises:
            whatever the probe raises; TypeError if its code does not allow its answer to be kept.
        """
        if self._store is None or (content := self._pinned()) is None:
            return probe(*args, **kwargs)
        question = self._question(probe, args, kwargs)
        codec = _codec(probe)
        found = self._store.find(content, question, codec, lambda: self._made(probe, args, kwargs))
        if question not in self._asked:  # else it may be this run that has kept it
            self._since(found)
            self._asked.add(question)
        if dataclasses.is_dataclass(found.value):
            with self._lock:
                self._facts.setdefault(type(found.value), []).append((found.value, question))
        return found.value

    def later(self, probe: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Later[T]:
        """See `Ask.later`."""
        pinned = self._store is not None and self._pinned() is not None
        question = self._question(probe, args, kwargs) if pinned else ""
        return Later(lambda: self._made(probe, args, kwargs), question)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes about the facts for readers of a report."""
        found = []
        if self._oldest is not None:
            since = f"{self._oldest:%Y-%m-%dT%H:%MZ}"
            found.append(f"files not read again: facts kept from {since} (--no-cache reads them)")
        if self._store is not None and self._store.trouble:
            found.append(self._store.trouble)
        return tuple(found)

    def _since(self, found: Kept[Any]) -> None:
        if found.since is not None:
            self._oldest = min(found.since, self._oldest or found.since)

    def _made(self, probe: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
        """Compute the answer of the probe, which gets only what a static probe may have."""
        files = _Files(self._image.rootfs, self._image.environment)

        def given(value: Any) -> Any:
            return files if value is self._image else value

        args = tuple(map(given, args))
        kwargs = {name: given(item) for name, item in kwargs.items()}
        if (way := BY_LAYER.get(probe)) is not None:
            with contextlib.suppress(ProbeError):  # what is in the way may be hidden in the image
                if parts := self._parts(way, way.where(*args, **kwargs)):
                    joined: T = way.joined(parts, *args, **kwargs)
                    return joined
        return probe(*args, **kwargs)

    def _parts(self, way: ByLayer, where: str) -> Parts[object]:
        """Return what is known of each layer, or found now; nothing if layers cannot be
        told apart."""
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
        """Return JSON data for an argument: equal only for equal arguments."""
        if value is self._image:
            return {"image": []}
        if value is self._image.rootfs:
            return {"rootfs": []}
        if value is not None and value is self._image.layers:
            return {"layers": []}
        if isinstance(value, Later):
            return {"fact": value.question}
        for fact, question in self._facts.get(type(value), ()):
            if fact is value:  # far shorter than its content
                return {"fact": question}
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
    """Return a `Static` for an image, with the user's store unless the user has switched it off.

    Args:
        since_ns: a time before the image was opened; None if nothing has been read from it yet.
        gpu: True if GPUs were requested.
    """
    store = None if switched_off() else default()
    if store is None:
        already_looked_at(image.rootfs)
    since_ns = time.time_ns() if since_ns is None else since_ns
    return Static(image, since_ns, pinned=not gpu, store=store)


def _plain_function(probe: Callable[..., object]) -> FunctionType:
    if not isinstance(probe, FunctionType) or "<" in probe.__qualname__:
        # The variables in the closure of a lambda or an inner function cannot be compared.
        raise TypeError(
            f"{probe!r} is no function of a module, and what it answers depends on "
            "more than its arguments"
        )
    return probe


_CODECS: dict[Callable[..., object], FactJson[Any]] = {}


def _codec(probe: Callable[..., T]) -> FactJson[T]:
    """Return the codec for the answers of a probe."""
    from mlcheck.cache.fact_json import FactJson  # with the cache off, pydantic is not needed

    if probe not in _CODECS:
        try:
            shape = typing.get_type_hints(probe)["return"]
        except (KeyError, NameError) as error:
            raise TypeError(f"{probe!r} has no type of its answer: {error}") from None
        _CODECS[probe] = FactJson(shape)
    return _CODECS[probe]
