"""Runs the commands that arrive on a socket, and passes on their output.

This is the part of a sandbox's first process that serves, once `mlcheck.engines.sandbox.init` has
built its root file system. Only the standard library can be used here, and nothing of it may be
imported late.

Frames are sent over the socket: `HEADER` (payload length, kind, command number) and the payload.
When the socket is closed, or the process that the sandbox belongs to ends, this process exits, and
the kernel ends everything in its PID namespace.
"""

# pathlib imports parts of itself late.
# ruff: noqa: PTH110, PTH112, PTH113, PTH118, PTH123

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from mlcheck.machine import usage

HEADER = struct.Struct("!IcI")
RUN = b"r"  # to the sandbox; payload: length of a JSON object, the object, the bytes for stdin
KILL = b"k"  # to the sandbox
READY = b"y"  # from the sandbox, once
STDOUT = b"o"
STDERR = b"e"
ENDED = b"x"  # payload: a JSON object

CHUNK = 256 * 1024
"""Most bytes in one frame from the sandbox."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ROUNDS = 50

_LOOK_S = 0.2
"""Seconds between two looks at what the commands take."""

_GRACE_S = 1.0
"""Seconds for which a command's output is still read after its first process has ended."""


class _Command:
    """One running command.

    Attributes:
        room: bytes that each stream may still print, by its file descriptor.
        exit_code: exit code of its first process, once that has ended.
        begun: when it started, in ticks since boot.
        exceeded: the limit because of which it was killed: "memory", "processes".
    """

    def __init__(self, number: int, process: subprocess.Popen[bytes], limit_s: float) -> None:
        self.number = number
        self.process = process
        self.started = time.monotonic()
        self.deadline = self.started + limit_s
        self.kinds: dict[int, bytes] = {}
        self.room: dict[int, int] = {}
        self.stdin: int | None = None
        self.input = memoryview(b"")
        self.exit_code: int | None = None
        own = usage.process(process.pid)
        self.begun = own.begun if own else 0
        self.exceeded: str | None = None


class Server:
    """Runs the commands that arrive on `control`, side by side, in one thread.

    Args:
        caller: PID file descriptor of the process to which the sandbox belongs.
        most_memory: bytes that all commands may take together.
        most_processes: processes and threads that they may have together.
    """

    def __init__(
        self, control: socket.socket, caller: int | None, most_memory: int, most_processes: int
    ) -> None:
        self._most_memory = most_memory
        self._most_processes = most_processes
        self._next_look = 0.0
        self._control = control
        self._received = bytearray()
        self._commands: dict[int, _Command] = {}
        self._by_pid: dict[int, _Command] = {}
        self._selector = selectors.DefaultSelector()
        self._watch(control.fileno(), selectors.EVENT_READ, self._receive)
        if caller is not None:
            self._watch(caller, selectors.EVENT_READ, sys.exit)
        woken, wakes = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._woken = woken
        self._watch(woken, selectors.EVENT_READ, self._reap)

    def serve(self) -> None:
        self._send(READY, 0, b"")
        while True:
            now = time.monotonic()
            for command in list(self._commands.values()):
                if now >= command.deadline:
                    self._finish(command, "exited" if command.exit_code is not None else "timeout")
            deadlines = [command.deadline for command in self._commands.values()]
            if deadlines:
                self._look(now)
                deadlines.append(self._next_look)
            wait = max(0.0, min(deadlines) - now) if deadlines else None
            for key, _ in self._selector.select(wait):
                # An earlier callback of this round may have closed this one's file.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()

    def _look(self, now: float) -> None:
        """Kill everything if the commands take more than they may.

        A user may make no cgroup, and the kernel does not count the processes of root.
        """
        if now < self._next_look:
            return
        family = [each for each in usage.processes().values() if each.pid != 1]
        exceeded = None
        if sum(each.threads for each in family) > self._most_processes:
            exceeded = "processes"
        elif usage.memory(family, self._most_memory) > self._most_memory:
            exceeded = "memory"
        if exceeded:
            for command in self._commands.values():
                command.exceeded = exceeded
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        # A look may take long.
        self._next_look = time.monotonic() + max(_LOOK_S, 5 * (time.monotonic() - now))

    def _watch(self, fd: int, events: int, callback: Callable[[], object]) -> None:
        self._selector.register(fd, events, callback)

    def _send(self, kind: bytes, number: int, payload: bytes) -> None:
        try:
            self._control.sendall(HEADER.pack(len(payload), kind, number) + payload)
        except OSError:
            sys.exit(0)  # the caller has ended

    def _receive(self) -> None:
        data = self._control.recv(CHUNK)
        if not data:
            sys.exit(0)
        self._received += data
        while len(self._received) >= HEADER.size:
            length, kind, number = HEADER.unpack_from(self._received)
            end = HEADER.size + length
            if len(self._received) < end:
                return
            payload = bytes(memoryview(self._received)[HEADER.size : end])
            del self._received[:end]
            if kind == RUN:
                (size,) = struct.unpack_from("!I", payload)
                self._run(number, json.loads(payload[4 : 4 + size]), payload[4 + size :])
            elif number in self._commands:
                self._finish(self._commands[number], "timeout")

    def _run(self, number: int, request: dict[str, Any], stdin: bytes) -> None:
        argv, env, cwd = request["argv"], request["env"], request["cwd"]
        program, failure = _find(argv[0], env.get("PATH", DEFAULT_PATH), cwd)
        process = None
        if program is not None:
            ends = [os.open("/dev/null", os.O_RDONLY)] if not stdin else list(os.pipe())
            out, err = os.pipe(), os.pipe()
            try:
                process = subprocess.Popen(
                    argv,
                    executable=program,
                    env=env,
                    cwd=cwd,
                    stdin=ends[0],
                    stdout=out[1],
                    stderr=err[1],
                    start_new_session=True,
                    # Every file of this process is close-on-exec already.
                    close_fds=False,
                )
            except (OSError, ValueError) as error:
                failure = _why(program, cwd, error)
            for fd in (ends[0], out[1], err[1]):
                os.close(fd)
            if process is None:
                for fd in (*ends[1:], out[0], err[0]):
                    os.close(fd)
        if process is None:
            code, text = failure
            self._send(STDERR, number, f"mlcheck: {text}\n".encode("utf-8", "surrogateescape"))
            self._send_end(number, code, "exited", 0.0)
            return
        command = _Command(number, process, request["limit_s"])
        self._commands[number] = self._by_pid[process.pid] = command
        for fd, kind in ((out[0], STDOUT), (err[0], STDERR)):
            os.set_blocking(fd, False)
            command.kinds[fd] = kind
            command.room[fd] = request["output_limit"]
            self._watch(fd, selectors.EVENT_READ, functools.partial(self._output, command, fd))
        if stdin:
            command.stdin, command.input = ends[1], memoryview(stdin)
            os.set_blocking(ends[1], False)
            self._watch(ends[1], selectors.EVENT_WRITE, lambda: self._input(command))

    def _input(self, command: _Command) -> None:
        assert command.stdin is not None
        try:
            command.input = command.input[os.write(command.stdin, command.input[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:  # it does not read its input
            command.input = memoryview(b"")
        if not command.input:
            self._close(command.stdin)
            command.stdin = None

    def _output(self, command: _Command, fd: int) -> bool:
        """Pass on the command's output; return False if there is no more for now."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._close(fd)
            del command.kinds[fd]
            self._finish_if_complete(command)
            return False
        room = command.room[fd]
        command.room[fd] = room - len(data)
        self._send(command.kinds[fd], command.number, data[:room])
        if len(data) > room:
            self._finish(command, "output-limit")
            return False
        return True

    def _reap(self) -> None:
        os.read(self._woken, CHUNK)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                command = self._by_pid.pop(pid, None)
                if command is not None:
                    code = os.waitstatus_to_exitcode(status)
                    command.exit_code = code if code >= 0 else 128 - code
                    command.deadline = min(command.deadline, time.monotonic() + _GRACE_S)
                    self._finish_if_complete(command)

    def _finish_if_complete(self, command: _Command) -> None:
        if command.exit_code is not None and not command.kinds:
            self._finish(command, "exited")

    def _finish(self, command: _Command, ended: str) -> None:
        """End the rest of the command's process group, and after a limit all that it started;
        report."""
        if self._commands.pop(command.number, None) is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.process.pid, signal.SIGKILL)
        if ended != "exited":
            self._kill_daemons(command)
        for fd in list(command.kinds):
            while command.room[fd] >= 0 and self._output(command, fd):
                pass
        for fd in command.kinds:
            self._close(fd)
        if any(room < 0 for room in command.room.values()):
            ended = "output-limit"
        if command.stdin is not None:
            self._close(command.stdin)
        command.process.returncode = 0  # reaped here, not by subprocess
        seconds = time.monotonic() - command.started
        code = command.exit_code if ended == "exited" else None
        self._send_end(command.number, code, ended, seconds, command.exceeded)

    def _kill_daemons(self, command: _Command) -> None:
        """Kill what has left the command's process group: descendants of this process that are no
        older than the command, and not another command's.

        They may go on to start processes: this looks for them until a look finds none that is new.
        A command that is faster than that takes everything in the sandbox with it.
        """
        others = {other.process.pid for other in self._commands.values()}
        killed: set[int] = set()
        for _ in range(_ROUNDS):
            processes = usage.processes()
            new = set()
            for pid, process in processes.items():
                top = process
                while top.parent in processes and top.parent != 1:
                    top = processes[top.parent]
                if (
                    process.parent != 0
                    and top.begun >= command.begun
                    and not {top.pid, top.group, process.group} & others
                ):
                    new.add(pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if new <= killed:
                return
            killed |= new
        os.kill(-1, signal.SIGKILL)

    def _send_end(
        self,
        number: int,
        code: int | None,
        ended: str,
        seconds: float,
        exceeded: str | None = None,
    ) -> None:
        report = {"exit_code": code, "ended": ended, "seconds": seconds, "exceeded": exceeded}
        self._send(ENDED, number, json.dumps(report).encode())

    def _close(self, fd: int) -> None:
        self._selector.unregister(fd)
        os.close(fd)


def _find(name: str, path: str, cwd: str) -> tuple[str | None, tuple[int, str]]:
    """Return the program for `name`, or exit code and reason as a shell gives them."""
    if not os.path.isdir(cwd):
        return None, (126, f"cannot start in {cwd}: there is no such directory")
    if "/" in name:
        candidates = [os.path.join(cwd, name)]
    else:
        candidates = [os.path.join(cwd, directory, name) for directory in path.split(":")]
    failure = (127, f"{name}: not found" + ("" if "/" in name else f" on PATH={path}"))
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate, failure
        if os.path.lexists(candidate):
            failure = _unusable(candidate)
    return None, failure


def _unusable(path: str) -> tuple[int, str]:
    if not os.path.exists(path):
        return 127, f"{path}: is a symlink that leads nowhere"
    if not os.path.isfile(path):
        return 126, f"{path}: is no regular file"
    return 126, f"{path}: is not executable"


def _why(program: str, cwd: str, error: OSError | ValueError) -> tuple[int, str]:
    """Return exit code and reason if the kernel did not start `program`, which exists."""
    if isinstance(error, ValueError):  # a NUL byte
        return 126, f"{program}: {error}"
    if error.filename == cwd:
        return 126, f"cannot start in {cwd}: {error.strerror}"
    if error.errno == errno.ENOENT:
        return 127, f"{program}: its interpreter does not exist{_interpreter(program)}"
    return 126, f"{program}: cannot be executed: {error.strerror}"


def _interpreter(program: str) -> str:
    with contextlib.suppress(OSError), open(program, "rb") as file:
        line = file.read(256).partition(b"\n")[0]
        if line.startswith(b"#!"):
            return f" ({line.decode('utf-8', 'surrogateescape')})"
        return " (the dynamic loader that its ELF header names)"
    return ""
