"""The files of a container of docker or podman: without copying them where possible.

merged: the directory in which the engine has put the image's layers together, if this user may
    read all that is in it. Rootless engines keep it to themselves, in a mount namespace of their
    own; that is entered through /proc.
streamed: archives from the engine; for daemons elsewhere, for containers that do not start, and
    for files that only the engine may read, such as private ones of a rootless engine's
    subordinate users.

In neither way is anything seen that the engine mounts for a running container (/proc, /dev,
/etc/hosts, volumes, ...): not what a process in the container sees is read, but what is below.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import urllib.parse
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

Way = Literal["merged", "streamed"]
WAYS: tuple[Way, ...] = ("merged", "streamed")

_Ranges = tuple[tuple[int, int, int], ...]
"""First ID inside, first ID outside, how many: user_namespaces(7)."""


PLAIN = {"Accept-Encoding": "identity"}
"""Without this, docker compresses archives, which takes seven times as long on one machine."""


def local_files(container: Container, image: Mapping[str, Any]) -> RootFS | None:
    """The container's files, read as files of this machine; None where that cannot be.

    Args:
        image: what the engine says of it.
    """
    pid, client = container.pid, container.client
    if pid is None or (merged := _merged(container.state)) is None:
        return None
    try:
        top = Path(f"/proc/{pid}/root").stat()
        directory = next((one for one in _seen(client, merged) if _is(one, top)), None)
        if directory is None:
            return None
        users, groups = (_ranges(Path(f"/proc/{pid}/{name}")) for name in ("uid_map", "gid_map"))
        rootfs = DirectoryRootFS(directory, functools.partial(mapped, users, groups))
        if os.geteuid() != 0:
            rootfs.check_readable()
        names_tell = client.dialect.names_tell
        rootfs.stored = stored_layers(image, container.state, names_tell=names_tell)
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


def _seen(client: Client, path: Path) -> Iterator[Path]:
    """Where a directory of the engine may be seen from here."""
    yield path
    if (pid := _server(client.host)) is not None:
        yield Path(f"/proc/{pid}/root{path}")


def _is(directory: Path, status: os.stat_result) -> bool:
    """The engine's word is not enough: it may speak of another machine's directory."""
    try:
        return os.path.samestat(directory.stat(), status)
    except OSError:
        return False


def _server(host: str) -> int | None:
    """The process that listens at a Unix socket; None where it cannot be seen from here."""
    url = urllib.parse.urlsplit(host)
    if url.scheme not in ("unix", "http+unix"):
        return None
    with socket.socket(socket.AF_UNIX) as unix:
        unix.connect(f"{url.netloc}{url.path}")
        ucred = struct.Struct("3i")
        found = unix.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size)
    pid: int = ucred.unpack(found)[0]
    return pid or None


def _ranges(path: Path) -> _Ranges:
    lines = path.read_text(encoding="ascii").splitlines()
    return tuple((int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines))


def _inside(number: int, ranges: _Ranges) -> int:
    """The number inside the namespace of an ID; itself when it has none there."""
    for inside, outside, count in ranges:
        if outside <= number < outside + count:
            return number - outside + inside
    return number
