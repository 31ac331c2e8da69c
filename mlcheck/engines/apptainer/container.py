"""One running apptainer container, and shells in it.

The first shell, which apptainer starts, runs no commands: it starts the other shells and kills
process groups. All of them are in one container and share its processes, its `/tmp` and its
network. Each of the others has three FIFOs for its input and output, made from outside in the
container's `/dev/shm`, a directory that apptainer makes and no file of the image.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mlcheck.engines import shell_kill
from mlcheck.engines.apptainer import session_end
from mlcheck.engines.apptainer.process import in_container, started
from mlcheck.engines.limits import Limits
from mlcheck.engines.shell import NoShell, StreamEnded, write_all
from mlcheck.machine import pid_limit, usage
from mlcheck.machine.janitor_process import start_time
from mlcheck.model.errors import EngineError

_START_LIMIT_S = 60.0
_LOOK_S = 0.2
"""Seconds between two looks at what the container takes."""
_CHUNK = 256 * 1024
_STDOUT, _STDERR = 1, 2
_KEPT = 64 * 1024
"""Bytes kept of the output of apptainer and the image's own scripts before the shell answers."""

_FATAL = re.compile(r"(?:FATAL|ERROR) *: *(.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NO_NV = "Could not find any nv files"
"""Apptainer's message when it does not provide an NVIDIA GPU and continues without."""

_GREETING = (
    "s=0; for p in /bin/setsid /usr/bin/setsid; do [ -x $p ] && s=$p; done; "
    "c=0; for f in /.singularity.d/libs/libcuda.so*; do [ -e $f ] && c=1; done; "
    "printf '%s %d %s %d;' {} $$ $s $c; exec >/dev/null 2>&1\n"
)


@dataclass(frozen=True, slots=True)
class _Greeting:
    """The first shell's answer: its process ID in the container, and programs and libraries there.

    Args:
        setsid: path of that program; None if there is none.
        cuda: True if NVIDIA's driver library is there. Other libraries do not prove a GPU:
            apptainer also takes libEGL and libGL of a machine that has none.
    """

    pid: int
    setsid: str | None
    cuda: bool


def _greet(process: subprocess.Popen[bytes]) -> tuple[_Greeting | None, str]:
    """Return the first shell's answer, if there was one, and what was printed on stderr
    until then."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    nonce = secrets.token_hex(16)
    answer = re.compile(rf"{nonce} (\d+) (0|/usr/bin/setsid|/bin/setsid) ([01]);".encode())
    kept = {1: b"", 2: b""}
    found = None
    deadline = time.monotonic() + _START_LIMIT_S
    with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(process.stdout, selectors.EVENT_READ, 1)
        selector.register(process.stderr, selectors.EVENT_READ, 2)
        process.stdin.write(_GREETING.format(nonce).encode())
        while not found and selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, _CHUNK)
                kept[key.data] = (kept[key.data] + data)[-_KEPT:]
                if not data:
                    selector.unregister(key.fileobj)
            found = answer.search(kept[1])
    said = _COLOUR.sub("", kept[2].decode("utf-8", "replace"))
    if not found:
        return None, said
    setsid = None if found[2] == b"0" else found[2].decode()
    return _Greeting(int(found[1]), setsid, found[3] == b"1"), said


class Container:
    """A started container.

    Args:
        argv: the program with all options and the image; the command is added.
        gpu: True if NVIDIA's driver libraries must be in the container.
        confined: see `started`.
        limits: beyond which the container is ended.
        explain: makes an EngineError from apptainer's last messages.

    Raises:
        EngineError: apptainer failed, or did not find the driver libraries.
        NoShell: the image has no working `/bin/sh`, or no setsid(1), without which a limit could
            not end the processes that a command started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        gpu: bool,
        confined: bool,
        limits: Limits,
        explain: Callable[[str], EngineError],
    ) -> None:
        self._lock = threading.Lock()
        with ExitStack() as stack:
            process = stack.enter_context(started([*argv, "/bin/sh"], env, confined=confined))
            found, said = _greet(process)
            words = last_words(said)
            if NO_NV in said or (found and gpu and not found.cuda):
                raise explain(NO_NV)
            pid = in_container(process.pid, found.pid) if found else None
            if pid is None and words and "/bin/sh" not in words:
                raise explain(said)
            if found is None or pid is None or not found.setsid:
                raise NoShell
            pid_limit.limit(pid, limits.processes)
            self._shm = _own_directory(pid, ("dev", "shm"))
            stack.callback(os.close, self._shm)
            self._in_memory = [self._shm]
            if os.geteuid() == 0:  # an ordinary user's is on the disk
                self._in_memory.append(_own_directory(pid, ("tmp",)))
                stack.callback(os.close, self._in_memory[-1])
            self._setsid = found.setsid
            self._process = process
            self.exceeded = ""
            self._closed = threading.Event()
            watch = threading.Thread(target=self._watch, args=(limits,), daemon=True)
            watch.start()
            stack.callback(watch.join)
            stack.callback(self._closed.set)
            self._resources = stack.pop_all()

    def _watch(self, limits: Limits) -> None:
        """End the container if its processes take more than they may.

        apptainer can give it a cgroup only where systemd gives one to apptainer.
        """
        wait_s = _LOOK_S
        while not self._closed.wait(wait_s):
            begun = time.monotonic()
            family = usage.below(self._process.pid)
            room = limits.memory - sum(map(_used, self._in_memory))
            if sum(each.threads for each in family) > limits.processes:
                self.exceeded = limits.exceeded("processes")
            elif room < 0 or usage.memory(family, room) > room:
                self.exceeded = limits.exceeded("memory")
            if self.exceeded:
                session_end.end_session(self._process.pid, start_time(self._process.pid) or "")
                return
            wait_s = max(_LOOK_S, 5 * (time.monotonic() - begun))

    def has_ended(self, patience_s: float = 0.0) -> bool:
        """Return whether it has ended, or ends within `patience_s`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        return self._process.returncode is not None

    def connect(self) -> FifoStream:
        """Start one more shell.

        Raises:
            StreamEnded: the container has ended.
        """
        stream = FifoStream(self._shm, self._process.pid)
        pipes = (f"/dev/shm/{name}" for name in stream.names)  # noqa: S108
        # In a pipeline no signal is ignored, as it would be in the background of a shell. The
        # pipeline's other end goes on reading orders, and the first shell waits for both. Some
        # shells read more than a line at a time: the next order must come after this change. By
        # setsid, each shell leads a process group, which a limit can end.
        order = (
            f"exec 9<&0; {{{{ printf .; exec {self._setsid} /bin/sh; }}}} <{{}} >{{}} 2>{{}} 9<&- "
            "| /bin/sh <&9 9<&-"
        )
        try:
            with self._lock:
                self._order(order.format(*pipes))
                stream.wait_until_open()
        except BaseException:
            stream.close()
            raise
        return stream

    def kill(self, group: int, since: int | None) -> None:
        """Send SIGKILL to a process group, and to what left it; see `shell_kill.line`."""
        with self._lock:
            self._order(shell_kill.line(group, since))

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(f"{line}\n".encode())

    def close(self) -> None:
        """End all processes in the container."""
        self._resources.close()


class FifoStream:
    """A shell that reads and writes three FIFOs; see `mlcheck.engines.shell.Stream`.

    Args:
        directory: descriptor of the directory for the FIFOs.
        container: the process whose end is the shell's end.

    Raises:
        EngineError: the FIFOs cannot be made.
    """

    def __init__(self, directory: int, container: int) -> None:
        self._directory = directory
        self._selector = selectors.DefaultSelector()
        self._resources = ExitStack()
        self._resources.callback(self._selector.close)
        self._names = ExitStack()
        self._resources.callback(self._names.close)
        name = f"mlcheck-{secrets.token_hex(16)}"
        self.names = [f"{name}.{number}" for number in range(3)]
        try:
            for fifo in self.names:
                os.mkfifo(fifo, 0o600, dir_fd=directory)
                self._names.callback(self._unlink, fifo)
            # A writer alone could not open it before the shell does.
            self._stdin = self._open(self.names[0], os.O_RDWR)
            self._resources.callback(lambda: os.close(self._stdin))
            for number in (_STDOUT, _STDERR):
                fd = self._open(self.names[number], os.O_RDONLY | os.O_NONBLOCK)
                self._resources.callback(os.close, fd)
                self._selector.register(fd, selectors.EVENT_READ, number)
            self._end = os.pidfd_open(container)
            self._resources.callback(os.close, self._end)
            self._selector.register(self._end, selectors.EVENT_READ, 0)
        except OSError as error:
            self._resources.close()
            raise EngineError(
                f"The container ended or its /dev/shm cannot be used: {error.strerror}."
            ) from None

    def _open(self, name: str, flags: int) -> int:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(2, "a FIFO was replaced", name)
        return fd

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._directory)

    def wait_until_open(self) -> None:
        """Wait for the byte that the shell prints when it starts; then remove the names of
        the FIFOs.

        Raises:
            StreamEnded: the container ended, or nothing comes.
        """
        ready = [key for key, _ in self._selector.select(_START_LIMIT_S)]
        first = next((key.fd for key in ready if key.data == _STDOUT), None)
        if first is None or os.read(first, 1) != b".":
            raise StreamEnded
        try:
            writer = self._open(self.names[0], os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            raise StreamEnded from None
        # If we had a reader of our own, writing would not reveal the shell's end.
        os.close(self._stdin)
        self._stdin = writer
        self._names.close()

    def send(self, data: bytes, timeout_s: float | None = None) -> None:
        write_all(self._stdin, data, timeout_s)

    def receive(self, timeout_s: float) -> list[tuple[int, bytes]]:
        received = []
        ready = self._selector.select(max(0.0, timeout_s))
        for key, _ in ready:
            if key.data:
                data = os.read(key.fd, _CHUNK)
                if data:
                    received.append((key.data, data))
                else:
                    self._selector.unregister(key.fd)
        over = len(self._selector.get_map()) == 1 or {key.data for key, _ in ready} == {0}
        if not received and over:
            raise StreamEnded
        return received

    def close(self) -> None:
        self._resources.close()


def last_words(said: str) -> str:
    """Return apptainer's messages about its own failure; "" if there are none."""
    found: list[str] = _FATAL.findall(said)
    return found[-1].strip() if found else ""


def _used(directory: int) -> int:
    """Return the bytes that the files take in the file system of an open directory."""
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _own_directory(pid: int, parts: Sequence[str]) -> int:
    """Open a directory of a process' root file system without following any symlink; return
    its descriptor."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        fd = os.open(f"/proc/{pid}/root", flags)
        for part in parts:
            try:
                below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
    except OSError as error:
        raise EngineError(
            f"The container's /{'/'.join(parts)} cannot be opened from outside: {error.strerror}.",
            "Run mlcheck as the user who starts the container, on a machine with user namespaces.",
        ) from None
    return fd
