"""Docker and podman: where they differ, and how to reach them. Both speak docker's HTTP API.

What follows from a difference is looked up in a `Dialect`; nothing else asks which engine it is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import docker
import requests
import urllib3

from mlcheck.engines import janitor
from mlcheck.errors import EngineError
from mlcheck.image import Kind

API_TIMEOUT_S = 120.0
"""How long the engine may say nothing while it does one thing; a busy disk can take a minute."""

OLDEST_API = (1, 41)
"""Version of docker's API: Docker 20.10, podman 4.0."""

_REACH_TIMEOUT_S = 10.0
_SOCKET_PATH_LIMIT = 107
_SERVICE_START_S = 30.0
_CONTEXTS = "Choose one of those that `docker context ls` shows, or set DOCKER_HOST."


@dataclass(frozen=True, slots=True)
class Dialect:
    """What tells one engine from the other.

    Args:
        name: of the engine, and of its command.
        label: its name for people.
        server: how its server calls itself in the headers of its answers.
        host_variable: the environment variable that says where the server is.
        sockets: where it usually listens, with $VARIABLES.
        contexts: whether the docker command's contexts say where the server is.
        service: the command, without the address, that starts a server where none is.
        gpu: the request for all GPUs, as HostConfig.DeviceRequests has it.
        gpu_since: version of the server before which it ignores that request without a word.
        gpu_option: the same for a person who types `run`.
        tmpfs: options for a directory in memory that is empty whatever the image has there.
        monitor: name, and an argument, of the processes that it leaves for minutes after each
            command that was started through its API (`exit_command_delay` in containers.conf(5)).
        exports: whether its archives of single files follow symlinks and tell no owners, so that
            facts have to come from an export of the whole container.
        names_tell: whether it believes what an image claims of its layers' digests, and names their
            directories after the true ones (docker refuses such an image).
        formats: the kinds of archives that it loads.
        images_api: where its own API for images is; "" for docker's.
        insecure, certificates: where its administrator allows plain HTTP, and puts certificates
            of registries.
        missing, stopped, forbidden, old: remedies: nothing is installed, no server runs, the
            socket may not be opened, the server is too old.
    """

    name: str
    label: str
    server: str
    host_variable: str
    sockets: tuple[str, ...]
    contexts: bool
    service: tuple[str, ...] | None
    gpu: Mapping[str, Any] = field(hash=False)
    gpu_since: tuple[int, int] | None
    gpu_option: tuple[str, ...]
    tmpfs: str
    monitor: tuple[str, str] | None
    exports: bool
    names_tell: bool
    formats: tuple[Kind, ...]
    images_api: str
    insecure: str
    certificates: str
    missing: str
    stopped: str
    forbidden: str
    old: str


DOCKER = Dialect(
    name="docker",
    label="docker",
    server="Docker",
    host_variable="DOCKER_HOST",
    sockets=("/var/run/docker.sock", "$XDG_RUNTIME_DIR/docker.sock"),
    contexts=True,
    service=None,
    gpu={"Driver": "", "Count": -1, "Capabilities": [["gpu"]]},
    gpu_since=None,
    gpu_option=("--gpus", "all"),
    tmpfs="rw,exec,nosuid,nodev,mode=1777",
    monitor=None,
    exports=False,
    names_tell=False,
    formats=("docker-archive",),
    images_api="",
    insecure='"insecure-registries" in /etc/docker/daemon.json',
    certificates="/etc/docker/certs.d",
    missing="Install docker, or use another engine: `mlcheck doctor` lists them.",
    stopped="Start it: sudo systemctl start docker (rootless: systemctl --user start docker).",
    forbidden="Join its group (sudo usermod -aG docker $USER, then log in again), "
    "or use rootless docker or podman.",
    old="Install Docker 20.10 or newer.",
)

PODMAN = Dialect(
    name="podman",
    label="podman",
    server="Libpod",
    host_variable="CONTAINER_HOST",
    sockets=("/run/podman/podman.sock", "$XDG_RUNTIME_DIR/podman/podman.sock"),
    contexts=False,
    service=("podman", "system", "service", "--time=0"),
    # https://docs.podman.io/en/latest/markdown/podman-run.1.html#device-host-device-container-device-permissions
    gpu={"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]},
    gpu_since=(5, 4),
    gpu_option=("--device", "nvidia.com/gpu=all"),
    tmpfs="rw,exec,nosuid,nodev,mode=1777,notmpcopyup",
    monitor=("conmon", "--exec-process-spec"),
    exports=True,
    names_tell=True,
    formats=("docker-archive", "oci-archive", "oci"),
    # The one like docker's looks for short names at docker.io only.
    images_api="v4.0.0/libpod",
    insecure='"insecure = true" for it in /etc/containers/registries.conf',
    certificates="/etc/containers/certs.d",
    missing="Install podman, or use another engine: `mlcheck doctor` lists them.",
    stopped="Unset CONTAINER_HOST, or start what listens there: "
    "systemctl --user start podman.socket.",
    forbidden="Unset CONTAINER_HOST to use podman as yourself; it needs no daemon.",
    old="Install podman 4.0 or newer.",
)


class Client(docker.APIClient):  # type: ignore[misc] # the SDK has no types
    """A connection to a server.

    Attributes:
        dialect: what it speaks.
        host: where it is: "unix:///SOCKET", "tcp://HOST:PORT".
        engine_version: of the server, as far as it is made of numbers: (4, 3, 1).
    """

    def __init__(self, dialect: Dialect, host: str, tls: Any) -> None:
        version = ".".join(map(str, OLDEST_API))
        super().__init__(base_url=host, version=version, timeout=API_TIMEOUT_S, tls=tls)
        self.dialect = dialect
        self.host = host
        self.engine_version: tuple[int, ...] = ()

    @property
    def images_url(self) -> str:
        """Of the API for images."""
        return f"/{self.dialect.images_api or f'v{self.api_version}'}/images"


@contextmanager
def connect(dialect: Dialect) -> Iterator[Client]:
    """A connection to the engine's server; podman's is started when there is none.

    Raises:
        EngineError: there is no server, it may not be used, or it is not what it should be.
    """
    with ExitStack() as stack:
        host, tls = _configured(dialect)
        if host is None:
            host = _found(dialect) or stack.enter_context(_shared_service(dialect))
        else:
            _check_reachable(dialect, host)
        with engine_errors(dialect, f"answer at {host}"):
            client = stack.enter_context(contextlib.closing(Client(dialect, host, tls)))
            # Not /version, for which podman asks its helpers: half a second.
            answer = client.get(f"{client.base_url}/_ping", timeout=API_TIMEOUT_S)
        _check(client, answer.headers)
        yield client


@contextmanager
def engine_errors(dialect: Dialect, doing: str, remedy: str = "") -> Iterator[None]:
    """Turn what the SDK raises into an EngineError: "docker could not `doing`: reason".

    An EngineError passes as it is.
    """
    try:
        yield
    except (
        docker.errors.DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,  # an answer that is no JSON, or no version
    ) as error:
        raise EngineError(
            f"{dialect.label} could not {doing}: {reason(error)}.",
            remedy or _remedy(dialect, error),
        ) from error


def reason(error: BaseException) -> str:
    """What an exception of the SDK says, in the words of the server or the kernel."""
    if isinstance(error, docker.errors.APIError) and error.explanation:
        return str(error.explanation).strip().rstrip(".")
    root: BaseException = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    if isinstance(root, TimeoutError):
        return f"it did not answer within {API_TIMEOUT_S:.0f} s"
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return f"{root}".strip().rstrip(".") or type(root).__name__


def _remedy(dialect: Dialect, error: BaseException) -> str:
    text = reason(error)
    if "no space left" in text.lower():
        return f"Free space on the disk of {dialect.label}'s images: {dialect.name} system prune."
    if isinstance(error, requests.ConnectionError):
        return f"See whether {dialect.label} still runs ({dialect.name} info), and its log."
    return ""


def _configured(dialect: Dialect) -> tuple[str | None, Any]:
    """Where the user says that the server is, and the TLS settings for it."""
    host = os.environ.get(dialect.host_variable) or None
    tls: Any = False
    if host is None and dialect.contexts:
        host, tls = _of_context()
    elif host is not None and dialect.contexts and os.environ.get("DOCKER_TLS_VERIFY"):
        with engine_errors(dialect, "use TLS as DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say"):
            tls = docker.utils.kwargs_from_env().get("tls", False)
    if host is not None and host.startswith("ssh://"):
        raise EngineError(
            f"{dialect.host_variable}: {host} leads over ssh, which mlcheck does not use.",
            "Forward the socket (ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock HOST) and set "
            f"{dialect.host_variable}=unix:///tmp/engine.sock.",
        )
    return host, tls


def _of_context() -> tuple[str | None, Any]:
    """Address and TLS settings of the docker command's current context.

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


def _found(dialect: Dialect) -> str | None:
    """Where a server listens, of the usual places; None when one has to be started.

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
    if shutil.which(dialect.name) or shutil.which(f"{dialect.name}d"):
        places = " and ".join(os.path.expandvars(place) for place in dialect.sockets)
        raise EngineError(f"{dialect.label} does not run: no socket at {places}.", dialect.stopped)
    raise EngineError(f"{dialect.label} is not installed.", dialect.missing)


def _check_reachable(dialect: Dialect, host: str) -> None:
    error = _reach(host)
    if error is not None:
        _unreachable(dialect, host, error)


def _reach(host: str) -> OSError | None:
    """Why nothing can be connected to at `host`; None when it can."""
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


@dataclass
class _Shared:
    """A server that this process started: where it listens, and how many use it."""

    host: str
    resources: ExitStack
    users: int = 0


_services: dict[object, _Shared] = {}
_services_lock = threading.Lock()


@contextmanager
def _shared_service(dialect: Dialect) -> Iterator[str]:
    """The server of this process: started for the first who asks, ended after the last."""
    # A server has the variables of its start, such as where its logins are.
    key = (dialect.name, frozenset(os.environ.items()))
    with _services_lock:
        shared = _services.get(key)
        if shared is None or _reach(shared.host) is not None:
            resources = ExitStack()
            shared = _Shared(resources.enter_context(_service(dialect)), resources)
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
    """Where temporary files go, unless the path of a socket there were too long, unix(7)."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= _SOCKET_PATH_LIMIT - len("/mlcheck-0123456789abcdef/socket"):
        return Path(usual)
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - below, for us alone


@contextmanager
def _service(dialect: Dialect) -> Iterator[str]:
    """A server for this process alone: where it listens."""
    assert dialect.service is not None
    directory = _place_for_a_socket() / f"mlcheck-{os.urandom(8).hex()}"
    with janitor.undone(janitor.remove(directory)):
        directory.mkdir(mode=0o700)
        host = f"unix://{directory}/socket"
        with (directory / "log").open("w+b") as log:
            # It waits to be promised to the janitor before it becomes the server.
            process = subprocess.Popen(
                [
                    "/bin/sh",
                    "-c",
                    'read -r go && exec "$@" </dev/null',
                    "mlcheck",
                    *dialect.service,
                    host,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
            assert process.stdin is not None
            try:
                with janitor.undone(janitor.kill(process.pid, group=True)):
                    with contextlib.suppress(OSError), process.stdin as go:
                        go.write(b"go\n")
                    deadline = time.monotonic() + _SERVICE_START_S
                    while (error := _reach(host)) is not None:
                        if process.poll() is not None or time.monotonic() > deadline:
                            log.seek(0)
                            words = log.read(4000).decode(errors="replace").strip()
                            raise EngineError(
                                f"{' '.join(dialect.service)} did not start: "
                                f"{words or error.strerror}.",
                                f"See what {dialect.name} info says.",
                            )
                        # Nothing tells when a socket that another program makes is listened at.
                        time.sleep(0.01)
                    yield host
            finally:
                process.wait()


def _check(client: Client, headers: Mapping[str, str]) -> None:
    """Raise an EngineError unless what answered a ping is the engine, and new enough."""
    dialect = client.dialect
    product, _, rest = headers.get("Server", "").partition("/")
    version = rest.partition(" ")[0]
    for other in (DOCKER, PODMAN):
        if other.server == product and other != dialect:
            raise EngineError(
                f"{dialect.label}: what answers at {client.host} is {other.label} {version}.",
                f"Use it by its name: --engine {other.name}.",
            )
    if product != dialect.server:
        raise EngineError(
            f"{dialect.label}: what answers at {client.host} is something else: "
            f"{product[:80] or 'it does not say what'}.",
            f"Set {dialect.host_variable} to the address of {dialect.label}.",
        )
    spoken = headers.get("Api-Version", "")
    if _numbers(spoken) < OLDEST_API:
        raise EngineError(
            f"{dialect.label} {version} at {client.host} is too old: it speaks version {spoken} "
            f"of docker's API, and {'.'.join(map(str, OLDEST_API))} is needed.",
            dialect.old,
        )
    client.engine_version = _numbers(version)
    # The newest that both know: a server may refuse versions that are much older than itself.
    newest = docker.constants.DEFAULT_DOCKER_API_VERSION
    client._version = min(spoken, newest, key=_numbers)


def _numbers(version: str) -> tuple[int, ...]:
    """(20, 10, 24) of "20.10.24+dfsg1"."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
