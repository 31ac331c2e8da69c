"""Processes and memory that a process takes with all its descendants.

For limits where no cgroup can be had. Only the standard library is used: the sandbox's first
process has nothing else.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """One process, as /proc/PID/stat shows it, proc(5).

    Args:
        begun: when it started, in ticks since boot.
        resident: bytes in memory; what several processes share counts for each.
    """

    pid: int
    parent: int
    group: int
    threads: int
    begun: int
    resident: int


def process(pid: int) -> Process | None:
    """Return a process; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in b"ZX":
        return None
    return Process(
        pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        threads=int(fields[17]),
        begun=int(fields[19]),
        resident=int(fields[21]) * _PAGE,
    )


def processes() -> dict[int, Process]:
    """Return all processes that can be seen, by their IDs."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
    return {each.pid: each for each in found if each}


def below(top: int) -> list[Process]:
    """Return the descendants of a process."""
    children: dict[int, list[Process]] = {}
    for each in processes().values():
        children.setdefault(each.parent, []).append(each)
    found: list[Process] = []
    parents = [top]
    while parents:
        for child in children.get(parents.pop(), ()):
            found.append(child)
            parents.append(child.pid)
    return found


def memory(family: list[Process], enough: int) -> int:
    """Return the bytes of memory that some processes take.

    What they share is counted once if they may be above `enough`: that takes longer.
    """
    rough = sum(each.resident for each in family)
    if rough <= enough:
        return rough
    return sum(_proportional(each) for each in family)


def _proportional(each: Process) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{each.pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0
