"""What docker's SDK raises, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import docker
import requests
import urllib3

from mlcheck.engines.oci_dialect import Dialect
from mlcheck.errors import EngineError

API_TIMEOUT_S = 120.0
"""How long the engine may say nothing while it does one thing; a busy disk can take a minute."""

_LAYER_GONE = "layer not known"
_Result = TypeVar("_Result")


def despite_removals(fetch: Callable[[], _Result]) -> _Result:
    """What `fetch`, which brings an image here, returns.

    podman counts a layer that is here as fetched and takes it at the end, with no lock in
    between: by then another process may have removed it with its image. Then `fetch` is called
    again, at most three times in all.

    Raises:
        EngineError: from `fetch`.
    """
    for _ in range(2):
        try:
            return fetch()
        except EngineError as error:
            if _LAYER_GONE not in error.what:
                raise
    return fetch()


@contextmanager
def engine_errors(dialect: Dialect, doing: str, remedy: str = "") -> Iterator[None]:
    """Turn what the SDK raises into an EngineError: "docker could not `doing`: reason".

    An EngineError passes as it is.
    """
    try:
        yield
    except (
        docker.errors.DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,  # an answer that is no JSON, or no version
    ) as error:
        raise EngineError(
            f"{dialect.label} could not {doing}: {reason(error)}.",
            remedy or _remedy(dialect, error),
        ) from error


def reason(error: BaseException) -> str:
    """What an exception of the SDK says, in the words of the server or the kernel."""
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
        return f"See whether {dialect.label} still runs ({dialect.name} info), and its log."
    return ""
