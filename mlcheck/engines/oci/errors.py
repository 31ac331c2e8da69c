"""Convert exceptions of docker's SDK to EngineErrors, with reasons for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import docker
import requests
import urllib3

from mlcheck.engines.oci.dialect import Dialect
from mlcheck.model.errors import EngineError

API_TIMEOUT_S = 120.0
"""Seconds without an answer while the engine does one thing; a busy disk can take a minute."""

_GONE = ("layer not known", "container not known", "image not known")
_Result = TypeVar("_Result")


def despite_removals(ask: Callable[[], _Result]) -> _Result:
    """Return the result of `ask`, which fetches an image, or lists images or containers.

    podman counts a layer that is here as fetched and uses it at the end, and inspects one thing of
    its list after the other, without a lock in between: by then another process may have removed
    it. Then `ask` is called again, at most three times in all.

    Raises:
        EngineError: from `ask`.
    """
    for _ in range(2):
        try:
            return ask()
        except EngineError as error:
            if not any(gone in error.what for gone in _GONE):
                raise
    return ask()


@contextmanager
def engine_errors(dialect: Dialect, doing: str, remedy: str = "") -> Iterator[None]:
    """Convert exceptions of the SDK to an EngineError: "docker could not `doing`: reason".

    An EngineError passes unchanged.
    """
    try:
        yield
    except (
        docker.errors.DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,  # an answer that is not JSON, or not a version
    ) as error:
        raise EngineError(
            f"{dialect.label} could not {doing}: {reason(error)}.",
            remedy or _remedy(dialect, error),
        ) from error


def reason(error: BaseException) -> str:
    """Return the message of an SDK exception, in the words of the server or the kernel."""
    if isinstance(error, docker.errors.APIError) and error.explanation:
        return str(error.explanation).strip().rstrip(".")
    root: BaseException = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    if isinstance(root, TimeoutError):
        return f"it did not answer within {API_TIMEOUT_S:.0f} s"
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return f"{root}".strip().rstrip(".") or type(root).__name__


def _remedy(dialect: Dialect, error: BaseException) -> str:
    text = reason(error)
    if "no space left" in text.lower():
        return f"Free space on the disk of {dialect.label}'s images: {dialect.name} system prune."
    if isinstance(error, requests.ConnectionError):
        return f"Check that {dialect.label} still runs ({dialect.name} info), and its log."
    return ""
