"""The image, started as its users start it: its user, its server, a package of the user's own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.answers import TOKEN_BYTES, command_result
from mlcheck.inspect.jupyter.probe import answer_of, inside
from mlcheck.inspect.server.facts import Page, Started

LIMIT_S = 90.0
"""Seconds for the server to answer, and again for its health check."""

OUTPUT_LIMIT = 4 * 1024 * 1024
_WORDS = 500


def server(
    image: OpenImage,
    python: str,
    *,
    variable: str,
    prefix: str,
    port: int,
    pages: Sequence[str],
    healthcheck: Sequence[str],
    site: str,
    user: str | None = None,
) -> Started:
    """Start the image with its CMD, and send requests to its server from within the container.

    The port is the container's own, which no other program of the machine has.

    Args:
        python: interpreter of the image, which sends the requests.
        variable: name of the variable with the prefix of all URLs, which is set to `prefix`.
        pages: paths to request.
        healthcheck: argv of the health check.
        site: root of the Python environment, in which a package is installed.
        user: "UID:GID" in place of the image's.

    Raises:
        EngineError: the engine could not start it.
    """
    cmd = image.environment.cmd or ()
    token = secrets.token_hex(TOKEN_BYTES)
    request = {
        "do": "start",
        "token": token,
        "argv": list(cmd),
        "variable": variable,
        "prefix": prefix,
        "port": port,
        "pages": list(pages),
        "healthcheck": list(healthcheck),
        "site": site,
        "own_user": image.environment.user is None,
        "limit_s": LIMIT_S,
    }
    if not cmd:
        return Started((), prefix, error="the image has no CMD")
    argv = [python, "-I", "-c", inside(), json.dumps(request)]
    limit_s = 3 * LIMIT_S + 60
    result = command_result(
        image.start(argv, user=user, limit_s=limit_s, output_limit=OUTPUT_LIMIT)
    )
    answer, trouble = answer_of(result, python, token, limit_s)
    if trouble is not None:
        return Started(cmd, prefix, trouble=trouble)
    found = answer.get("pages")
    seconds = answer.get("seconds")
    return Started(
        cmd,
        prefix,
        busy=answer.get("busy") is True,
        error=_text(answer, "error"),
        seconds=float(seconds) if isinstance(seconds, (int, float)) else 0.0,
        uid=_number(answer, "uid"),
        gid=_number(answer, "gid"),
        pages=tuple(_page(one) for one in found if isinstance(one, dict))
        if isinstance(found, list)
        else (),
        healthcheck=_text(answer, "healthcheck"),
        installed=_text(answer, "installed"),
        read_only=answer.get("read_only") is True,
    )


def _page(answer: Mapping[str, object]) -> Page:
    return Page(
        _text(answer, "asked") or "",
        _text(answer, "path") or "",
        _number(answer, "status"),
        _text(answer, "title") or "",
    )


def _text(answer: Mapping[str, object], key: str) -> str | None:
    value = answer.get(key)
    return None if value is None else str(value)[:_WORDS]


def _number(answer: Mapping[str, object], key: str) -> int | None:
    value = answer.get(key)
    return value if isinstance(value, int) else None
