"""The kernel's session keyring, which may hold the user's Kerberos tickets and tokens: keyrings(7).

A program inherits it, and with it what is in it; no namespace hides it.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_JOIN_SESSION_KEYRING = 1
_KEYCTL = {"x86_64": 250, "aarch64": 219, "ppc64le": 271, "s390x": 280, "riscv64": 219}
_libc = ctypes.CDLL(None, use_errno=True)


def join_own() -> None:
    """Give the calling thread, and the programs that it starts, an empty session keyring."""
    if (number := _KEYCTL.get(platform.machine())) is not None:
        _libc.syscall(number, _JOIN_SESSION_KEYRING, None)


def with_own(start: Callable[[], T], then: Callable[[], object] = lambda: None) -> T:
    """Return the result of a function that starts a program, which gets an empty session keyring.

    It runs in a thread of its own: a keyring is the thread's, and cannot be given back.

    Args:
        then: takes more from that thread, before the program is started.
    """

    def join() -> None:
        join_own()
        then()

    with ThreadPoolExecutor(1, initializer=join) as pool:
        return pool.submit(start).result()
