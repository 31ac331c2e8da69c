"""An image in an archive or OCI layout: its documents and the places of its layers.

The forms: https://github.com/opencontainers/image-spec/blob/main/image-layout.md and the
archives of `docker save`: formerly a directory for each layer, some of which are symlinks to
others; since Docker 25, an OCI layout with a manifest.json. Everything in them is untrusted and
read within bounds.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlcheck.engines.oci.documents import (
    DOCUMENT_LIMIT,
    ImageConfig,
    Index,
    documents_from,
    matches,
    parse_config,
    parse_manifest,
    sha256,
)
from mlcheck.image.budget import LAYER_LIMIT, Budget
from mlcheck.image.byte_sources import FileBytes, Part, compression, plain
from mlcheck.image.layers import LayerEntry, index_layer
from mlcheck.image.open_directories import Directories
from mlcheck.image.paths import LINK_LIMIT, components
from mlcheck.image.tar_headers import HEADER_LIMIT, BrokenArchive, next_member
from mlcheck.model.errors import ProbeError
from mlcheck.model.units import binary

L = TypeVar("L")

Read = Callable[[str], bytes]
"""Returns a document by its path in the archive or layout."""

_NAMED_BY_DIGEST = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
"""Name of the configuration in archives of `docker save`, current and older ones."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The image in an archive or layout; None if a value is not recorded.

    Args:
        index_digest: digest of the index, if it is for several platforms; the others are then of
            the image for this machine.
        manifest_digest: None for docker's archives, which have no manifest.
        layer_files: the paths of its layers in the archive or layout, the lowest first.
    """

    index_digest: str | None
    manifest_digest: str | None
    config_digest: str
    config: ImageConfig
    layer_files: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Return the digest of its manifest (of its index, if that is for several platforms), or
        for docker's archives of its configuration (the image ID)."""
        return self.index_digest or self.manifest_digest or self.config_digest

    def diff_ids(self) -> tuple[str, ...]:
        """Return the digests of its layers, as its configuration claims them.

        Raises:
            ValueError: the configuration records another number of layers.
        """
        found = self.config.diff_ids or ()
        if len(found) != len(self.layer_files):
            raise ValueError(
                f"is damaged: it has {len(self.layer_files)} layers, and its configuration tells "
                f"of {len(found)}"
            )
        return found


def look_into(kind: str, path: Path, budget: Budget | None = None) -> tuple[Contents, list[Part]]:
    """Read the documents of an image of kind docker-archive, oci or oci-archive, and find
    its layers; one that is named twice is the same object.

    Args:
        budget: of the image, which learns how many bytes are stored; None: a new one.

    Raises:
        ValueError: it cannot be read, or holds no image or several; the message follows the path.
    """
    with _understood(kind):
        find = _found(kind, path, budget or Budget())
        return read_contents(kind, lambda name: _document(name, find(name)), find)


def has_several_names(kind: str, path: Path) -> bool:
    """Return whether an archive or layout has an entry for each of several names in its index."""
    try:
        with _understood(kind):
            find = _found(kind, path, Budget())
            index = json.loads(_document("index.json", find("index.json")))
            return len(index["manifests"]) > 1
    except ValueError:
        return False


def read_contents(kind: str, read: Read, find: Callable[[str], L]) -> tuple[Contents, list[L]]:
    """Do the same for an archive or layout that is open already.

    Args:
        read: raises KeyError or OSError if there is no such document.
        find: the same for layers.

    Raises:
        ValueError: as `look_into`.
    """
    with _understood(kind):
        contents = _docker(read) if kind == "docker-archive" else _layout(read)
        if (count := len(contents.layer_files)) > LAYER_LIMIT:
            raise ValueError(f"has {count} layers; an image may have {LAYER_LIMIT}")
        return contents, [find(name) for name in contents.layer_files]


def stored_sizes(layers: Sequence[Part]) -> tuple[int | None, int | None]:
    """Return the bytes of all layers: if all of them are stored compressed, and if none is."""
    sizes = {True: 0, False: 0}
    for layer in layers:
        sizes[compression(layer.pread(0, 4)) is not None] += layer.size
    return None if sizes[False] else sizes[True], None if sizes[True] else sizes[False]


@contextmanager
def _understood(kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename or "file").name
        raise ValueError(f"is no image of kind {kind}: it has no {missing}") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except BrokenArchive as error:
        raise ValueError(str(error)) from None
    except (
        *(KeyError, TypeError, IndexError, AttributeError, RecursionError),
        *(json.JSONDecodeError, UnicodeDecodeError),
    ) as error:
        said = f"{error}".strip("'\"")[:200]
        raise ValueError(f"is damaged, or no image of kind {kind} ({said})") from None


def _found(kind: str, path: Path, budget: Budget) -> Callable[[str], Part]:
    return _in_directory(path, budget) if kind == "oci" else _in_archive(kind, path, budget)


def _in_directory(path: Path, budget: Budget) -> Callable[[str], Part]:
    directories = Directories(path)

    @functools.cache
    def find(name: str) -> Part:
        # Names are "index.json" and blobs by valid digests. Links, which could lead out, are not
        # followed, neither to a file nor to a directory.
        above, _, last = name.rpartition("/")
        try:
            directory = directories.at(f"/{above}" if above else "")
            file = FileBytes(Path(f"/proc/self/fd/{directory.fd}", last), os.O_NOFOLLOW)
        except ProbeError as error:
            raise error.__cause__ or error from None
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path / name)) from None
        file.path = path / name
        budget.stored += file.size
        return Part(file, 0, file.size)

    return find


def _in_archive(kind: str, path: Path, budget: Budget) -> Callable[[str], Part]:
    file = FileBytes(path)
    budget.stored += file.size
    source = plain(file, budget)
    try:
        first = io.BytesIO(source.pread(0, 2 * HEADER_LIMIT))
        next_member(lambda count: first.read(count).ljust(count))
    except BrokenArchive:
        raise ValueError(f"is no image of kind {kind}: it is no tar archive") from None
    entries: dict[str, LayerEntry] = {}
    for entry in index_layer(source, "", budget=budget).entries:
        entries["/".join(reversed(components(entry.path)))] = entry

    part = functools.cache(functools.partial(Part, source))

    def find(name: str) -> Part:
        wanted = name
        for _ in range(LINK_LIMIT):
            entry = entries["/".join(_plain_path(wanted))]
            if entry.type == "file":
                return part(entry.offset, entry.size)
            if entry.target is None:
                raise KeyError(name)
            # The target of a hard link is a whole name; that of a symlink is relative to its
            # directory.
            above = "" if entry.type == "hard link" else wanted.rpartition("/")[0]
            wanted = f"{above}/{entry.target}"
        raise KeyError(name)

    return find


def _plain_path(path: str) -> list[str]:
    """Resolve `..`, which goes up but not out."""
    found: list[str] = []
    for part in reversed(components(path)):
        if part == "..":
            found = found[:-1]
        else:
            found.append(part)
    return found


def _document(name: str, part: Part) -> bytes:
    if part.size > DOCUMENT_LIMIT:
        raise ValueError(f"has a {name[:100]} larger than {binary(DOCUMENT_LIMIT)}")
    return b"".join(part.pieces(DOCUMENT_LIMIT))


def _docker(read: Read) -> Contents:
    images = json.loads(read("manifest.json"))
    # An image with several tags may have an entry for each of them.
    count = len({json.dumps([image["Config"], image.get("Layers")]) for image in images})
    if count != 1:
        raise ValueError(f"holds {count} images; which one is meant is not known")
    name = str(images[0]["Config"])
    config = read(name)
    pinned = _NAMED_BY_DIGEST.fullmatch(name)
    if pinned:
        _check(config, f"sha256:{pinned[1]}", name)
    layers = tuple(str(layer) for layer in images[0].get("Layers") or ())
    return Contents(None, None, sha256(config), parse_config(config), layers)


def _layout(read: Read) -> Contents:
    index = parse_manifest(read("index.json"))
    if not isinstance(index, Index):
        raise ValueError("has an index.json that is no index")
    digests = {entry.digest for entry in index.manifests}
    if len(digests) != 1:
        raise ValueError(f"holds {len(digests)} images; which one is meant is not known")

    def blob(digest: str) -> bytes:
        content = read(_path(digest))
        _check(content, digest, digest)
        return content

    digest = digests.pop()
    found = documents_from(
        *(digest, blob(digest), blob, blob), lambda what: ValueError(f"is damaged: {what}")
    )
    return Contents(
        found.index_digest,
        found.manifest_digest,
        found.manifest.config.digest,
        found.config,
        tuple(_path(layer.digest) for layer in found.manifest.layers),
    )


def _check(content: bytes, digest: str, name: str) -> None:
    if not matches(content, digest):
        raise ValueError(f"is damaged: {name} does not pin what is stored under it")


def _path(digest: str) -> str:
    # Descriptors have been checked: the digest is an algorithm and hex digits.
    return f"blobs/{digest.replace(':', '/', 1)}"
