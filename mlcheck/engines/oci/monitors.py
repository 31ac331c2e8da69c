"""Ends processes that podman leaves behind for minutes after a container was removed.

podman has a process (conmon) for each command that is started through its API. It stays for five
minutes after the command's end (`exit_command_delay` in containers.conf(5)), even if the container
has been removed meanwhile.

This is also a program for the janitor, which has only the standard library: NAME ARGUMENT TOKEN.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path


def has_arguments(pid: int, *wanted: str) -> bool:
    """Return whether a process visible from here has all of these among its arguments."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return pid > 0 and all(each.encode() in arguments for each in wanted)


def end_monitors(name: str, argument: str, token: str) -> None:
    """Send SIGKILL to the process groups whose leader is called `name` and has both arguments."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            pid = int(entry.name)
            found = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
            # A process group that it does not lead may belong to anything.
            if found == name and has_arguments(pid, argument, token) and os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    end_monitors(*sys.argv[1:])
