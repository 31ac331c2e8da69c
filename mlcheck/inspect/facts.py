"""The facts of one open image, each found once and requested by its type: `facts[ElfFiles]`.

Facts for which the image runs commands are found side by side: a kernel that starts, a module
that is imported and a shell that answers leave a core idle most of the time. Facts from files
alone are found when they are requested.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from mlcheck.engines.base import Ask, OpenImage, Prepared, Start
from mlcheck.image.api import RootFS
from mlcheck.inspect.deployed.facts import PublishedDigest
from mlcheck.inspect.registry import (
    FactFunction,
    FactType,
    function_of,
    name_of,
    needs_of,
    running,
)
from mlcheck.model.environment import Environment
from mlcheck.model.errors import MlcheckError, ProbeError, raising_only
from mlcheck.profile.catalog import Profile

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Session:
    """A run's knowledge of an image, besides the image itself and its profile.

    Args:
        prepared: the image that was opened, and its origin.
        start: the way in which it is started.
        package_list: checked-in copy of the package list, in place of the profile's.
        base_list: package list of the image that this one is built from, where that is not
            found beside it.
        gpu_refused: reason why no GPU is requested, or "" if one is.
        require_gpu: True if this machine promises a GPU.
        published_digest: returns the published image for one in a directory of CVMFS.
        compared: opens the image to compare with, until the stack is closed, or None if there is
            none.
    """

    prepared: Prepared
    start: Start = field(default_factory=Start)
    package_list: Path | None = None
    base_list: Path | None = None
    gpu_refused: str = ""
    require_gpu: bool = False
    published_digest: Callable[[str], PublishedDigest] | None = None
    compared: Callable[[contextlib.ExitStack], Facts] | None = None


class Facts:
    """The facts of one open image.

    Args:
        ask: calls a probe that only reads, whose answer may be kept.
        threads: maximum number of running facts that are found at a time.
        given: facts that are already known.
    """

    def __init__(
        self,
        image: OpenImage,
        ask: Ask,
        profile: Profile,
        session: Session,
        *,
        threads: int = 1,
        given: Mapping[FactType, object] = MappingProxyType({}),
    ) -> None:
        self.image = image
        self.ask = ask
        self.profile = profile
        self._session = session
        self._cleanup = contextlib.ExitStack()
        self._pool = ThreadPoolExecutor(threads, "mlcheck-fact")
        self._found: dict[FactType, Future[object]] = {}
        self._inputs: Mapping[FactType, Callable[[], object]] = {
            OpenImage: lambda: image,
            RootFS: lambda: image.rootfs,
            Environment: lambda: image.environment,
            Ask: lambda: ask,
            Profile: lambda: profile,
            Session: lambda: session,
            Facts: lambda: self,
            contextlib.ExitStack: lambda: self._cleanup,
            **{kind: functools.partial(given.__getitem__, kind) for kind in given},
        }

    def __getitem__(self, kind: type[T]) -> T:
        """Return the fact of a type, or None if its function returns None.

        Raises:
            whatever was raised in finding it, each time that it is requested.
            LookupError: nothing finds a fact of this type.
        """
        value: T = self._value(kind)  # type: ignore[assignment]  # the registry goes by the type
        return value

    def expecting(self, **tables: object) -> Facts:
        """The facts of the same image by another profile, until these are closed.

        Args:
            tables: replaced values of keys.
        """
        expect = self.profile.expect.model_copy(update=tables)
        profile = dataclasses.replace(self.profile, expect=expect)
        other = Facts(self.image, self.ask, profile, self._session)
        self._cleanup.callback(other.close)
        return other

    def knows(self, kind: FactType) -> bool:
        """Return whether a type can be requested."""
        return kind in self._inputs or function_of(kind) is not None

    def found(self, kind: type[T]) -> T | None:
        """Return a fact, if it has been found already."""
        future = self._found.get(kind)
        if future is None or not future.done() or future.exception() is not None:
            return None
        return self[kind]

    def start(self, kinds: Iterable[FactType]) -> None:
        """Begin to find those of these facts, and of their needs, that run something."""
        wanted = [one for one in running(set(kinds)) if not one.apart]
        if len(wanted) > 1:
            # The engine's one-time preparation is done before threads need it.
            with contextlib.suppress(MlcheckError):
                _ = self.image.environment, self.image.rootfs
        for one in wanted:
            if one.type in self._found:
                continue
            given: Future[object] = Future()
            try:
                needs = self._values(one.needs)
            except Exception as error:
                given.set_exception(error)
                self._found[one.type] = given
            else:
                self._found[one.type] = self._pool.submit(_find, one, needs)

    def needs(self, function: Callable[..., object]) -> dict[str, object]:
        """Return the arguments of a function, as far as they can be requested, by their types.

        Raises:
            whatever was raised in finding one of them.
        """
        needs = needs_of(function)
        needs.pop("return", None)
        return self._values({name: kind for name, kind in needs.items() if self.knows(kind)})

    def close(self) -> None:
        """Begin no more searches, and release resources. Searches in progress end when the image is
        closed."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._cleanup.close()

    def _values(self, needs: Mapping[str, FactType]) -> dict[str, object]:
        return {name: self._value(kind) for name, kind in needs.items()}

    def _value(self, kind: FactType) -> object:
        if kind in self._inputs:
            return self._inputs[kind]()
        if kind not in self._found:
            function = function_of(kind)
            if function is None:
                raise LookupError(f"nothing finds a fact of the type {name_of(kind)}")
            found: Future[object] = Future()
            try:
                needs = self._values(function.needs)
                if function.apart:
                    wait(list(self._found.values()))
                found.set_result(_find(function, needs))
            except Exception as error:
                found.set_exception(error)
            self._found[kind] = found
        return self._found[kind].result()


def _find(function: FactFunction, needs: Mapping[str, object]) -> object:
    """Find a fact. Whatever a probe raises that it did not foresee is a ProbeError."""
    with raising_only(ProbeError, f"finding {name_of(function.type)}"):
        return function.find(**needs)
