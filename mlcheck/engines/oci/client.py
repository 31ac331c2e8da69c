"""A connection to the server of docker or podman."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import docker

from mlcheck.engines.oci import server as oci_server
from mlcheck.engines.oci.dialect import DOCKER, PODMAN, Dialect
from mlcheck.engines.oci.errors import API_TIMEOUT_S, engine_errors
from mlcheck.machine import janitor
from mlcheck.model.errors import EngineError

OLDEST_API = (1, 41)
"""Version of docker's API: Docker 20.10, podman 4.0."""


class Client(docker.APIClient):  # type: ignore[misc] # the SDK has no types
    """A connection to a server.

    Attributes:
        dialect: the server's dialect.
        host: the server's address: "unix:///SOCKET", "tcp://HOST:PORT"; over ssh, that of the
            socket here that ssh forwards.
        address: the same for people, "ssh://HOST" included.
        engine_version: version of the server, as far as it consists of numbers: (4, 3, 1).
        newest_api: the newest version of docker's API that the server speaks, such as "1.51", which
            may be newer than the SDK's.
        has_cgroups: False once it has refused to limit a container.
    """

    def __init__(self, dialect: Dialect, host: str, tls: Any, address: str) -> None:
        version = ".".join(map(str, OLDEST_API))
        super().__init__(base_url=host, version=version, timeout=API_TIMEOUT_S, tls=tls)
        self.dialect = dialect
        self.host = host
        self.address = address
        self._tls = tls
        self.engine_version: tuple[int, ...] = ()
        self.newest_api = version
        self.has_cgroups = True

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Do as requests does, but keep to the authority of the server's TLS settings: requests
        prefers that of REQUESTS_CA_BUNDLE, which is about the web."""
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)

    @property
    def is_local(self) -> bool:
        """Return whether the server is on this machine, as far as its address tells."""
        return self.address.startswith(("unix:", "http+unix:"))

    def deletion(self, path: str, *, in_work: bool = False) -> janitor.Action:
        """Make the action of sending DELETE for `path`; see `mlcheck.machine.janitor`."""
        return janitor.http_delete(self.host, path, in_work=in_work, tls=_files(self._tls))

    @property
    def api_url(self) -> str:
        """Return the URL of the engine's own API."""
        return f"/{self.dialect.own_api or f'v{self.api_version}'}"

    @property
    def images_url(self) -> str:
        """Return the URL of the API for images, in the newest form: an older one does not tell in
        which kind of store an image is."""
        return f"/{self.dialect.own_api or f'v{self.newest_api}'}/images"


@contextmanager
def connect(dialect: Dialect) -> Iterator[Client]:
    """Connect to the engine's server; podman's is started if there is none.

    Raises:
        EngineError: there is no server, access to it is denied, or it is not the expected engine.
    """
    with ExitStack() as stack:
        host, tls = oci_server.configured(dialect)
        address = host
        if host is not None and oci_server.is_ssh(host):
            host = stack.enter_context(oci_server.shared_service(dialect, host))
        elif host is not None:
            oci_server.check_reachable(dialect, host)
        elif (host := oci_server.found(dialect)) is None:
            host = stack.enter_context(oci_server.shared_service(dialect))
        address = address or host
        with engine_errors(dialect, f"answer at {address}"):
            client = stack.enter_context(contextlib.closing(Client(dialect, host, tls, address)))
            # Not /version, for which podman runs its helpers: half a second.
            answer = client.get(f"{client.base_url}/_ping", timeout=API_TIMEOUT_S)
        _check(client, answer.headers)
        yield client


def _files(tls: Any) -> list[str | bool | None] | None:
    """Return the files of TLS settings: the authority, the certificate and the key, and whether the
    server's certificate is verified."""
    if not isinstance(tls, docker.tls.TLSConfig):
        return None
    certificate, key = tls.cert or (None, None)
    return [tls.ca_cert, certificate, key, bool(tls.verify)]


def _check(client: Client, headers: Mapping[str, str]) -> None:
    """Raise an EngineError unless the answer to a ping is from the engine, in a version
    new enough."""
    dialect = client.dialect
    product, _, rest = headers.get("Server", "").partition("/")
    version = rest.partition(" ")[0]
    for other in (DOCKER, PODMAN):
        if other.server == product and other != dialect:
            raise EngineError(
                f"{dialect.label}: what answers at {client.address} is {other.label} {version}.",
                f"Use it by its name: --engine {other.name}.",
            )
    if product != dialect.server:
        raise EngineError(
            f"{dialect.label}: what answers at {client.address} is something else: "
            f"{product[:80] or 'it does not say what'}.",
            f"Set {dialect.host_variable} to the address of {dialect.label}.",
        )
    spoken = headers.get("Api-Version", "")
    if _numbers(spoken) < OLDEST_API:
        raise EngineError(
            f"{dialect.label} {version} at {client.address} is too old: it speaks version {spoken} "
            f"of docker's API, and {'.'.join(map(str, OLDEST_API))} is needed.",
            dialect.old,
        )
    client.engine_version = _numbers(version)
    client.newest_api = spoken
    # The newest that both support: a server may refuse versions that are much older than itself.
    newest = docker.constants.DEFAULT_DOCKER_API_VERSION
    client._version = min(spoken, newest, key=_numbers)


def _numbers(version: str) -> tuple[int, ...]:
    """Return (20, 10, 24) for "20.10.24+dfsg1"."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
