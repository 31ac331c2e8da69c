"""mlcheck's cache directory on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Return `$MLCHECK_CACHE_DIR`, or `mlcheck` in the XDG cache directory."""
    own = os.environ.get("MLCHECK_CACHE_DIR")
    if own:
        return Path(own).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification says to ignore a relative path.
    base = Path(xdg) if xdg.startswith("/") else Path.home() / ".cache"
    return base / "mlcheck"
