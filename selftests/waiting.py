"""Waits for what other processes do in their own time."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 120.0
"""Until then it is a delay and no fault: podman, for one, answers nobody while it writes a layer of
many files into its store, for twelve seconds with 60,000."""


def eventually(condition: Callable[[], object]) -> bool:
    """Wait until a condition holds; False if it does not within `LIMIT_S`."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
