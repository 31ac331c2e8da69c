"""Image archives as docker and podman load them, under a name of our choice.

An archive brings the tags of its images along, and loading it as it is would take these tags
away from images that carry them on this machine. So the archive is rewritten while it is sent.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from mlcheck.engines.tar_stream import BrokenArchive, Member, TarStream
from mlcheck.errors import UsageError

INDEX_LIMIT = 4 * 1024 * 1024
"""Bytes of an archive's table of contents; real ones have a few hundred."""

_CHUNK = 1024 * 1024
_NAME_ANNOTATION = "org.opencontainers.image.ref.name"
_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
}


def renamed(path: Path, name: str) -> Iterator[bytes]:
    """The archive (or the directory of an OCI layout) at `path` with one image, called `name`.

    Raises:
        UsageError: it is no image archive, or one of several images.
        OSError: it cannot be read.
    """
    found = False
    for member, content in _from_directory(path) if path.is_dir() else _from_file(path):
        if member.name in ("repositories", "./repositories"):
            continue  # the oldest form of the tags
        rename = _TABLES.get(member.name.removeprefix("./"))
        if rename is not None:
            if member.size > INDEX_LIMIT:
                raise _no_archive(path, f"its {member.name} is larger than 4 MiB")
            table = rename(path, _json(path, member.name, b"".join(content)), name)
            yield from _member(member, [json.dumps(table).encode()])
            found = True
        else:
            yield from _member(member, content)
    if not found:
        raise _no_archive(path, "it has neither manifest.json nor index.json")
    yield bytes(2 * tarfile.BLOCKSIZE)


def write_empty(path: Path) -> Path:
    """Write an archive of an image that no other is equal to, in which there is no file.

    Returns:
        `path`.
    """
    layer = bytes(2 * tarfile.BLOCKSIZE)
    config = {
        "os": "linux",
        "config": {"Labels": {"mlcheck.trial": os.urandom(16).hex()}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    files = {"config.json": json.dumps(config).encode(), "layer.tar": layer}
    table = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    files["manifest.json"] = json.dumps(table).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _docker(path: Path, table: Any, name: str) -> Any:
    """The `manifest.json` of `docker save`."""
    if not isinstance(table, list) or not all(isinstance(image, dict) for image in table):
        raise _no_archive(path, "its manifest.json is no list of images")
    _check_one(path, len(table))
    return [{**table[0], "RepoTags": [name]}]


def _oci(path: Path, table: Any, name: str) -> Any:
    """The `index.json` of an OCI image layout."""
    manifests = table.get("manifests") if isinstance(table, dict) else None
    if not isinstance(manifests, list) or not all(isinstance(found, dict) for found in manifests):
        raise _no_archive(path, "its index.json has no list of manifests")
    _check_one(path, len(manifests))
    return {**table, "manifests": [{**manifests[0], "annotations": {_NAME_ANNOTATION: name}}]}


_TABLES: dict[str, Callable[[Path, Any, str], Any]] = {"manifest.json": _docker, "index.json": _oci}


def _check_one(path: Path, count: int) -> None:
    if count != 1:
        raise UsageError(
            f"{path} holds {count} images; which one is meant is not known.",
            "Give an archive of one image: docker save -o FILE NAME:TAG.",
        )


def _json(path: Path, name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _no_archive(path, f"its {name} is no JSON") from error


def _from_file(path: Path) -> Iterator[tuple[Member, Iterable[bytes]]]:
    with path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        file = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if zipped else plain
        stream = TarStream(iter(lambda: file.read(_CHUNK), b""))
        try:
            while (member := stream.next()) is not None:
                yield member, iter(lambda: stream.read(_CHUNK), b"")
        except (BrokenArchive, EOFError, gzip.BadGzipFile) as error:
            raise _no_archive(path, f"it {error}") from error


def _from_directory(path: Path) -> Iterator[tuple[Member, Iterable[bytes]]]:
    for directory, _, names in os.walk(path):
        for name in sorted(names):
            file = Path(directory, name)
            # Anything else has no place in a layout, and could lead out of it.
            if file.is_symlink() or not file.is_file():
                continue
            with file.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                member = Member(str(file.relative_to(path)), "file", 0o644, 0, 0, size, None)
                yield member, iter(lambda content=content: content.read(_CHUNK), b"")  # type: ignore[misc]


def _member(member: Member, content: Iterable[bytes]) -> Iterator[bytes]:
    info = tarfile.TarInfo(member.name)
    info.type = _TYPES.get(member.type, tarfile.DIRTYPE)
    info.mode = member.mode
    info.linkname = member.target or ""
    # Only the small tables of contents change their size, and they come in one piece.
    pieces = content if isinstance(content, list) else None
    info.size = len(pieces[0]) if pieces else member.size
    yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    yield from content
    yield bytes(-info.size % tarfile.BLOCKSIZE)


def _no_archive(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is no image archive: {why}.",
        "Make one with: docker save -o FILE NAME:TAG (docker-archive:FILE), or skopeo copy "
        "... oci-archive:FILE.",
    )
