"""The files of a container of docker or podman: without copying them if possible.

merged: the directory in which the engine has merged the image's layers, if this user may read
everything in it. Rootless engines keep it private, in a mount namespace of their own; that is
entered through /proc. Docker does not tell it with containerd's store, where it is looked for among
the engine's mounts.
streamed: archives from the engine; for daemons elsewhere, for containers that do not start, and for
files that only the engine may read, such as private ones of a rootless engine's subordinate users.

Neither way shows anything that the engine mounts for a running container (/proc, /dev,
/etc/hosts, volumes, ...): they read the files below these mounts, not those that a process in the
container sees.
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

from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.container import Container
from mlcheck.engines.oci.errors import engine_errors
from mlcheck.engines.oci.monitors import has_arguments
from mlcheck.engines.oci.mounts import mounts
from mlcheck.engines.oci.stored import below_container, stored_layers
from mlcheck.engines.oci.streamed import StreamedRootFS
from mlcheck.image.api import RootFS
from mlcheck.image.directory_listing import Status, fact
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.errors import ProbeError
from mlcheck.model.files import File

Way = Literal["merged", "streamed"]
WAYS: tuple[Way, ...] = ("merged", "streamed")

_Ranges = tuple[tuple[int, int, int], ...]
"""First ID inside, first ID outside, number of IDs: user_namespaces(7)."""


PLAIN = {"Accept-Encoding": "identity"}
"""Without this, docker compresses archives, which takes seven times as long on one machine."""


def local_files(container: Container, image: Mapping[str, Any]) -> RootFS | None:
    """Return the container's files, read as files of this machine, or None if that is impossible.

    Args:
        image: the engine's description of the image.
    """
    pid, client = container.pid, container.client
    if pid is None:
        return None
    try:
        top = Path(f"/proc/{pid}/root").stat()
        directory = next((one for one in _seen(client, container, top) if _is(one, top)), None)
        if directory is None:
            return None
        users, groups = (_ranges(Path(f"/proc/{pid}/{name}")) for name in ("uid_map", "gid_map"))
        rootfs = DirectoryRootFS(directory, functools.partial(mapped, users, groups))
        if os.geteuid() != 0:
            rootfs.check_readable()
        names_tell = client.dialect.names_tell
        below = below_container(container.state, pid)
        rootfs.stored = stored_layers(image, below, names_tell=names_tell)
    except (OSError, ProbeError):
        return None
    return rootfs if has_arguments(pid, container.name) else None


def expected_files(client: Client, told: Mapping[str, Any]) -> str:
    """Return how the files of an image that has a shell are read here, in words for people.

    Args:
        told: the engine's description of itself (`info`).
    """
    streamed = "streamed by the engine"
    server = _server(client.host) if client.is_local else None
    if server is None or told.get("Driver") not in ("overlay", "overlay2", "overlayfs"):
        return streamed
    if os.geteuid() == 0:
        return "where they lie"
    try:
        own = Path(f"/proc/{server}").stat().st_uid == os.geteuid()
    except OSError:
        return streamed
    if not is_rootless(told) or not own:
        return streamed
    return "where they lie; streamed where this user may not read all"


def is_rootless(told: Mapping[str, Any]) -> bool:
    """Return whether an engine runs as an ordinary user, from its description of itself."""
    return "name=rootless" in (told.get("SecurityOptions") or ()) or bool(told.get("Rootless"))


def streamed_files(client: Client, name: str) -> StreamedRootFS:
    """Return the files of the container `name`, running or not, from archives of the engine."""

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
    """Iterate over the body of an answer, a piece at a time. Raises EngineError."""
    try:
        with engine_errors(client.dialect, f"read {what}"):
            yield from response.iter_content(256 * 1024)
    finally:
        response.close()


def mapped(users: _Ranges, groups: _Ranges, path: str, status: Status, target: str | None) -> File:
    """Make the fact of a container's file, with owners as they are numbered inside the container.

    Args:
        users, groups: the maps of its user namespace.
    """
    file = fact(path, status, target)
    return file._replace(uid=_inside(file.uid, users), gid=_inside(file.gid, groups))


def _merged(state: Any) -> Path | None:
    driver = state.get("GraphDriver") or {}
    path = (driver.get("Data") or {}).get("MergedDir")
    return Path(path) if isinstance(path, str) and path.startswith("/") else None


def _seen(client: Client, container: Container, top: os.stat_result) -> Iterator[Path]:
    """Iterate over the paths at which the merged directory of a container may be visible from here.

    Args:
        top: status of the container's root.
    """
    told = _merged(container.state)
    server = _server(client.host)
    for process in ("self", *([str(server)] if server is not None else [])):
        above = "" if process == "self" else f"/proc/{process}/root"
        if told is not None:
            yield Path(f"{above}{told}")
            continue
        for mount in mounts(process):
            if (mount.device, mount.root) == (top.st_dev, "/"):
                yield Path(f"{above}{mount.point}")


def _is(directory: Path, status: os.stat_result) -> bool:
    """Return whether a directory has this status. The engine's report is not enough: the directory
    may be on another machine."""
    try:
        return os.path.samestat(directory.stat(), status)
    except OSError:
        return False


def _server(host: str) -> int | None:
    """Return the process that listens at a Unix socket, or None if it is not visible from here."""
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
    """Return the ID inside the namespace for an ID outside; the same ID if there is none."""
    for inside, outside, count in ranges:
        if outside <= number < outside + count:
            return number - outside + inside
    return number
