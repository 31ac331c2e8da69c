"""Commands through one `/bin/sh` that stays open in a container.

Starting a command through a container engine takes a tenth of a second; through a shell that is
already running it takes a millisecond. The shell reads its orders from its standard input. The
command's output comes back unchanged, between marks that contain a number nobody can guess: neither
a banner nor binary output can be mistaken for one of them.

The shell is the leader of its process group, and its commands are in that group: a limit ends them
with all that they started, and the shell with them; the next command gets another shell. A group of
its own for each command would need another program of the image in between, which takes longer than
most commands do. `mlcheck.engines.shell_kill` finds what has left the group.

Only features of a shell that POSIX specifies are used; `selftests/engines/test_shell.py` tries
several shells.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import select
import selectors
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol

from mlcheck.engines import shell_kill
from mlcheck.engines.base import Command, Completed
from mlcheck.model.errors import EngineError

_CHUNK = 256 * 1024
_START_LIMIT_S = 60.0
_END_LIMIT_S = 10.0
"""Seconds in which a killed command's shell must report it."""
_GRACE_S = 1.0
"""Seconds for which a command's output is still read after its first process has ended."""
_GRACE_STEP_S = 0.02

STEP_S = 3600.0
"""The longest time to wait at once; the limit of poll(2) is some weeks."""

_MARK_LIMIT = 16
"""Most bytes of a mark behind its number."""

_STDOUT, _STDERR = 1, 2
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class StreamEnded(Exception):  # noqa: N818 - an event
    """The other end of a stream is closed."""


class NoShell(Exception):  # noqa: N818 - a finding about the image
    """The image has no working /bin/sh."""


class Stream(Protocol):
    """A running `/bin/sh`: its standard input, output and error. For one thread at a time."""

    def send(self, data: bytes, timeout_s: float | None = None) -> None:
        """Write to the shell's standard input.

        Raises:
            StreamEnded: the shell no longer reads it.
            TimeoutError: it has not read all of it in time.
        """

    def receive(self, timeout_s: float) -> list[tuple[int, bytes]]:
        """Return the output since the last call: (1 for stdout or 2 for stderr, bytes); []
        after `timeout_s`.

        Raises:
            StreamEnded: the shell has ended and everything that it printed was received.
        """

    def close(self) -> None:
        """Close the connection to the shell."""


def write_all(fd: int, data: bytes, timeout_s: float | None) -> None:
    """Write to a non-blocking pipe.

    Raises:
        StreamEnded: the pipe has no reader any more.
        TimeoutError: the reader has not read all of it in time.
    """
    view = memoryview(data)
    deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError from None
            poll.poll(min(left, STEP_S) * 1000)
        except OSError:
            raise StreamEnded from None


class PipeStream:
    """A shell that is a process of this machine, with three pipes and in a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self._stdin = process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        self._selector = selectors.DefaultSelector()
        for number, pipe in ((_STDOUT, process.stdout), (_STDERR, process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe.fileno(), selectors.EVENT_READ, number)

    def send(self, data: bytes, timeout_s: float | None = None) -> None:
        write_all(self._stdin, data, timeout_s)

    def receive(self, timeout_s: float) -> list[tuple[int, bytes]]:
        received = []
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            data = os.read(key.fd, _CHUNK)
            if data:
                received.append((key.data, data))
            else:
                self._selector.unregister(key.fd)
        if not received and not self._selector.get_map():
            raise StreamEnded
        return received

    def end_input(self) -> None:
        """Close the process's standard input."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def close(self) -> None:
        """End the process with its group, and wait for it."""
        self._selector.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class _Output:
    """One stream of one command: the output from the first mark on, up to a limit."""

    def __init__(self, nonce: bytes, limit: int) -> None:
        self._nonce = nonce
        self._mark = re.compile(re.escape(nonce) + rb" ([a-z]) ?([0-9]{0,10});")
        self._pending = b""
        self._limit = limit
        self._within = False
        self.kept = bytearray()
        self.exceeded = False
        self.marks: dict[bytes, int] = {}

    def feed(self, data: bytes) -> None:
        self._pending += data
        while mark := self._mark.search(self._pending):
            self._keep(self._pending[: mark.start()])
            self._within = True
            self.marks[mark[1]] = int(mark[2] or 0)
            self._pending = self._pending[mark.end() :]
        # Part of a mark may be here: the whole nonce, or its beginning at the very end.
        safe = self._pending.find(self._nonce)
        if safe < 0 or len(self._pending) > safe + len(self._nonce) + _MARK_LIMIT:
            safe = max(0, len(self._pending) - len(self._nonce))
        self._keep(self._pending[:safe])
        self._pending = self._pending[safe:]

    def resume(self) -> None:
        """Expect another mark at the end."""
        self.marks.pop(b"e", None)

    def end(self) -> None:
        """Finish: nothing more comes, so that the apparent beginning of a mark is not one."""
        self._keep(self._pending)

    def _keep(self, data: bytes) -> None:
        if self._within:
            room = self._limit - len(self.kept)
            self.kept += data[:room]
            self.exceeded = self.exceeded or len(data) > room


class _Shell:
    """One shell that runs one command at a time.

    Attributes:
        usable: True if it can run another command.
        has_ended: False if it could not be ended with a command that ran into a limit.

    Raises:
        NoShell: the other end does not answer as a shell does.
    """

    def __init__(self, stream: Stream, kill: Callable[[int, int | None], None]) -> None:
        self._stream = stream
        self._kill = kill
        nonce = _nonce()
        greeting = _Output(nonce, 0)
        try:
            # A command may signal its process group: the shell survives those signals that it
            # can catch, and the command has the default handlers, as always after exec. The shell's
            # own messages about its children ("Killed") are kept out of their output.
            stream.send(
                f"exec 3>&2 2>/dev/null; trap : HUP INT QUIT TERM USR1 USR2; "
                f"read -r l </proc/$$/stat; {_FIELDS}; g=$3; "
                f"printf '%s g %d;' {nonce.decode()} \"$g\"\n".encode(),
                _START_LIMIT_S,
            )
            deadline = time.monotonic() + _START_LIMIT_S
            while b"g" not in greeting.marks:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StreamEnded
                for number, data in stream.receive(left):
                    if number == _STDOUT:
                        greeting.feed(data)
        except (StreamEnded, TimeoutError):
            raise NoShell from None
        self._group = greeting.marks[b"g"]
        self.usable = True
        self.has_ended = True

    def run(self, command: Command) -> Completed:
        """See `mlcheck.engines.base.OpenImage.run`.

        Raises:
            StreamEnded: the shell ended, and not because of a limit.
        """
        nonce = _nonce()
        out, err = (_Output(nonce, command.output_limit) for _ in range(2))
        self.usable = False
        started = time.monotonic()
        deadline = started + command.limit_s
        ended: Literal["exited", "timeout", "output-limit"] | None = None
        try:
            self._stream.send(_script(nonce.decode(), command), command.limit_s)
        except TimeoutError:
            ended = "timeout"
        while ended is None:
            left = deadline - time.monotonic()
            if out.exceeded or err.exceeded:
                ended = "output-limit"
            elif b"e" in out.marks and b"e" in err.marks:
                ended = "exited"
            elif left <= 0:
                ended = "timeout"
            else:
                self._receive(left, out, err)
        seconds = time.monotonic() - started
        if ended == "exited" and b"d" not in out.marks:
            raise StreamEnded  # the other end is not a shell
        if ended == "exited" and (not out.marks[b"e"] or self._rest_ends(nonce, out, err)):
            self.usable = True
        else:
            since = None if ended == "exited" else out.marks.get(b"b")
            self.has_ended = self._ends(since, out, err)
            out.end()
            err.end()
        if out.exceeded or err.exceeded:
            ended = "output-limit"
        code = out.marks[b"d"] if ended == "exited" else None
        if code is not None and code > 255:  # ksh93: 256+n for signal n
            code -= 128
        return Completed(command.argv, code, bytes(out.kept), bytes(err.kept), ended, seconds)

    def _ends(self, since: int | None, out: _Output, err: _Output) -> bool:
        """End the command and this shell; return whether that could be done.

        Output from before the end is still received.
        """
        end = time.monotonic() + _END_LIMIT_S
        try:
            self._kill(self._group, since)
            while (left := end - time.monotonic()) > 0:
                self._receive(left, out, err)
        except StreamEnded:
            return True
        except EngineError:  # it can start no process in the container
            return False
        return False

    def _receive(self, timeout_s: float, out: _Output, err: _Output) -> None:
        for number, data in self._stream.receive(timeout_s):
            (out if number == _STDOUT else err).feed(data)

    def _rest_ends(self, nonce: bytes, out: _Output, err: _Output) -> bool:
        """Return whether the rest of the command's process group ends within a moment."""
        end = time.monotonic() + _GRACE_S
        count = f"{_COUNT}; {_END.format(nonce.decode())}\n".encode()
        while time.monotonic() < end and not (out.exceeded or err.exceeded):
            out.resume()
            err.resume()
            # These processes are not children of the shell: it is not notified of their end.
            time.sleep(_GRACE_STEP_S)
            try:
                self._stream.send(count, _END_LIMIT_S)
            except TimeoutError:
                return False
            while b"e" not in out.marks or b"e" not in err.marks:
                self._receive(_END_LIMIT_S, out, err)
                if time.monotonic() > end + _END_LIMIT_S:
                    return False
            if not out.marks[b"e"]:
                return True
        return False

    def close(self) -> None:
        self._stream.close()


class Channels:
    """As many shells in one container as commands run side by side. Thread-safe.

    Args:
        connect: starts one more shell in the container.
        kill: sends SIGKILL to a process group of the container, by its ID there, and to what left
            it; see `mlcheck.engines.shell_kill.line`. It must not wait for the end, which an engine
            may report only after all output has been read.
        end: ends the container: a command in it cannot be ended.

    Raises:
        NoShell: from `run`, if the image has no usable shell.
        StreamEnded: from `run`, if the container ended during a command.
    """

    def __init__(
        self,
        connect: Callable[[], Stream],
        kill: Callable[[int, int | None], None],
        end: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._kill = kill
        self._end = end
        self._idle: list[_Shell] = []
        self._lock = threading.Lock()

    def run(self, command: Command) -> Completed:
        """Run a command; see `mlcheck.engines.base.OpenImage.run`.

        Its variables are added to those that the shell was started with.
        """
        with self._lock:
            shell = self._idle.pop() if self._idle else None
        if shell is None:
            stream = self._connect()
            try:
                shell = _Shell(stream, self._kill)
            except NoShell:
                stream.close()
                raise
        try:
            completed = shell.run(command)
        except BaseException:
            shell.close()
            raise
        if shell.usable:
            with self._lock:
                self._idle.append(shell)
        else:
            shell.close()
            if not shell.has_ended:
                self._end()
        return completed

    def close(self) -> None:
        """Close all shells."""
        with self._lock:
            shells, self._idle = self._idle, []
        for shell in shells:
            shell.close()


def _nonce() -> bytes:
    return secrets.token_hex(16).encode()


_FIELDS = "set -- ${l##*\\) }"
"""State, parent, process group in a line of /proc/PID/stat, proc(5), whatever the name contains."""

_COUNT = (
    'n=0; set -- /proc/[0-9]*; a="$*"; [ "$a" = "$k" ] || { for f in $a; do '
    f"read -r l <$f/stat || continue; {_FIELDS}; "
    '[ "$3" = "$g" ] && [ "$1" != Z ] && [ $f != /proc/$$ ] && n=1; done; [ $n = 0 ] && k=$a; }'
)
"""Sets n to 1 if the shell is not alone in its process group. Uses only builtins of the shell; no
file is read if the processes are those of the last time that it was alone."""

_END = "printf '%s e %d;' {0} $n; printf '%s e;' {0} >&3"


def _script(nonce: str, command: Command) -> bytes:
    """Return the text that makes the shell run a command and print, in this order:

    stdout: mark b with the time, output, mark d with the exit code, mark e with 1 if something of
    the process group is still there. stderr: mark b, output, mark e.
    """
    # A name that is not valid in a shell can only be set by env(1).
    odd = [f"{name}={value}" for name, value in command.env.items() if not _NAME.fullmatch(name)]
    exports = "".join(
        f"export {name}={shlex.quote(value)}; "
        for name, value in command.env.items()
        if _NAME.fullmatch(name)
    )
    words = " ".join(map(shlex.quote, [*(["env", *odd] if odd else []), *command.argv]))
    directory = shlex.quote(command.cwd)
    # Each byte that printf could interpret is written as a number.
    feed = "".join(chr(b) if chr(b).isalnum() and b < 128 else f"\\{b:03o}" for b in command.stdin)
    return (
        f"{shell_kill.NOW}; printf '%s b %s;' {nonce} $u; printf '%s b;' {nonce} >&3; "
        + (f"printf '{feed}' | " if command.stdin else "")
        + f"( exec 2>&3 3>&-; cd {directory} 2>/dev/null || "
        + f"{{ printf 'mlcheck: cannot start in %s\\n' {directory} >&2; exit 126; }}; "
        + f"unset OLDPWD SHLVL; {exports}exec {words} ){'' if command.stdin else ' </dev/null'}; "
        + f"printf '%s d %d;' {nonce} $?; {_COUNT}; {_END.format(nonce)}\n"
    ).encode("utf-8", "surrogateescape")
