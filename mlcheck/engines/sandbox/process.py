"""The caller's end of a sandbox: starts its first process and communicates with it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlcheck.engines.base import Command, Completed
from mlcheck.engines.limits import DEFAULT, Limits
from mlcheck.engines.sandbox.server import CHUNK, ENDED, HEADER, KILL, READY, RUN, STDERR, STDOUT
from mlcheck.machine import environ
from mlcheck.model.errors import EngineError, Trouble

_START_LIMIT_S = 30.0
_ANSWER_LIMIT_S = 30.0
"""Seconds that a command's result may take beyond its own limit on a busy machine."""

_INIT = "import sys; sys.path.append(sys.argv.pop(1)); " + (
    "from mlcheck.engines.sandbox.init import main; main()"
)

Binds = Sequence[tuple[str, str]]
"""Sources on this machine and their absolute targets, none below another."""

Launcher = tuple[str, ...]
"""The program, with options, that makes the namespaces."""


@dataclass(slots=True)
class _Pending:
    """A command whose end has not been reported yet."""

    output_limit: int
    output: dict[bytes, bytearray] = field(
        default_factory=lambda: {STDOUT: bytearray(), STDERR: bytearray()}
    )
    report: dict[str, object] | None = None
    done: threading.Event = field(default_factory=threading.Event)


class SandboxProcess:
    """A running sandbox. Safe for use from several threads.

    Args:
        root: the directory that becomes the root, or binds (source on this machine, target) of
            which one is composed.
        network: True if commands share the host's network.
        binds: directories of this machine to put on directories of the root, not reached through
            a link.
        limits: of all commands together.

    Raises:
        EngineError: it could not be started; with the reason that was printed.
    """

    def __init__(
        self,
        launcher: Launcher,
        root: Path | Binds,
        *,
        network: bool,
        binds: Binds = (),
        limits: Limits = DEFAULT,
    ) -> None:
        self._limits = limits
        self._root = root if isinstance(root, Path) else "a host"
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._ready = threading.Event()
        self._closed = False
        self.alive = True
        self._errors = os.fdopen(os.memfd_create("mlcheck-sandbox-stderr"), "rb")
        self._control, theirs = socket.socketpair()
        with theirs, _own_pid_file() as pid_files:
            try:
                self._process = subprocess.Popen(
                    _command(launcher, root, binds, network, limits, pid_files),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    cwd="/",
                    # Python itself may need it; nothing inside the sandbox gets it.
                    env={k: v for k, v in environ.own().items() if k == "LD_LIBRARY_PATH"},
                    pass_fds=pid_files,
                    # Ctrl-C in the terminal is for the caller, who closes the sandbox.
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                self._errors.close()
                raise EngineError(f"{launcher[0]} could not be started: {error}.") from error
        self._reader = threading.Thread(target=self._read, name="mlcheck-sandbox", daemon=True)
        self._reader.start()
        self._ready.wait(_START_LIMIT_S)
        if not (self._ready.is_set() and self.alive):
            reason = self._last_words() or f"it was not ready after {_START_LIMIT_S:.0f} s"
            self.close()
            remedy = ""
            if "Permission denied" in reason and os.geteuid() == 0:
                remedy = (
                    "In a user namespace root may read only what root owns or everybody may read: "
                    "run mlcheck as the user who owns the image and Python, without sudo."
                )
            raise EngineError(f"The sandbox did not start: {reason}.", remedy)

    def run(self, command: Command) -> Completed:
        """Run a command; see `mlcheck.engines.base.OpenImage.run`. It has only its
        own variables."""
        if not command.argv:
            raise ValueError("argv must name a program")
        request = {
            "argv": [_portable(argument) for argument in command.argv],
            "env": {_portable(name): _portable(value) for name, value in command.env.items()},
            "cwd": _portable(command.cwd),
            "limit_s": command.limit_s,
            "output_limit": command.output_limit,
        }
        head = json.dumps(request).encode()
        pending = _Pending(command.output_limit)
        number = next(self._numbers)
        with self._lock:
            self._pending[number] = pending
            if not self.alive:
                pending.done.set()
        try:
            self._send(RUN, number, struct.pack("!I", len(head)) + head + command.stdin)
            answered = pending.done.wait(command.limit_s + _ANSWER_LIMIT_S)
        except BaseException:  # KeyboardInterrupt too: nobody waits for the command any more
            self._send(KILL, number, b"")
            raise
        finally:
            with self._lock:
                self._pending.pop(number, None)
        report = pending.report
        if report is None:
            raise EngineError(
                f"The sandbox for {self._root} "
                + ("does not answer" if not answered else "was closed" if self._closed else "ended")
                + f" while it ran {command.argv[0]!r}."
                + (f" Its last words: {words}" if (words := self._last_words()) else "")
            )
        exceeded = report.pop("exceeded")
        completed = Completed(
            argv=command.argv,
            stdout=bytes(pending.output[STDOUT]),
            stderr=bytes(pending.output[STDERR]),
            **report,  # type: ignore[arg-type]
        )
        return completed.because(self._limits.exceeded(str(exceeded))) if exceeded else completed

    def close(self) -> None:
        """End the sandbox and everything in it; running commands end with an EngineError."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_ANSWER_LIMIT_S)
        except subprocess.TimeoutExpired:
            # The first process of the sandbox requested to be killed when its parent dies.
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._control.close()
        with self._lock:
            self._errors.close()

    def _send(self, kind: bytes, number: int, payload: bytes) -> None:
        # If this fails, the reader sees the end too and wakes all waiting threads.
        with contextlib.suppress(OSError), self._sending:
            self._control.sendall(HEADER.pack(len(payload), kind, number) + payload)

    def _read(self) -> None:
        """Receive frames until the sandbox ends. Runs in a thread of its own."""
        with contextlib.suppress(OSError, EOFError), self._control.makefile("rb") as frames:
            while True:
                length, kind, number = HEADER.unpack(
                    _exactly(frames.read(HEADER.size), HEADER.size)
                )
                if length > CHUNK:
                    break  # our own code does not send that
                self._take(kind, number, _exactly(frames.read(length), length))
        with self._lock:
            self.alive = False
            waiting = list(self._pending.values())
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        for pending in waiting:
            pending.done.set()
        self._ready.set()

    def _take(self, kind: bytes, number: int, payload: bytes) -> None:
        if kind == READY:
            self._ready.set()
        with self._lock:
            pending = self._pending.get(number)
        if pending is None:
            return
        if kind == ENDED:
            pending.report = json.loads(payload)
            pending.done.set()
        elif len(output := pending.output[kind]) + len(payload) <= pending.output_limit:
            output += payload

    def _last_words(self) -> str:
        """Return the last output of the launcher or the sandbox's first process."""
        with self._lock:
            if self._errors.closed:
                return ""
            # Not by reading: the position in this file is shared with its writer.
            size = os.fstat(self._errors.fileno()).st_size
            text = os.pread(self._errors.fileno(), 2000, max(0, size - 2000))
        return "; ".join(text.decode(errors="replace").strip().splitlines()[-5:])


# Without --die-with-parent, which would end the sandbox with the *thread* that started it.
_BWRAP = (
    "bwrap --unshare-user --uid 0 --gid 0 --unshare-pid --as-pid-1 --unshare-ipc --unshare-uts "
    "--cap-add ALL --dev-bind / /"
)
_UNSHARE = "unshare --user --map-root-user --mount --pid --ipc --uts --fork"
_LAUNCHERS: tuple[Launcher, ...] = (tuple(_UNSHARE.split()), tuple(_BWRAP.split()))


@functools.cache
def launcher() -> Launcher | Trouble:
    """Return the launcher that works on this machine, or the reason why none does."""
    tried = []
    for candidate in _LAUNCHERS:
        if shutil.which(candidate[0]) is None:
            tried.append(f"{candidate[0]} is not installed")
            continue
        try:
            # Any directory will do. One made for this would remain if this process were killed now.
            SandboxProcess(candidate, Path(__file__).parent, network=False).close()
        except EngineError as error:
            tried.append(f"with {candidate[0]}: {error.what.rstrip('.')}")
        else:
            return candidate
    return Trouble(f"Commands cannot run in a sandbox here: {'; '.join(tried)}.", _remedy())


def _remedy() -> str:
    """Return a remedy that allows namespaces to be made, according to the usual reasons."""
    if not any(shutil.which(candidate[0]) for candidate in _LAUNCHERS):
        return "apt install util-linux, or apt install bubblewrap."
    if _setting("user/max_user_namespaces") == "0":
        return "User namespaces are switched off: sysctl user.max_user_namespaces=15000"
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "User namespaces are for root alone: sysctl kernel.unprivileged_userns_clone=1"
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces: "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or apt install bubblewrap."
        )
    if any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")):
        return (
            "This is a container that may not make namespaces. Start it with --security-opt "
            "seccomp=unconfined --security-opt apparmor=unconfined and, for /proc, with docker "
            "--security-opt systempaths=unconfined, with podman --security-opt unmask=ALL."
        )
    return "This machine does not let you make namespaces: ask its administrator."


def _setting(name: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path("/proc/sys", name).read_text().strip()
    return None


@contextlib.contextmanager
def _own_pid_file() -> Iterator[tuple[int, ...]]:
    """Give a file descriptor by which the sandbox sees the end of this process, if the kernel
    has those.

    The end of the socket shows the same, unless a forked copy of this process still holds it.
    """
    with contextlib.ExitStack() as files:
        pid_files = []
        with contextlib.suppress(OSError, AttributeError):  # Linux < 5.3
            pid_files.append(os.pidfd_open(os.getpid()))
            files.callback(os.close, pid_files[0])
        yield tuple(pid_files)


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise EOFError
    return data


def _portable(text: str) -> str:
    """Decode the same bytes as UTF-8 with surrogates, whatever this machine's locale."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def _command(
    launcher: Launcher,
    root: Path | Binds,
    binds: Binds,
    network: bool,
    limits: Limits,
    pid_files: Sequence[int],
) -> list[str]:
    layout = str(root.absolute()) if isinstance(root, Path) else json.dumps(root)
    no_network = {"unshare": "--net", "bwrap": "--unshare-net"}[launcher[0]]
    code = Path(__file__).parents[3]
    return [
        shutil.which(launcher[0]) or launcher[0],
        *launcher[1:],
        *([] if network else [no_network]),
        *(sys.executable, "-I", "-S", "-X", "utf8", "-c", _INIT, str(code), layout),
        *(json.dumps(binds), "network" if network else "no-network"),
        json.dumps([limits.memory, limits.processes]),
        *map(str, pid_files),
    ]
