"""Nothing is left behind, even by kill -9: a small process undoes what this one no longer can.

Before something is made that would outlive this process (a container, a daemon, a mount, a
temporary directory), it is promised to be undone; when it has been undone in the ordinary way,
the promise is dropped. What a power cut left can be told by its label: see `owner`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlcheck import environ
from mlcheck.engines.janitor_process import UNDO_ERRORS, start_time, undo

Action = dict[str, Any]
"""How to undo something; made by the functions below."""


def http_delete(host: str, path: str) -> Action:
    """DELETE `path` at a server: host is "unix:///SOCKET" or "tcp://HOST:PORT"."""
    return {"kind": "http-delete", "host": host, "path": path}


def kill(pid: int, *, group: bool = False) -> Action:
    """SIGKILL a process, if it is still the same one.

    Args:
        group: with the process group that it leads, which may first finish what it is doing: what
            SIGTERM has not ended within ten seconds gets SIGKILL.
    """
    return {"kind": "kill", "pid": pid, "started": start_time(pid) or "", "group": group}


def remove(path: Path) -> Action:
    """Remove a directory with all that is in it."""
    return {"kind": "remove", "path": str(path.absolute())}


def run(argv: Sequence[str]) -> Action:
    """Run a program of this machine."""
    return {"kind": "run", "argv": list(argv)}


class _Janitor:
    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._process is None:
                self._process = self._start()
            assert self._process.stdin is not None
            # Without a janitor (somebody killed it) the ordinary way of tidying up still works.
            with contextlib.suppress(OSError):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()

    def add(self, action: Action) -> int:
        number = next(self._numbers)
        self.send({"add": number, "action": action})
        return number

    def _start(self) -> subprocess.Popen[bytes]:
        pidfds = []
        with contextlib.suppress(OSError, AttributeError):  # Linux < 5.3
            pidfds.append(os.pidfd_open(os.getpid()))
        try:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-X", "utf8"),
                    str(Path(__file__).with_name("janitor_process.py")),
                    *map(str, pidfds),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environ.own(),
                pass_fds=pidfds,
                start_new_session=True,
            )
        finally:
            for fd in pidfds:
                os.close(fd)
        atexit.register(self._end, process)
        return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()


_JANITOR = _Janitor()


@contextlib.contextmanager
def promised(action: Action) -> Iterator[None]:
    """While this context lasts, the end of this process does `action`.

    What the context guards undoes itself when it is left; the promise is dropped after that.
    """
    number = _JANITOR.add(action)
    try:
        yield
    finally:
        _JANITOR.send({"drop": number})


@contextlib.contextmanager
def undone(action: Action) -> Iterator[None]:
    """The same, and leaving the context does `action` too, as far as it can be done."""
    with promised(action):
        try:
            yield
        finally:
            with contextlib.suppress(*UNDO_ERRORS):
                undo(action)


@contextlib.contextmanager
def temporary_directory(prefix: str = "mlcheck-") -> Iterator[Path]:
    """A new directory for this user alone, which goes with the context or with this process."""
    directory = Path(tempfile.gettempdir()) / f"{prefix}{os.urandom(8).hex()}"
    with undone(remove(directory)):  # promised before it is there
        directory.mkdir(mode=0o700)
        yield directory


@functools.cache
def owner() -> str:
    """What labels the things that belong to this process.

    "MACHINE/BOOT/PID-NAMESPACE/PID/START-TIME"
    """
    return "/".join((*_here(), str(os.getpid()), start_time(os.getpid()) or ""))


def is_abandoned(label: str) -> bool:
    """Whether the owner of something so labelled has ended without tidying up.

    False when this cannot be known from here: another machine's, another container's.
    """
    parts = label.split("/")
    if len(parts) != 5 or not parts[3].isdigit():
        return False
    machine, boot, namespace = _here()
    if parts[0] != machine:
        return False
    if parts[1] != boot:
        return True
    return parts[2] == namespace and start_time(int(parts[3])) != parts[4]


@functools.cache
def _here() -> tuple[str, str, str]:
    def text(path: str) -> str:
        with contextlib.suppress(OSError):
            return Path(path).read_text(encoding="ascii").strip()
        return ""

    # Without a machine-id (in a minimal system) the host's name must do.
    machine = text("/etc/machine-id") or os.uname().nodename
    namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    return machine, text("/proc/sys/kernel/random/boot_id"), namespace
