"""Where mlcheck keeps things on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """`$MLCHECK_CACHE_DIR`, else `mlcheck` in the XDG cache directory."""
    own = os.environ.get("MLCHECK_CACHE_DIR")
    if own:
        return Path(own).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    base = Path(xdg) if xdg.startswith("/") else Path.home() / ".cache"
    return base / "mlcheck"
