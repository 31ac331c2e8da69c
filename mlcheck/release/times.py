"""Durations of jobs in earlier releases of this user, by image and engine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from mlcheck.machine import cache_dir

_FILE = "release-times.json"
_MOST = 5000
"""Maximum times that are kept, the latest ones."""


def known(place: Path | None = None) -> dict[tuple[str, str], float]:
    """Return the seconds by image and engine; nothing if none are kept, or they cannot be read.

    Args:
        place: the directory that has them; None: mlcheck's cache.
    """
    try:
        data = json.loads(_file(place).read_text(encoding="utf-8"))
        return {(image, engine): float(seconds) for image, engine, seconds in data}
    except (OSError, ValueError, TypeError):
        return {}


def keep(seconds: Mapping[tuple[str, str], float], place: Path | None = None) -> None:
    """Add times to those that are kept. Without them, the next release only starts its jobs in
    another order, so that no trouble with the file is an error."""
    old = {key: value for key, value in known(place).items() if key not in seconds}
    rows = [[image, engine, value] for (image, engine), value in {**old, **seconds}.items()]
    file = _file(place)
    new = file.with_suffix(".new")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(rows[-_MOST:]), encoding="utf-8")
        new.replace(file)


def _file(place: Path | None) -> Path:
    return (place or cache_dir.cache()) / _FILE
