"""Image archives for docker and podman to load, under a name of our choice.

An archive contains the tags of its images, and loading it unchanged would take these tags away from
images that have them on this machine. So the archive is rewritten while it is sent.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mlcheck.engines.oci.documents import DOCUMENT_LIMIT, sha256
from mlcheck.image.budget import Budget
from mlcheck.image.byte_sources import FileBytes, Part, plain
from mlcheck.image.tar_headers import BrokenArchive, Member
from mlcheck.image.tar_reader import TarReader
from mlcheck.model.errors import UsageError
from mlcheck.model.units import binary

_PIECE = 1024 * 1024
_NAME_ANNOTATION = "org.opencontainers.image.ref.name"
_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
}


def renamed(path: Path, name: str) -> Iterator[bytes]:
    """Iterate over the archive (or the directory of an OCI layout) at `path` with one image,
    called `name`.

    Raises:
        UsageError: it is not an image archive, or one of several images.
        OSError, EngineError: it cannot be read.
    """
    found = False
    try:
        for member, content in _from_directory(path) if path.is_dir() else _from_file(path):
            if member.name in ("repositories", "./repositories"):
                continue  # the oldest form of the tags
            rename = _TABLES.get(member.name.removeprefix("./"))
            if rename is None:
                yield from _member(member, content.pieces(_PIECE))
                continue
            if member.size > DOCUMENT_LIMIT:
                limit = binary(DOCUMENT_LIMIT)
                raise _no_archive(path, f"its {member.name} is larger than {limit}")
            data = b"".join(content.pieces(_PIECE))
            table = rename(path, _json(path, member.name, data), name)
            yield from _file(member.name, json.dumps(table).encode())
            found = True
    except BrokenArchive as error:
        raise _no_archive(path, f"it {error}") from error
    if not found:
        raise _no_archive(path, "it has neither manifest.json nor index.json")
    yield bytes(2 * tarfile.BLOCKSIZE)


def write_empty(path: Path) -> Path:
    """Write an archive of an image that has no files and is not equal to any other.

    Returns:
        `path`.
    """
    layer = bytes(2 * tarfile.BLOCKSIZE)
    config = {
        "os": "linux",
        "config": {"Labels": {"mlcheck.trial": os.urandom(16).hex()}},
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]},
    }
    table = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(table).encode(),
    }
    members = (piece for name, content in files.items() for piece in _file(name, content))
    path.write_bytes(b"".join(members) + bytes(2 * tarfile.BLOCKSIZE))
    return path


def _docker(path: Path, table: Any, name: str) -> Any:
    """Return the `manifest.json` of `docker save` with the name."""
    if not isinstance(table, list) or not all(isinstance(image, dict) for image in table):
        raise _no_archive(path, "its manifest.json is no list of images")
    _check_one(path, table, ("Config", "Layers"))
    return [{**table[0], "RepoTags": [name]}]


def _oci(path: Path, table: Any, name: str) -> Any:
    """Return the `index.json` of an OCI image layout with the name."""
    manifests = table.get("manifests") if isinstance(table, dict) else None
    if not isinstance(manifests, list) or not all(isinstance(found, dict) for found in manifests):
        raise _no_archive(path, "its index.json has no list of manifests")
    _check_one(path, manifests, ("digest",))
    return {**table, "manifests": [{**manifests[0], "annotations": {_NAME_ANNOTATION: name}}]}


_TABLES: dict[str, Callable[[Path, Any, str], Any]] = {"manifest.json": _docker, "index.json": _oci}


def _check_one(path: Path, entries: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    # An image with several tags has an entry for each of them.
    count = len({json.dumps([entry.get(key) for key in keys]) for entry in entries})
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


def _from_file(path: Path) -> Iterator[tuple[Member, Part]]:
    file = FileBytes(path)
    reader = TarReader(plain(file, Budget(file.size)))
    while (member := reader.next()) is not None:
        yield member, reader.content()


def _from_directory(path: Path) -> Iterator[tuple[Member, Part]]:
    for directory, _, names in os.walk(path):
        for name in sorted(names):
            file = Path(directory, name)
            # Anything else does not belong in a layout, and could lead out of it.
            if file.is_symlink() or not file.is_file():
                continue
            source = FileBytes(file, os.O_NOFOLLOW)
            member = Member(str(file.relative_to(path)), "file", 0o644, 0, 0, source.size, None)
            yield member, Part(source, 0, source.size)


def _member(member: Member, content: Iterable[bytes]) -> Iterator[bytes]:
    info = tarfile.TarInfo(member.name)
    info.type = _TYPES.get(member.type, tarfile.DIRTYPE)
    info.mode = member.mode
    info.linkname = member.target or ""
    info.size = member.size
    yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    yield from content
    yield bytes(-info.size % tarfile.BLOCKSIZE)


def _file(name: str, content: bytes) -> Iterator[bytes]:
    return _member(Member(name, "file", 0o644, 0, 0, len(content), None), [content])


def _no_archive(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is no image archive: {why}.",
        "Make one with: docker save -o FILE NAME:TAG (docker-archive:FILE), or skopeo copy "
        "... oci-archive:FILE.",
    )
