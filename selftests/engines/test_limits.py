"""Limits of memory and processes: what the options mean, and what is counted where no cgroup is.

That they hold on each engine is tried in test_isolation.py.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlcheck.engines import limits
from mlcheck.engines.limits import DEFAULT, Limits
from mlcheck.machine import usage
from mlcheck.model.errors import UsageError

_MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 << 30), ("500M", 500 * _MIB), ("2gib", 2 << 30), ("100000 ", 0), ("1T", 1 << 40)],
)
def test_a_size(text: str, size: int) -> None:
    if not size:
        with pytest.raises(UsageError, match="too little"):
            limits.parse(text, None)
    else:
        assert limits.parse(text, 100) == Limits(size, 100)


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1G", "8X", "8 G", "unlimited"])
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="no size"):
        limits.parse(text, None)


def test_defaults() -> None:
    assert limits.parse(None, None) == DEFAULT
    assert DEFAULT.memory > 64 * _MIB
    assert DEFAULT.processes >= 4096
    with pytest.raises(UsageError, match="too few"):
        limits.parse(None, 1)


def test_what_processes_share_counts_once() -> None:
    code = (
        "import os, sys\nheld = b'x' * (100 << 20)\n"
        "for _ in range(5):\n"
        "    if not os.fork(): sys.stdin.read(); os._exit(0)\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        ["sh", "-c", '"$@"; :', "sh", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdout is not None
        assert shell.stdin is not None
        assert shell.stdout.readline() == b"ready\n"
        family = usage.below(shell.pid)
        assert len(family) == 6
        assert sum(each.threads for each in family) == 6
        assert usage.memory(family, 10_000 * _MIB) > 600 * _MIB, "roughly, since it is enough"
        assert 100 * _MIB < usage.memory(family, 300 * _MIB) < 200 * _MIB
        shell.stdin.close()
