"""The address of docker's or podman's server; podman's is started if there is none."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import docker

from mlcheck.engines.oci.dialect import DOCKER, Dialect
from mlcheck.engines.oci.errors import engine_errors
from mlcheck.machine import environ, janitor
from mlcheck.model.errors import EngineError

_REACH_TIMEOUT_S = 10.0
_SOCKET_PATH_LIMIT = 107
_SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Directories of daemons that are not on an ordinary user's PATH."""
_SERVICE_START_S = 30.0
_CONTEXTS = "Choose one of those that `docker context ls` shows, or set DOCKER_HOST."


def configured(dialect: Dialect) -> tuple[str | None, Any]:
    """Return the server's address in the user's settings, and the TLS settings for it."""
    host = os.environ.get(dialect.host_variable) or None
    tls: Any = False
    if host is None and dialect.contexts:
        host, tls = _of_context()
    elif host is not None and dialect.contexts and os.environ.get("DOCKER_TLS_VERIFY"):
        with engine_errors(dialect, "use TLS as DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say"):
            tls = docker.utils.kwargs_from_env().get("tls", False)
    return host, tls


_SSH = re.compile(
    r"ssh://(?:(?P<user>[\w.][\w.@-]*)@)?(?P<host>[\w.][\w.-]*|\[[0-9a-fA-F:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/|(?P<path>/[^:]+))?"
)
"""Nothing in it begins with a dash, which would be an option of ssh."""


def is_ssh(host: str) -> bool:
    """Return whether an address leads over ssh."""
    return host.startswith("ssh://")


def forwarding(dialect: Dialect, address: str, local: Path) -> Sequence[str]:
    """Return the command that forwards a socket here to a server over ssh.

    Args:
        address: "ssh://[USER@]HOST[:PORT][/SOCKET]".
        local: path of the socket here.

    Raises:
        EngineError: the address is none, or ssh is not installed.
    """
    found = _SSH.fullmatch(address)
    if found is None:
        raise EngineError(
            f"{dialect.label}: {address} is no address of a server over ssh.",
            f"Set {dialect.host_variable} to ssh://[USER@]HOST[:PORT][/SOCKET].",
        )
    if shutil.which("ssh") is None:
        raise EngineError(
            f"{dialect.label}: {address} leads over ssh, which is not installed.",
            "Install it (Debian: openssh-client).",
        )
    argv = ["ssh", "-nNT", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]
    argv += ["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=30"]
    argv += ["-p", found["port"]] if found["port"] else []
    argv += ["-l", found["user"]] if found["user"] else []
    remote = found["path"] or dialect.sockets[0]
    return [*argv, "-L", f"{local}:{remote}", found["host"].strip("[]")]


def _of_context() -> tuple[str | None, Any]:
    """Return address and TLS settings of the docker command's current context.

    Its files: https://docs.docker.com/engine/manage-resources/contexts/
    """
    directory = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    name = os.environ.get("DOCKER_CONTEXT")
    if not name:
        try:
            name = json.loads((directory / "config.json").read_bytes()).get("currentContext")
        except (OSError, ValueError, AttributeError):
            name = None
    if not name or name == "default":
        return None, False
    number = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((directory / "contexts/meta" / number / "meta.json").read_bytes())
        host = meta["Endpoints"]["docker"]["Host"]
        verify = not meta["Endpoints"]["docker"].get("SkipTLSVerify", False)
    except FileNotFoundError:
        raise EngineError(f"There is no docker context {name!r}.", _CONTEXTS) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"The docker context {name!r} is broken: {error}.", _CONTEXTS) from None
    keys = directory / "contexts/tls" / number / "docker"
    if not keys.is_dir():
        return str(host), False
    ca, cert, key = (str(keys / f"{part}.pem") for part in ("ca", "cert", "key"))
    with engine_errors(DOCKER, f"use the keys of its context {name!r}"):
        return str(host), docker.tls.TLSConfig(client_cert=(cert, key), ca_cert=ca, verify=verify)


def found(dialect: Dialect) -> str | None:
    """Return the usual address at which a server listens, or None if one has to be started.

    Raises:
        EngineError: none answers, and none can be started.
    """
    refused: list[tuple[str, OSError]] = []
    for place in dialect.sockets:
        path = os.path.expandvars(place)
        if "$" in path or not Path(path).exists():
            continue
        host = f"unix://{path}"
        error = _reach(host)
        if error is None:
            return host
        refused.append((host, error))
    if dialect.service and shutil.which(dialect.service[0]):
        return None
    if refused:
        _unreachable(dialect, *refused[0])
    daemons = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PROGRAMS}"
    if shutil.which(dialect.name) or shutil.which(f"{dialect.name}d", path=daemons):
        places = " and ".join(os.path.expandvars(place) for place in dialect.sockets)
        raise EngineError(f"{dialect.label} does not run: no socket at {places}.", dialect.stopped)
    raise EngineError(f"{dialect.label} is not installed.", dialect.missing)


def check_reachable(dialect: Dialect, host: str) -> None:
    error = _reach(host)
    if error is not None:
        _unreachable(dialect, host, error)


def _reach(host: str) -> OSError | None:
    """Return the error of connecting to `host`, or None if it succeeds."""
    url = urllib.parse.urlsplit(host)
    try:
        if url.scheme in ("unix", "http+unix"):
            with socket.socket(socket.AF_UNIX) as unix:
                unix.settimeout(_REACH_TIMEOUT_S)
                unix.connect(f"{url.netloc}{url.path}")
        else:
            address = (url.hostname or "localhost", url.port or 2375)
            socket.create_connection(address, _REACH_TIMEOUT_S).close()
    except OSError as error:
        return error
    except ValueError as error:
        return OSError(errno.EINVAL, f"that is no address ({error})")
    return None


def _unreachable(dialect: Dialect, host: str, error: OSError) -> NoReturn:
    if isinstance(error, PermissionError):
        raise EngineError(
            f"{dialect.label}: this user may not open {host}: {error.strerror}.",
            dialect.forbidden,
        ) from None
    remedy = dialect.stopped
    if os.environ.get(dialect.host_variable) and dialect.host_variable not in remedy:
        remedy = (
            f"{dialect.host_variable} says so: correct it (unix:///PATH or tcp://HOST:PORT), or "
            f"unset it. {remedy}"
        )
    raise EngineError(
        f"{dialect.label}: nothing answers at {host}: {error.strerror or error}.", remedy
    ) from None


_GUARDED = (
    'read -r go || exit; grace=$1; shift; exec 3<&0; "$@" </dev/null 3<&- & server=$!; '
    '{ read -r _; sleep "$grace"; kill "$server"; } <&3 & wait "$server"; kill "$!"'
)
"""A server that waits until the janitor knows it before it starts, and ends after the process that
started it, even if the janitor is killed too. The janitor, which needs it to remove containers,
ends it sooner."""
_GRACE_S = 60


@dataclass
class _Shared:
    """A server that this process started: its address, and the number of its users."""

    host: str
    resources: ExitStack
    users: int = 0


_services: dict[object, _Shared] = {}
_services_lock = threading.Lock()


@contextmanager
def shared_service(dialect: Dialect, address: str | None = None) -> Iterator[str]:
    """Give the server of this process: started for the first user, ended after the last.

    Args:
        address: of a server over ssh, which is then what answers; None: a server of our own.
    """
    # A server keeps the variables that it was started with, such as the place of its logins.
    key = (dialect.name, address, frozenset(os.environ.items()))
    with _services_lock:
        shared = _services.get(key)
        if shared is None or _reach(shared.host) is not None:
            resources = ExitStack()
            shared = _Shared(resources.enter_context(_service(dialect, address)), resources)
            _services[key] = shared
        shared.users += 1
    try:
        yield shared.host
    finally:
        with _services_lock:
            shared.users -= 1
            if shared.users == 0:
                if _services.get(key) is shared:
                    del _services[key]
                shared.resources.close()


def _place_for_a_socket() -> Path:
    """Return the directory for temporary files, or another one if the path of a socket in it were
    too long, unix(7)."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(janitor.labelled("mlcheck-") / "socket")) <= _SOCKET_PATH_LIMIT:
        return Path(usual)
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - below, for us alone


@contextmanager
def _service(dialect: Dialect, address: str | None) -> Iterator[str]:
    """Start a server for this process alone, or ssh to one; give its address here."""
    with janitor.temporary_directory(place=_place_for_a_socket()) as directory:
        host = f"unix://{directory}/socket"
        if address is None:
            assert dialect.service is not None
            argv, remedy = (*dialect.service, host), f"See what {dialect.name} info says."
        else:
            argv = tuple(forwarding(dialect, address, directory / "socket"))
            remedy = "ssh must connect without a question: an agent or a key, and a known host."
        with (directory / "log").open("w+b") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARDED, "mlcheck", str(_GRACE_S), *argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environ.own(),
                start_new_session=True,
            )
            assert process.stdin is not None
            try:
                with janitor.undone(janitor.kill(process.pid, group=True)):
                    with contextlib.suppress(OSError):
                        process.stdin.write(b"go\n")
                        process.stdin.flush()
                    deadline = time.monotonic() + _SERVICE_START_S
                    while (error := _reach(host)) is not None:
                        if process.poll() is not None or time.monotonic() > deadline:
                            log.seek(0)
                            words = log.read(4000).decode(errors="replace").strip()
                            what = f"{' '.join(argv[:-1])} did not start"
                            if address is not None:
                                what = f"{dialect.label}: no connection to {address}"
                            raise EngineError(f"{what}: {words or error.strerror}.", remedy)
                        # There is no notification when another program's socket starts to listen.
                        time.sleep(0.01)
                    yield host
            finally:
                with contextlib.suppress(OSError):
                    process.stdin.close()
                process.wait()
