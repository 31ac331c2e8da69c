"""The layers of an image of docker or podman: from the engine's store, or as it saves the image.

In the store of its overlay driver, each layer is a directory. Where that cannot be read (another
user's, another machine's, another driver), the archive that `docker save` writes passes by once
and nothing of it is written to disk here; every file's content is hashed then, because what it
will have to be compared with is not known yet.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from mlcheck.engines import oci_images
from mlcheck.engines.apptainer_oci import read_contents
from mlcheck.engines.archive_layers import (
    ENTRY_LIMIT,
    NAMES_LIMIT,
    STARTS_LIMIT,
    LayerEntry,
    index_layer,
)
from mlcheck.engines.base import LAYER_START, Layer, LayerMember, Unreadable
from mlcheck.engines.byte_sources import compression, plain
from mlcheck.engines.layer_members import members, sha256_of
from mlcheck.engines.oci_client import Client
from mlcheck.engines.oci_documents import (
    DOCUMENT_LIMIT,
    history_of,
    matches,
    parse_config,
)
from mlcheck.engines.oci_errors import engine_errors
from mlcheck.engines.oci_files import PLAIN, chunks
from mlcheck.engines.oci_pull import SILENCE_LIMIT_S
from mlcheck.engines.oci_stored import directories
from mlcheck.engines.tar_headers import BLOCK, BrokenArchive
from mlcheck.engines.tar_stream import TarStream
from mlcheck.errors import EngineError, ProbeError
from mlcheck.files import LINK_LIMIT, normal
from mlcheck.rootfs import DirectoryRootFS

_DRIVERS = ("overlay", "overlay2")
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_METACOPY = ("trusted.overlay.metacopy", "user.overlay.metacopy")
"""What overlayfs notes of a directory that hides all below it, and of a file of which it has copied
the owner and mode alone: https://docs.kernel.org/filesystems/overlayfs.html."""

_WHITEOUT = ".wh."
_DOCUMENTS = 4096
"""Documents in one archive; engines write four, and a small one for each layer."""


class OciLayers:
    """See `mlcheck.engines.base.ImageLayers`.

    Args:
        client: the connection to the engine.
        image: the image's ID.
        name: of the image, for people.
        local: whether the engine's directories are this machine's.
    """

    def __init__(
        self, client: Callable[[], Client], image: str, name: str, local: Callable[[], bool]
    ) -> None:
        self._client = client
        self._image = image
        self._name = name
        self._local = local

    def read(self, wanted: Callable[[str], bool]) -> Sequence[Layer]:
        """See `mlcheck.engines.base.ImageLayers.read`."""
        client = self._client()
        found = oci_images.inspect(client, self._image)
        if found is None:
            raise EngineError(f"{client.dialect.label} has no image {self._name} any more.")
        if self._local() and (layers := stored(found)) is not None:
            return layers
        return saved(client, self._image, self._name, wanted)


# The engine's store


def stored(image: Mapping[str, Any]) -> list[Layer] | None:
    """The layers from the directories of which the engine's description of an image tells; None
    where they cannot be read."""
    digests = (image.get("RootFS") or {}).get("Layers") or ()
    lower, upper = directories(image)
    paths = [*upper, *lower][::-1]
    if (
        (image.get("GraphDriver") or {}).get("Name") not in _DRIVERS
        or len(paths) != len(digests)
        or os.geteuid() != 0  # whoever is not root sees neither trusted attributes nor all files
        or not all(path.startswith("/") for path in paths)
    ):
        return None
    history = _history(image, Path(paths[-1])) or [""] * len(paths)
    found: list[_StoredLayer] = []
    left = ENTRY_LIMIT
    try:
        for path in paths:
            found.append(_StoredLayer(Path(path), found[:], left))
            left -= len(found[-1].members)
    except (OSError, ProbeError):
        return None
    return [
        Layer(digest, created_by, layer.members, layer.sha256, layer.start)
        for digest, created_by, layer in zip(digests, history, found, strict=True)
    ]


def _history(image: Mapping[str, Any], upper: Path) -> Sequence[str] | None:
    layers = len(image["RootFS"]["Layers"])
    if "History" in image:  # podman tells it
        return history_of(image["History"], layers)
    # docker's answer does not say which entries made no layer; its store has the configuration.
    number = str(image.get("Id")).removeprefix("sha256:")
    store = upper.parents[2] / "image" / upper.parents[1].name / "imagedb/content/sha256"
    try:
        with (store / number).open("rb") as file:
            content = file.read(DOCUMENT_LIMIT)
        if matches(content, f"sha256:{number}"):
            return parse_config(content).history
    except (OSError, ValueError):
        pass
    return None


class _StoredLayer:
    """A layer in its directory, with whiteouts as overlayfs has them, or fuse-overlayfs.

    Args:
        lower: the layers below it.
        limit: of its members.

    Raises:
        OSError, ProbeError: it cannot be read, or has more than that.
    """

    def __init__(self, directory: Path, lower: Sequence[_StoredLayer], limit: int) -> None:
        self.files = DirectoryRootFS(directory)
        self._lower = lower
        hiding: list[LayerMember] = []
        added: list[LayerMember] = []
        if self._marked("/", _OPAQUE):
            hiding.append(LayerMember("/", "opaque"))
        numbers: dict[tuple[int, int], int] = {}
        names = 0
        for file in self.files.walk("/"):
            names += len(file.path)
            if len(added) >= limit or names > NAMES_LIMIT:
                raise ProbeError(f"more than {ENTRY_LIMIT} files in the layers cannot be judged.")
            parent, _, name = file.path.rpartition("/")
            if file.type == "char" and self._device(file.path) == 0:
                hiding.append(LayerMember(file.path, "whiteout"))
                continue
            if name == ".wh..wh..opq":
                hiding.append(LayerMember(parent or "/", "opaque"))
                continue
            if name.startswith(_WHITEOUT):
                hiding.append(LayerMember(f"{parent}/{name.removeprefix(_WHITEOUT)}", "whiteout"))
                continue
            if file.type == "directory" and self._marked(file.path, _OPAQUE):
                hiding.append(LayerMember(file.path, "opaque"))
            size = file.size if file.type == "file" else 0
            inode = numbers.setdefault(file.inode, len(numbers) + 1)
            added.append(
                LayerMember(file.path, file.type, file.mode, file.uid, file.gid, size, inode)
            )
        self.members = hiding + added

    def sha256(self, member: LayerMember) -> bytes:
        with self._open(member.path) as content:
            return sha256_of(content)

    def start(self, member: LayerMember) -> bytes:
        with self._open(member.path) as content:
            return content.read(LAYER_START)

    def _open(self, path: str) -> BinaryIO:
        if self._marked(path, _METACOPY):
            # The content is that of the layer below.
            for layer in reversed(self._lower):
                below = layer.files.lstat(path)
                if below is not None and below.type == "file":
                    return layer._open(path)
        try:
            return self.files.open(path)
        except Unreadable as error:
            raise ProbeError(f"{error}: the layer has changed while it was read.") from None

    def _marked(self, path: str, names: Sequence[str]) -> bool:
        for name in names:
            try:
                os.getxattr(self._host_path(path), name, follow_symlinks=False)
            except OSError:
                continue
            return True
        return False

    def _device(self, path: str) -> int:
        status = os.lstat(self._host_path(path))
        return status.st_rdev if stat.S_ISCHR(status.st_mode) else -1

    def _host_path(self, path: str) -> str:
        # `path` came from a walk, which enters no symlink.
        return f"/proc/self/fd/{self.files.fileno()}{path}"


# As the engine saves the image


def saved(client: Client, image: str, name: str, wanted: Callable[[str], bool]) -> list[Layer]:
    """The layers from the stream that `docker save` asks for."""
    with engine_errors(client.dialect, f"save {name}"):
        response = client._get(
            client._url("/images/{0}/get", image),
            headers=PLAIN,
            stream=True,
            timeout=SILENCE_LIMIT_S,  # engines write the archive first and send it then
        )
        client._raise_for_status(response)
    try:
        with TarStream(chunks(client, response, f"the layers of {name}")) as stream:
            return from_stream(stream, wanted)
    except (BrokenArchive, ValueError) as error:
        raise EngineError(
            f"The archive that {client.dialect.label} sent of {name} {error}.",
            "Try again; when it happens again, the engine is at fault.",
        ) from error


def from_stream(stream: TarStream, wanted: Callable[[str], bool]) -> list[Layer]:
    """The layers of an image in an archive of `docker save` that passes by.

    Raises:
        BrokenArchive, ValueError: it is damaged; the message follows its name.
        EngineError: a layer is damaged.
    """
    layers: dict[str, _Passed] = {}
    documents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    left, kept = ENTRY_LIMIT, STARTS_LIMIT
    while (member := stream.next()) is not None:
        path = normal(member.name)[1:]
        if member.target is not None:
            above = "" if member.type == "hard link" else path.rpartition("/")[0]
            links[path] = os.path.normpath(f"/{above}/{member.target}")[1:]
            continue
        if member.type != "file":
            continue
        source = _Forward(stream.read)
        start = source.pread(0, BLOCK)
        if compression(start) or start[257:262] == b"ustar" or not start.strip(b"\0"):
            layers[path] = _Passed(source, wanted, kept)
            kept = layers[path].left
            left -= len(layers[path].members)
            if left < 0:
                raise BrokenArchive(f"has more than {ENTRY_LIMIT} files")
        elif member.size <= DOCUMENT_LIMIT and len(documents) < _DOCUMENTS:
            documents[path] = source.pread(0, member.size)

    def final(path: str) -> str:
        for _ in range(LINK_LIMIT):
            if path not in links:
                break
            path = links[path]
        return path

    def open_file(path: str) -> IO[bytes]:
        path = final(path)
        return io.BytesIO(b"" if path in layers else documents[path])

    contents = read_contents("docker-archive", open_file)
    digests = contents.config.diff_ids or ()
    if len(digests) != contents.layers:
        raise ValueError(f"has {contents.layers} layers, and tells of {len(digests)}")
    history = contents.config.history or [""] * contents.layers
    files = [final(path) for path in contents.layer_files]
    return [layers[f].layer(d, h) for f, d, h in zip(files, digests, history, strict=True)]


class _Passed:
    """A layer that passed by.

    Args:
        kept: bytes that starts of files may take.
    """

    def __init__(self, source: _Forward, wanted: Callable[[str], bool], kept: int) -> None:
        self._wanted = wanted
        self._sums: dict[int, bytes] = {}
        self._starts: dict[int, bytes] = {}
        self.left = kept
        self.members, self._places = members(index_layer(plain(source), "", self._passing))

    def _passing(self, entry: LayerEntry, content: Iterator[bytes]) -> None:
        number = hashlib.sha256()
        keep = LAYER_START if self.left >= LAYER_START and self._wanted(normal(entry.path)) else 0
        start = b""
        for data in content:
            number.update(data)
            start += data[: keep - len(start)]
        self._sums[entry.offset] = number.digest()
        if start:
            self._starts[entry.offset] = start
            self.left -= len(start)

    def layer(self, digest: str, created_by: str) -> Layer:
        return Layer(digest, created_by, self.members, self._sha256, self._start)

    def _sha256(self, member: LayerMember) -> bytes:
        return self._sums[self._places[member.inode][0]]

    def _start(self, member: LayerMember) -> bytes:
        return self._starts.get(self._places[member.inode][0], b"")


class _Forward:
    """What passes by, as a source of which only what comes next can be read, and the last piece.

    Args:
        read: gives at most that many bytes; b"" at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._data = b""
        self._start = 0

    def pread(self, offset: int, count: int) -> bytes:
        before = offset - self._start
        if before < 0:
            raise BrokenArchive("cannot be read backwards")
        # One byte before stays, of which the end of an archive is asked.
        while before > len(self._data):
            gone = self._data[-1:]
            more = self._read(1024 * 1024)
            self._start += len(self._data) - len(gone)
            self._data = gone + more
            before = offset - self._start
            if not more:
                return b""
        drop = max(before - 1, 0)
        self._data = self._data[drop:]
        self._start += drop
        before -= drop
        pieces = [self._data]
        have = len(self._data)
        while have < before + count and (more := self._read(before + count - have)):
            pieces.append(more)
            have += len(more)
        self._data = b"".join(pieces)
        return self._data[before : before + count]
