"""One container of docker or podman, and shells in it.

The container's first process is a shell that reads its standard input to the end and does nothing
else: when our end of it closes, even by kill -9, the container ends, and the engine removes it.
Commands run in further shells, which the engine starts beside it.

The root file system is read-only, as in the engine "sandbox": files that are read while commands
run are then those of the image, and a command that writes anywhere but to `/tmp` and `/dev/shm`
fails with every engine alike. Nothing is logged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import docker
import requests

from mlcheck.engines import shell_kill
from mlcheck.engines.base import Start
from mlcheck.engines.limits import UNLIMITED
from mlcheck.engines.oci import monitors
from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.errors import engine_errors, reason
from mlcheck.engines.oci.monitors import has_arguments
from mlcheck.engines.shell import NoShell, StreamEnded
from mlcheck.machine import janitor, proxies
from mlcheck.model.errors import EngineError

T = TypeVar("T")

OWNER_LABEL = "mlcheck.owner"

NAME = r"mlcheck-[0-9a-f]{16}"
"""Form of the names that `new_name` returns."""

_CHUNK = 1024 * 1024
_STDERR = 2
_FRAME = struct.Struct(">BxxxL")
_TMP_SIZE = "1g"
_ALSO_TMPFS = "rw,nosuid,nodev,tmpcopyup"
_SHM_SIZE = "256m"
"""The same as in the sandbox."""

_ADDED = ("HOSTNAME", "TERM", "container", *proxies.NAMES)
"""Variables that one engine or the other adds to those of the image."""

# Messages of engines and runtimes if the program to start is missing, or is not a program.
MISSING = ("executable file not found", "no such file or directory", "not found in $path")
_NOT_A_PROGRAM = ("permission denied", "exec format error", "is a directory")

_GPU_REFUSALS = (
    (
        "could not select device driver",
        "Install the NVIDIA container toolkit on this machine and run "
        "`sudo nvidia-ctk runtime configure --runtime=docker`, then restart docker; "
        "or run without --nv.",
    ),
    (
        "unresolvable cdi devices",
        "Install the NVIDIA container toolkit on this machine and run "
        "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`; or run without --nv.",
    ),
    (
        "unsatisfied condition: cuda",
        "Install a newer NVIDIA driver on this machine: the image asks for one "
        "(its NVIDIA_REQUIRE_CUDA).",
    ),
    (
        "nvidia-container-cli",
        "Check that `nvidia-smi` works on this machine; reinstall the NVIDIA driver and its "
        "container toolkit if it does not.",
    ),
)


_FIRST_PROCESS = "echo; exec 3<&0; { while read -r _; do :; done; } <&3 & wait"
"""Ends with its stdin. While it waits, it reaps orphaned processes, which a shell that reads does
not: ended processes would count as still running. It first prints a line as a sign that it runs: an
engine may report the start while the process is still the runtime's own (`runc init`)."""

_FIRST_WORD_S = 30.0

_LAYER_GONE = "parent snapshot"
"""In docker's answer with containerd's store: seen with 28.5.2 while images with a layer in common
are loaded and removed."""
_ASKED = 3


# What engines say of a USER without an entry in the image's /etc/passwd or /etc/group, and of a
# WORKDIR that is a file or may not be entered.
_NO_USER = (
    *("unable to find user", "unable to find group"),
    *("no matching entries in passwd", "no matching entries in group"),
)
_NO_DIRECTORY = ("not a directory", "chdir to cwd", "cannot mkdir", "file exists")


class CannotStart(Exception):  # noqa: N818 - a finding about the image
    """The container's program does not start.

    Args:
        exit_code: 127: it does not exist; 126: it cannot be executed, or the image's configuration
            lets no container start (a USER without an entry, a WORKDIR that is no directory).
    """

    def __init__(self, exit_code: int, why: str) -> None:
        super().__init__(why)
        self.exit_code = exit_code


class NoCgroupError(EngineError):
    """The engine has no cgroup in which it could limit a container."""


def despite_no_cgroup(client: Client, start: Start, make: Callable[[Start], T]) -> T:
    """Return what `make` makes with these options, but without limits if there is no cgroup.

    An ordinary user's podman has none outside of a session of systemd's, and crun starts no
    container with limits there:
    https://github.com/containers/podman/blob/main/troubleshooting.md
    """
    if client.has_cgroups:
        try:
            return make(start)
        except NoCgroupError:
            client.has_cgroups = False
    return make(dataclasses.replace(start, limits=UNLIMITED))


class Attached:
    """A stream of docker's API: output in frames, input unchanged.

    The form of frames: https://docs.docker.com/reference/api/engine/version/v1.41/ (attach).
    See `mlcheck.engines.shell.Stream`.

    Args:
        raw: the object that the SDK returns for `socket=True`.
    """

    def __init__(self, raw: Any) -> None:
        # A connection with TLS is the socket itself.
        self._raw = raw
        self._socket: socket.socket = getattr(raw, "_sock", raw)
        # The SDK's timeout for answers does not apply to commands.
        self._socket.settimeout(None)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._header = b""
        self._number = 0
        self._left = 0
        """Bytes of the current frame that have not arrived yet."""

    def send(self, data: bytes, timeout_s: float | None = None) -> None:
        try:
            if timeout_s is None:
                self._socket.sendall(data)
            else:
                self._socket.settimeout(timeout_s)
                self._socket.sendall(data)
                self._socket.settimeout(None)
        except TimeoutError:
            raise
        except OSError:
            raise StreamEnded from None

    def end_input(self) -> None:
        """Close the program's standard input."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def receive(self, timeout_s: float) -> list[tuple[int, bytes]]:
        pending = getattr(self._socket, "pending", lambda: 0)
        if not pending() and not self._poll.poll(max(0.0, timeout_s) * 1000):
            return []
        try:
            data = self._socket.recv(_CHUNK)
        except OSError:
            raise StreamEnded from None
        if not data:
            raise StreamEnded
        return list(self._frames(data))

    def _frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at < len(data):
            if not self._left:
                missing = _FRAME.size - len(self._header)
                self._header += data[at : at + missing]
                at += missing
                if len(self._header) == _FRAME.size:
                    self._number, self._left = _FRAME.unpack(self._header)
                    self._header = b""
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            yield (_STDERR if self._number == _STDERR else 1), part

    def has_ended(self, patience_s: float) -> bool:
        """Return whether the other end is closed, or closes within `patience_s`."""
        self._poll.poll(patience_s * 1000)
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except (OSError, ValueError):  # ValueError: TLS does not support peeking
            return not hasattr(self._socket, "pending")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for each in (self._raw, self._socket):
            with contextlib.suppress(OSError):
                each.close()


class Created:
    """A container that is removed with its context, or by the janitor.

    Args:
        image: ID of the image.
        name: name of the container; see `new_name`.
        argv: command in place of the image's entrypoint and command.
        options: further arguments of the SDK's `create_container`.

    Raises:
        EngineError: it cannot be created.
    """

    def __init__(
        self,
        client: Client,
        image: str,
        name: str,
        argv: Sequence[str],
        start: Start,
        **options: Any,
    ) -> None:
        self.client = client
        self.name = name
        self._resources = ExitStack()
        self._limited = start.limits != UNLIMITED
        dialect = client.dialect
        if start.gpu and dialect.gpu_since and client.engine_version < dialect.gpu_since:
            found, needed = (
                ".".join(map(str, version))
                for version in (client.engine_version, dialect.gpu_since)
            )
            raise EngineError(
                f"{dialect.label} {found} ignores a request for GPUs that comes through its API.",
                f"Install {dialect.label} {needed} or newer, use docker or apptainer, or run "
                "without --nv.",
            )
        host_config = client.create_host_config(
            auto_remove=options.pop("auto_remove", False),
            network_mode="host" if start.network else "none",
            read_only=options.pop("read_only", True),
            tmpfs={
                "/tmp": f"{dialect.tmpfs},size={_TMP_SIZE}",  # noqa: S108 - the container's
                **dict.fromkeys(dialect.also_writable, f"{_ALSO_TMPFS},size={_TMP_SIZE}"),
            },
            mem_limit=start.limits.memory,
            memswap_limit=start.limits.memory,
            pids_limit=start.limits.processes,
            shm_size=_SHM_SIZE,
            log_config=docker.types.LogConfig(type="none"),
            security_opt=["no-new-privileges"],
            cap_drop=[*dialect.dropped, *(["NET_RAW"] if start.network else [])],
            **({} if start.network else dialect.no_name_servers),
            mounts=[
                docker.types.Mount(bind.target, bind.source, type="bind", read_only=True)
                for bind in start.binds
            ],
        )
        if start.gpu:
            host_config["DeviceRequests"] = [dict(dialect.gpu)]
        path = f"/containers/{self.name}?force=1&v=1"
        self._resources.enter_context(janitor.promised(client.deletion(path)))
        in_work = client.deletion(path, in_work=True)
        try:
            doing = f"create a container of {image}"
            self._workdir = options.pop("working_dir", "/")
            with (
                engine_errors(dialect, doing),
                self._configuration_errors(),
                janitor.answered(in_work, docker.errors.APIError),
            ):
                self._create(
                    image,
                    entrypoint=list(argv[:1]),
                    command=list(argv[1:]),
                    name=self.name,
                    labels={OWNER_LABEL: janitor.owner()},
                    host_config=host_config,
                    # The engine would create the image's if it did not exist.
                    working_dir=self._workdir,
                    healthcheck={"test": ["NONE"]},
                    # podman 5 stops a container before it removes it, even by force, and a shell as
                    # first process ignores SIGTERM: it would wait for ten seconds.
                    stop_signal="SIGKILL",
                    **options,
                )
        except BaseException:
            self.close()
            raise

    def _create(self, image: str, **options: Any) -> None:
        """Create it, again if docker has removed a layer in between: it takes a layer of another
        image as its own, which goes with that image. Asked again, it makes it anew."""
        for _ in range(_ASKED - 1):
            try:
                self.client.create_container(image, **options)
                return
            except docker.errors.APIError as error:
                if _LAYER_GONE not in reason(error):
                    raise
        self.client.create_container(image, **options)

    def attach(self, *, stdin: bool) -> Attached:
        """Connect to the container's first process, before it is started.

        podman prepares the process at this point, with the same errors as in `start`.
        """
        params = {"stdin": int(stdin), "stdout": 1, "stderr": 1, "stream": 1}
        with self._start_errors("attach to its container"):
            return Attached(self.client.attach_socket(self.name, params=params))

    def start(self) -> None:
        """Start it.

        Raises:
            CannotStart: its program does not exist in the image, or is not a program.
            EngineError: the engine failed, or refused GPUs.
        """
        with self._start_errors("start its container"):
            self.client.start(self.name)

    @contextmanager
    def _start_errors(self, doing: str) -> Iterator[None]:
        dialect = self.client.dialect
        with engine_errors(dialect, doing), self._configuration_errors():
            try:
                yield
            except docker.errors.APIError as error:
                said = reason(error)
                low = said.lower()
                for mark, remedy in _GPU_REFUSALS:
                    if mark in low:
                        raise EngineError(
                            f"{dialect.label} cannot give this machine's GPUs to a container: "
                            f"{said}.",
                            remedy,
                        ) from None
                for marks, code in ((MISSING, 127), (_NOT_A_PROGRAM, 126)):
                    if "exec" in low and any(mark in low for mark in marks):
                        raise CannotStart(code, said) from None
                if self._limited and "cgroup" in low:
                    raise NoCgroupError(f"{dialect.label} could not {doing}: {said}.") from None
                raise

    @contextmanager
    def _configuration_errors(self) -> Iterator[None]:
        try:
            yield
        except docker.errors.APIError as error:
            said = reason(error)
            low = said.lower()
            no_directory = self._workdir != "/" and any(mark in low for mark in _NO_DIRECTORY)
            if any(mark in low for mark in _NO_USER) or (
                no_directory and self._workdir.rstrip("/").lower() in low
            ):
                raise CannotStart(126, said) from None
            raise

    def close(self) -> None:
        """Kill and remove the container."""
        try:
            with contextlib.suppress(
                docker.errors.DockerException, requests.RequestException, OSError
            ):
                self.client.remove_container(self.name, force=True, v=True)
        finally:
            self._resources.close()


class Container:
    """A started container in which shells can be started.

    Args:
        image: ID of the image.
        own: names of the variables that the image itself sets.

    Raises:
        NoShell: the image has no `/bin/sh` that starts.
        EngineError: the engine failed.
    """

    exceeded = ""
    """The kernel ends single commands."""

    def __init__(self, client: Client, image: str, start: Start, own: frozenset[str]) -> None:
        unset = " ".join(name for name in _ADDED if name not in own)
        self._shell = ["/bin/sh", "-c", f"unset {unset}; exec /bin/sh"]
        self.client = client
        # The name is an argument so that the process can be recognised in /proc.
        self.name = new_name()
        argv = ["/bin/sh", "-c", _FIRST_PROCESS, self.name]
        self._resources = despite_no_cgroup(
            client, start, functools.partial(self._made, image, argv)
        )

    def _made(self, image: str, argv: Sequence[str], start: Start) -> ExitStack:
        """Create and start it; returns what has to be undone."""
        client = self.client
        with ExitStack() as stack:
            # First in, last out: processes that end when the container has been removed.
            if (monitor := client.dialect.monitor) is not None:
                argv_then = [sys.executable, "-I", monitors.__file__, *monitor, self.name]
                stack.enter_context(janitor.promised(janitor.run(argv_then)))
                stack.callback(monitors.end_monitors, *monitor, self.name)
            created = Created(
                client, image, self.name, argv, start, auto_remove=True, stdin_open=True
            )
            stack.callback(created.close)
            try:
                self._attached = created.attach(stdin=True)
                stack.callback(self._attached.close)
                created.start()
                with contextlib.suppress(StreamEnded):
                    self._attached.receive(_FIRST_WORD_S)
            except CannotStart:
                raise NoShell from None
            with engine_errors(client.dialect, "inspect its container"):
                try:
                    self.state = client.inspect_container(self.name)
                except docker.errors.NotFound:  # it has ended and is removed
                    raise NoShell from None
            if not self.state["State"]["Running"]:
                raise NoShell
            pid = int(self.state["State"]["Pid"])
            self.pid = pid if has_arguments(pid, self.name) else None
            if self.pid is not None:
                # A daemon that was killed removes nothing, and its containers continue to run.
                stack.enter_context(janitor.undone(janitor.kill(self.pid)))
            stack.callback(created.close)
            return stack.pop_all()

    def has_ended(self, patience_s: float = 0.0) -> bool:
        """Return whether it has ended, or ends within `patience_s`."""
        return self._attached.has_ended(patience_s)

    def connect(self) -> Attached:
        """Start one more shell.

        Raises:
            StreamEnded: the container has been removed.
        """
        try:
            exec_id = self.client.exec_create(self.name, self._shell, stdin=True)["Id"]
            return Attached(self.client.exec_start(exec_id, socket=True))
        except docker.errors.APIError as error:
            if error.status_code in (404, 409):  # it is gone, it does not run
                raise StreamEnded from None
            with engine_errors(self.client.dialect, "start a shell in its container"):
                raise
        except (requests.RequestException, OSError):
            raise StreamEnded from None

    def kill(self, group: int, since: int | None) -> None:
        """Send SIGKILL to a process group, and to what left it; see `shell_kill.line`.

        Does not wait for the end: docker does not report it before all output of the killed shell
        has been read.
        """
        with engine_errors(self.client.dialect, "end a command"):
            command = ["/bin/sh", "-c", shell_kill.line(group, since)]
            exec_id = self.client.exec_create(self.name, command, user="0")["Id"]
            self.client.exec_start(exec_id, detach=True)

    def close(self) -> None:
        """End everything in the container and remove it."""
        self._resources.close()


def new_name() -> str:
    """Return a name that no other container has."""
    return f"mlcheck-{secrets.token_hex(8)}"
