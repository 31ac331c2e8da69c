"""What an archive or OCI layout says of its image.

The forms: https://github.com/opencontainers/image-spec/blob/main/image-layout.md and what
`docker save` writes. Everything in them is somebody else's word and read within bounds.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlcheck.engines.oci_documents import (
    DOCUMENT_LIMIT,
    ImageConfig,
    Index,
    matches,
    parse_config,
    parse_manifest,
    sha256,
)

Open = Callable[[str], IO[bytes]]
"""Opens a file by its path in the archive or directory; seekable."""

_NAMED_BY_DIGEST = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
"""The configuration in archives of `docker save`, of today and of before."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of an image; None: it does not tell.

    Args:
        digest: of its manifest (of its index, where that is for several platforms), or for
            docker's archives of its configuration (the image ID).
        architecture: as OCI names it ("amd64").
    """

    digest: str | None = None
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """The image in an archive or layout; None: it does not tell.

    Args:
        index_digest: of the index, if it is for several platforms; the others are then of the
            image for this machine.
        manifest_digest: None for docker's archives, which have no manifest.
        compressed_size: of its layers in bytes, when all of them are stored compressed.
        unpacked_size: the same, when none is.
        layer_files: where they are, the lowest first, by their paths in the archive or layout.
    """

    index_digest: str | None
    manifest_digest: str | None
    config_digest: str
    compressed_size: int | None
    unpacked_size: int | None
    layer_files: tuple[str, ...]
    config: ImageConfig

    @property
    def layers(self) -> int:
        return len(self.layer_files)


def describe(kind: str, path: Path) -> Described:
    """Look into an image of kind docker-archive, oci or oci-archive.

    What cannot be understood is not told: the engine that unpacks the image judges that.
    """
    try:
        found = look_into(kind, path)
    except ValueError:
        return Described()
    digest = found.index_digest or found.manifest_digest or found.config_digest
    return Described(digest, found.config.architecture)


def look_into(kind: str, path: Path) -> Contents:
    """The same, all that is told.

    Raises:
        ValueError: it cannot be read, or holds no image or several; the message follows the path.
    """
    with _understood(kind), _opened(kind, path) as open_file:
        return _contents_of(kind, open_file)


def read_contents(kind: str, open_file: Open) -> Contents:
    """The same of what is open already.

    Raises:
        ValueError: as `look_into`.
    """
    with _understood(kind):
        return _contents_of(kind, open_file)


def _contents_of(kind: str, open_file: Open) -> Contents:
    return _docker(open_file) if kind == "docker-archive" else _layout(open_file)


@contextmanager
def _understood(kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename or "file").name
        raise ValueError(f"is no image of kind {kind}: it has no {missing}") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except (
        *(EOFError, KeyError, TypeError, IndexError, AttributeError),
        *(RecursionError, tarfile.TarError, zlib.error, json.JSONDecodeError),
    ) as error:
        said = f"{error}".strip("'\"")[:200]
        raise ValueError(f"is damaged, or no image of kind {kind} ({said})") from None


@contextmanager
def _opened(kind: str, path: Path) -> Iterator[Open]:
    if kind == "oci":

        def open_file(name: str) -> IO[bytes]:
            # Not blocking, so that a FIFO is told from a file instead of being waited for; and no
            # link, which could lead out of the layout.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
            file = os.fdopen(os.open(path / name, flags), "rb")
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.close()
                raise OSError(f"{name} is no regular file")
            return file

        yield open_file
        return
    with tarfile.open(path) as archive:

        def open_member(name: str) -> IO[bytes]:
            file = archive.extractfile(name)
            if file is None:
                raise KeyError(f"{name} is no regular file")
            return file

        yield open_member


def _docker(open_file: Open) -> Contents:
    images = json.loads(_read(open_file, "manifest.json"))
    if len(images) != 1:
        raise ValueError(f"holds {len(images)} images; which one is meant is not known")
    name = str(images[0]["Config"])
    config = _read(open_file, name)
    pinned = _NAMED_BY_DIGEST.fullmatch(name)
    if pinned and not matches(config, f"sha256:{pinned[1]}"):
        raise ValueError(f"is damaged: {name} does not pin what is stored under it")
    return _contents(
        open_file, None, None, config, [str(layer) for layer in images[0].get("Layers") or ()]
    )


def _layout(open_file: Open) -> Contents:
    found = parse_manifest(_read(open_file, "index.json"))
    if not isinstance(found, Index):
        raise ValueError("has an index.json that is no index")
    digests = {entry.digest for entry in found.manifests}
    if len(digests) != 1:
        raise ValueError(f"holds {len(digests)} images; which one is meant is not known")
    index_digest, digest = None, digests.pop()
    image = parse_manifest(_blob(open_file, digest))
    if isinstance(image, Index):
        index_digest, digest = digest, image.for_machine().digest
        image = parse_manifest(_blob(open_file, digest))
        if isinstance(image, Index):
            raise ValueError("holds an index in an index")
    config = _blob(open_file, image.config.digest)
    layers = [_path(layer.digest) for layer in image.layers]
    return _contents(open_file, index_digest, digest, config, layers)


def _contents(
    open_file: Open,
    index_digest: str | None,
    manifest_digest: str | None,
    config: bytes,
    layers: list[str],
) -> Contents:
    sizes = {True: 0, False: 0}
    for name in layers:
        with closing(open_file(name)) as file:
            start = file.read(4)
            sizes[start.startswith((_GZIP, _ZSTD))] += file.seek(0, os.SEEK_END)
    return Contents(
        index_digest=index_digest,
        manifest_digest=manifest_digest,
        config_digest=sha256(config),
        compressed_size=None if sizes[False] else sizes[True],
        unpacked_size=None if sizes[True] else sizes[False],
        layer_files=tuple(layers),
        config=parse_config(config),
    )


def _read(open_file: Open, name: str) -> bytes:
    with closing(open_file(str(name))) as file:
        content = file.read(DOCUMENT_LIMIT + 1)
    if len(content) > DOCUMENT_LIMIT:
        raise ValueError(f"has a {name[:100]} larger than {DOCUMENT_LIMIT >> 20} MiB")
    return content


def _blob(open_file: Open, digest: str) -> bytes:
    content = _read(open_file, _path(digest))
    if not matches(content, digest):
        raise ValueError(f"is damaged: {digest} does not pin what is stored under it")
    return content


def _path(digest: str) -> str:
    # Descriptors have been checked: the digest is an algorithm and hex digits.
    return f"blobs/{digest.replace(':', '/', 1)}"
