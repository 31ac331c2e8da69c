"""Ends all processes of one session of this machine, whatever process group they are in.

apptainer starts the FUSE process that serves a SIF file in a process group of its own, and that
process outlives apptainer when apptainer is killed. It stays in apptainer's session.

The janitor runs this too (`session_end.py SESSION START-TIME`), hence the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

_LIMIT_S = 10.0


def end_session(leader: int, started: str) -> None:
    """Send SIGKILL to every process of the session led by process `leader`, and wait for their end.

    Args:
        started: start time of the leader (field 22 of /proc/PID/stat), which distinguishes it from
            a later process with the same number.
    """
    deadline = time.monotonic() + _LIMIT_S
    while _start_time(leader) in (None, started) and (members := session(leader)):
        _kill(members, deadline)
        if time.monotonic() > deadline:
            return


def _kill(pids: list[int], deadline: float) -> None:
    """Send SIGKILL to these processes, and wait until all have ended or the deadline has passed."""
    ends = select.poll()
    left = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
            ends.register(fd, select.POLLIN)
            left.add(fd)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    try:
        while left and (seconds := deadline - time.monotonic()) > 0:
            for fd, _ in ends.poll(seconds * 1000):
                ends.unregister(fd)
                left.discard(fd)
                os.close(fd)
    finally:
        for fd in left:
            os.close(fd)


def session(leader: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 -- many times faster
        if name.isdigit():
            fields = _status(int(name))
            if fields and fields[0] not in "ZX" and fields[3] == str(leader):
                found.append(int(name))
    return found


def _start_time(pid: int) -> str | None:
    fields = _status(pid)
    return fields[19] if fields and fields[0] not in "ZX" else None


def _status(pid: int) -> list[str]:
    """Return /proc/PID/stat from its third field on, see proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


if __name__ == "__main__":
    end_session(int(sys.argv[1]), sys.argv[2])
