"""Clean up even after kill -9, with a small process that outlives this one.

Before this process creates something that would outlive it (a container, a daemon, a mount, a
temporary directory), it registers with the janitor an action that undoes it. When the process has
cleaned up in the ordinary way, it drops the action.

Leftovers of a power cut, or of an end that took the janitor too, are recognised by their label: a
container has it as `owner`, a temporary directory in its name. The first action of a process has
the janitor remove such directories.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlcheck.machine import environ
from mlcheck.machine.janitor_process import UNDO_ERRORS, start_time, undo

Action = dict[str, Any]
"""An action that undoes something; made by the functions below."""


def http_delete(
    host: str,
    path: str,
    *,
    in_work: bool = False,
    tls: Sequence[str | bool | None] | None = None,
) -> Action:
    """Send DELETE for `path` to a server: host is "unix:///SOCKET" or "tcp://HOST:PORT".

    Args:
        in_work: the server may still be creating it: wait a while for it to exist.
        tls: for a server that speaks TLS: the files of the authority, the certificate and the key,
            each or None, and whether the server's certificate is verified.
    """
    found = {"kind": "http-delete", "host": host, "path": path, "in_work": in_work}
    return found if tls is None else {**found, "tls": list(tls)}


def kill(pid: int, *, group: bool = False) -> Action:
    """Send SIGKILL to a process, if it is still the same one.

    Args:
        group: kill the whole process group that it leads. The group first gets SIGTERM and ten
            seconds to finish, then SIGKILL.
    """
    return {"kind": "kill", "pid": pid, "started": start_time(pid) or "", "group": group}


def remove(path: Path) -> Action:
    """Remove a directory with its contents, also one of an image that not even its owner may
    change."""
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
            self._write(self._process, message)

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
        for directory in abandoned_directories():
            self._write(process, {"now": remove(directory)})
        return process

    @staticmethod
    def _write(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
        assert process.stdin is not None
        # If somebody killed the janitor, ordinary cleaning up still works.
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()


_JANITOR = _Janitor()


@contextlib.contextmanager
def promised(action: Action) -> Iterator[None]:
    """Do `action` if this process ends while the context lasts.

    The body of the context undoes its own work before it is left; then the action is dropped.
    """
    number = _JANITOR.add(action)
    try:
        yield
    finally:
        _JANITOR.send({"drop": number})


@contextlib.contextmanager
def answered(action: Action, refusal: type[Exception]) -> Iterator[None]:
    """Do `action` when this process ends, unless a server answers in the context.

    A request that is given up (a signal, a timeout) is carried out all the same, and later.

    Args:
        refusal: the error that is an answer.
    """
    number = _JANITOR.add(action)
    with contextlib.ExitStack() as drop:
        drop.callback(_JANITOR.send, {"drop": number})
        try:
            yield
        except refusal:
            raise
        except BaseException:
            drop.pop_all()
            raise


@contextlib.contextmanager
def undone(action: Action) -> Iterator[None]:
    """Do `action` if this process ends, and also, as far as possible, when the context is left."""
    with promised(action):
        try:
            yield
        finally:
            with contextlib.suppress(*UNDO_ERRORS):
                undo(action)


@contextlib.contextmanager
def temporary_directory(prefix: str = "mlcheck-", place: Path | None = None) -> Iterator[Path]:
    """Create a private directory that is removed with the context or with this process.

    Args:
        prefix: what its name begins with; "mlcheck-" begins that.
        place: the directory that it is created in; None for that of temporary files.
    """
    directory = labelled(prefix, place)
    with undone(remove(directory)):  # registered before the directory exists
        directory.mkdir(mode=0o700)
        yield directory


def labelled(prefix: str, place: Path | None = None) -> Path:
    """Return a path that does not exist, whose name says which process it belongs to."""
    machine, boot, namespace, pid, started = owner().split("/")
    label = (_short(machine), _short(boot), namespace, pid, started, os.urandom(4).hex())
    return (place or Path(tempfile.gettempdir())) / f"{prefix}{'-'.join(label)}"


def abandoned_directories(place: Path | None = None) -> list[Path]:
    """Return the labelled directories of this user whose owner has ended."""
    found = []
    with contextlib.suppress(OSError), os.scandir(place or tempfile.gettempdir()) as entries:
        for entry in entries:
            if (label := _LABELLED.fullmatch(entry.name)) is None:
                continue
            mine = entry.is_dir(follow_symlinks=False) and (
                entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            )
            if mine and _has_ended(*label.groups()):
                found.append(Path(entry.path))
    return found


_LABELLED = re.compile(
    r"mlcheck-(?:[a-z]+-)?([0-9a-f]{8})-([0-9a-f]{8})-(\d+)-(\d+)-(\d*)-[0-9a-f]{8}"
)


@functools.cache
def owner() -> str:
    """Return the label for things that belong to this process.

    "MACHINE/BOOT/PID-NAMESPACE/PID/START-TIME"
    """
    return "/".join((*_here(), str(os.getpid()), start_time(os.getpid()) or ""))


def is_abandoned(label: str) -> bool:
    """Return whether the owner in a label has ended without cleaning up.

    False if this cannot be known from here: the label is another machine's or container's.
    """
    parts = label.split("/")
    if len(parts) != 5 or not parts[3].isdigit():
        return False
    return _has_ended(_short(parts[0]), _short(parts[1]), *parts[2:])


def _has_ended(machine: str, boot: str, namespace: str, pid: str, started: str) -> bool:
    here = _here()
    if machine != _short(here[0]):
        return False
    if boot != _short(here[1]):
        return True
    return namespace == here[2] and start_time(int(pid)) != started


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@functools.cache
def _here() -> tuple[str, str, str]:
    def text(path: str) -> str:
        with contextlib.suppress(OSError):
            return Path(path).read_text(encoding="ascii").strip()
        return ""

    # A minimal system has no machine-id: use the host's name.
    machine = text("/etc/machine-id") or os.uname().nodename
    namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    return machine, text("/proc/sys/kernel/random/boot_id"), namespace
