"""The files of a container of docker or podman: without copying them where possible.

merged: the directory in which the engine has put the image's layers together, if this machine
    and this user can see it.
process: the root file system of the container's first process, through /proc; for engines that
    keep their mounts to themselves (rootless ones). What the engine mounts over the image's
    files is seen instead of them: /etc/hosts, /etc/hostname, /etc/resolv.conf, /tmp, /dev, ...
streamed: archives from the engine; for daemons elsewhere, and for containers that do not start.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import docker

from mlcheck.engines.base import RootFS
from mlcheck.engines.oci_client import Client
from mlcheck.engines.oci_container import Container
from mlcheck.engines.oci_errors import engine_errors
from mlcheck.engines.oci_monitors import has_arguments
from mlcheck.engines.oci_stored import stored_layers
from mlcheck.engines.streamed import StreamedRootFS
from mlcheck.entries import Status, fact
from mlcheck.errors import ProbeError
from mlcheck.facts import File
from mlcheck.rootfs import DirectoryRootFS

Way = Literal["merged", "process", "streamed"]
WAYS: tuple[Way, ...] = ("merged", "process", "streamed")

_Ranges = tuple[tuple[int, int, int], ...]
"""First ID inside, first ID outside, how many: user_namespaces(7)."""


PLAIN = {"Accept-Encoding": "identity"}
"""Without this, docker compresses archives, which takes seven times as long on one machine."""


def local_files(container: Container, way: Way, image: Mapping[str, Any]) -> RootFS | None:
    """The container's files, read as files of this machine; None where that cannot be.

    Args:
        image: what the engine says of it.
    """
    pid = container.pid
    if pid is None or way == "streamed":
        return None
    process = Path(f"/proc/{pid}/root")
    try:
        users, groups = (_ranges(Path(f"/proc/{pid}/{name}")) for name in ("uid_map", "gid_map"))
        fact_of = functools.partial(mapped, users, groups)
        rootfs: DirectoryRootFS | None = None
        if way == "process":
            rootfs = DirectoryRootFS(process, fact_of)
        elif (directory := _merged(container.state)) is not None:
            rootfs = DirectoryRootFS(directory, fact_of)
            # The engine's word is not enough: it may speak of another machine's directory.
            if not os.path.samestat(directory.stat(), process.stat()):
                rootfs = None
            else:
                names_tell = container.client.dialect.names_tell
                rootfs.stored = stored_layers(image, container.state, names_tell=names_tell)
        if rootfs is not None:
            rootfs.listdir("/")
    except (OSError, ProbeError):
        return None
    return rootfs if has_arguments(pid, container.name) else None


def streamed_files(client: Client, name: str) -> StreamedRootFS:
    """The files of the container `name`, running or not, from archives of the engine."""

    def get_archive(path: str) -> Iterable[bytes] | None:
        with engine_errors(client.dialect, f"read {path}"):
            try:
                url = client._url("/containers/{0}/archive", name)
                query = {"path": path.encode("utf-8", "surrogateescape")}
                response = client._get(url, params=query, headers=PLAIN, stream=True)
                client._raise_for_status(response)
            except docker.errors.NotFound:
                return None
        return chunks(client, response, path)

    def export() -> Iterable[bytes]:
        with engine_errors(client.dialect, "export its container"):
            url = client._url("/containers/{0}/export", name)
            response = client._get(url, headers=PLAIN, stream=True)
            client._raise_for_status(response)
        return chunks(client, response, "its files")

    return StreamedRootFS(get_archive, export if client.dialect.exports else None)


def chunks(client: Client, response: Any, what: str) -> Iterator[bytes]:
    """The body of an answer, a piece at a time. Raises EngineError."""
    try:
        with engine_errors(client.dialect, f"read {what}"):
            yield from response.iter_content(256 * 1024)
    finally:
        response.close()


def mapped(users: _Ranges, groups: _Ranges, path: str, status: Status, target: str | None) -> File:
    """A container's file, with owners as they are numbered inside the container.

    Args:
        users, groups: the maps of its user namespace.
    """
    file = fact(path, status, target)
    return file._replace(uid=_inside(file.uid, users), gid=_inside(file.gid, groups))


def _merged(state: Any) -> Path | None:
    driver = state.get("GraphDriver") or {}
    path = (driver.get("Data") or {}).get("MergedDir")
    return Path(path) if isinstance(path, str) and path.startswith("/") else None


def _ranges(path: Path) -> _Ranges:
    lines = path.read_text(encoding="ascii").splitlines()
    return tuple((int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines))


def _inside(number: int, ranges: _Ranges) -> int:
    """The number inside the namespace of an ID; itself when it has none there."""
    for inside, outside, count in ranges:
        if outside <= number < outside + count:
            return number - outside + inside
    return number
