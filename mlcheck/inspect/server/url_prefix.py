"""The path before all URLs of a server, as a platform chooses it."""

from __future__ import annotations

import os
import secrets

from mlcheck.model.errors import UsageError

VARIABLE = "NB_PREFIX"
"""Variable of this machine with which people choose the path."""


def url_prefix() -> str:
    """Return the prefix to serve under: NB_PREFIX of this machine, or one that nobody can know.

    Raises:
        UsageError: NB_PREFIX is not a valid prefix.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return f"/notebook/mlcheck/{secrets.token_hex(4)}"
    plain = given.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    if not given.startswith("/") or not (plain.isascii() and plain.isalnum()):
        raise UsageError(
            f"{VARIABLE}={given} is no path of a URL.",
            f"Set it to something like {VARIABLE}=/notebook/username/notebookname, or unset it.",
        )
    return given.rstrip("/")
