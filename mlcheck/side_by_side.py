"""Facts for which an image runs commands, found side by side.

A kernel that starts, a module that is imported and a shell that answers leave a core idle most of
the time. When the first test of an image begins, every running fact that the tests of this
session want of it is started, as many at a time as there are cores; the fixture of a fact waits
for its own, and raises what finding it raised. Facts from files alone are found meanwhile, by the
tests in their order.

pytest-xdist's workers share the cores. Where a worker has all tests of an image, it does the same
with its part of the cores; where it has some of them, it starts each fact when a test wants it:
the workers then are what is side by side.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import pytest

from mlcheck.engines.base import OpenImage
from mlcheck.errors import MlcheckError
from mlcheck.run import WHOLE_IMAGES, Target

_Parameters = ParamSpec("_Parameters")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class _Fact:
    find: Callable[..., object]
    wants: tuple[str, ...]
    """Fixtures that it takes."""
    apart: bool


_FACTS: dict[str, _Fact] = {}


def running_fact(
    *, apart: bool = False
) -> Callable[[Callable[_Parameters, _Found]], Callable[_Parameters, _Found]]:
    """A session fixture whose function runs commands in the image, and nothing else.

    The function is called in a thread. It takes fixtures by their names, none of them a running
    fact or pytest's `request`.

    Args:
        apart: nothing else is run meanwhile, because it measures time.
    """

    def fixture(find: Callable[_Parameters, _Found]) -> Callable[_Parameters, _Found]:
        name, signature = find.__name__, inspect.signature(find)
        _FACTS[name] = _Fact(find, tuple(signature.parameters), apart)

        def found(running: Running, **given: object) -> object:
            return running.value(name, given)

        own = inspect.Parameter("running", inspect.Parameter.KEYWORD_ONLY)
        parameters = [*signature.parameters.values(), own]
        found.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        found.__doc__ = find.__doc__
        return pytest.fixture(scope="session")(found)

    return fixture


class Running:
    """The running facts of one image.

    Args:
        threads: how many are found at a time.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "mlcheck-running")
        self._started: dict[str, Future[object]] = {}

    def start(self, name: str, given: Mapping[str, object]) -> None:
        """Begin to find a fact.

        Args:
            given: the fixtures that it takes.
        """
        self._started[name] = self._pool.submit(_FACTS[name].find, **given)

    def value(self, name: str, given: Mapping[str, object]) -> object:
        """A fact, when it is found; whatever was raised in finding it is raised."""
        if name in self._started:
            return self._started[name].result()
        if _FACTS[name].apart:
            wait(self._started.values())
        return _FACTS[name].find(**given)

    def stop(self) -> None:
        """Begin nothing more. What has begun ends when the image is closed."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture(scope="session")
def running(
    mlcheck_target: Target, image: OpenImage, request: pytest.FixtureRequest
) -> Iterator[Running]:
    """The running facts of the image, begun as far as this session's tests want them."""
    worker: Mapping[str, Any] | None = getattr(request.config, "workerinput", None)
    share = 1 if worker is None else int(worker["workercount"])
    running = Running(max(1, (os.cpu_count() or 1) // share))
    try:
        if worker is None or worker.get(WHOLE_IMAGES):
            _start_all(running, mlcheck_target, image, request)
        yield running
    finally:
        running.stop()


def _start_all(
    running: Running, target: Target, image: OpenImage, request: pytest.FixtureRequest
) -> None:
    wanted = dict.fromkeys(
        name
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and item.callspec.params.get("mlcheck_target") is target
        for name in item.fixturenames
        if name in _FACTS and not _FACTS[name].apart
    )
    if len(wanted) > 1:
        # What an engine makes ready once is ready before threads ask for it.
        with contextlib.suppress(MlcheckError):
            _ = image.environment, image.rootfs
    for name in wanted:
        # What a fixture raises, pytest keeps for the tests that want it.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            given = {want: request.getfixturevalue(want) for want in _FACTS[name].wants}
            running.start(name, given)
