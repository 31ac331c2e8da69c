"""A limit of the processes and threads in a PID namespace, which the kernel itself keeps.

Since Linux 6.14, `/proc/sys/kernel/pid_max` is that of the writer's PID namespace
(https://docs.kernel.org/admin-guide/sysctl/kernel.html#pid-max). In an older kernel it is the
machine's, and is left alone.

As a program: `pid_limit.py PID MOST` limits the namespace of another process, which lies in a user
namespace of this user's. Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
import sys

_SINCE = (6, 14)
_SET_DUMPABLE = 4
_RESERVED = 400
"""The kernel takes no less than 301, and processes that are counted end all commands earlier."""


def is_of_namespaces() -> bool:
    """Return whether each PID namespace has a limit of its own here."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= _SINCE


def limit_own(most: int) -> None:
    """Let the PID namespace of this process have few more than `most` processes and threads.

    Without effect where it is forbidden or the kernel cannot do it.
    """
    if is_of_namespaces():
        path = "/proc/sys/kernel/pid_max"
        with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(str(most + _RESERVED))


def limit(pid: int, most: int) -> None:
    """Limit the namespace of another process of this user's, in the same way."""
    if is_of_namespaces():
        argv = [sys.executable, "-I", "-S", __file__, str(pid), str(most)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
            )


def main() -> None:
    pid, most = map(int, sys.argv[1:])
    own, other = (os.stat(f"/proc/{one}/ns/pid").st_ino for one in ("self", pid))  # noqa: PTH116
    if own == other:
        return
    libc = ctypes.CDLL(None)
    # What runs in those namespaces may then not look into this process, which is not of the image.
    libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    for kind in ("user", "pid"):
        with open(f"/proc/{pid}/ns/{kind}", "rb") as file:  # noqa: PTH123
            if libc.setns(file.fileno(), 0) != 0:
                return
    if os.fork() == 0:  # a process joins a PID namespace with its children
        limit_own(most)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main()
