"""The layers of an image of docker or podman: from the engine's store, or from a saved archive.

In the store of its overlay driver, each layer is a directory. If that cannot be read (another
user's, another machine's, another driver), the archive that `docker save` writes is read as a
stream, once, and nothing of it is written to disk here. In that case the content of every file is
hashed, because the files that it will be compared with are not known yet.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mlcheck.engines.archive.contents import read_contents
from mlcheck.engines.oci import containerd
from mlcheck.engines.oci import images as oci_images
from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.documents import DOCUMENT_LIMIT, history_of, matches, parse_config
from mlcheck.engines.oci.errors import engine_errors
from mlcheck.engines.oci.files import PLAIN, chunks
from mlcheck.engines.oci.pull import SILENCE_LIMIT_S
from mlcheck.engines.oci.stored import directories
from mlcheck.image.api import Layer, LayerMember, Look, Looked, RootFS, Unreadable, looked_at
from mlcheck.image.budget import LAYER_LIMIT, NOT_JUDGED, Budget, OverBudget
from mlcheck.image.byte_sources import Source, compression, plain
from mlcheck.image.layer_members import members, sha256_of
from mlcheck.image.layers import (
    OPAQUE,
    WHITEOUT,
    LayerEntry,
    index_layer,
    refused,
)
from mlcheck.image.paths import LINK_LIMIT, normal
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.image.tar_headers import BLOCK, BrokenArchive
from mlcheck.image.tar_reader import TarStream
from mlcheck.model.errors import EngineError, ProbeError
from mlcheck.model.image_ref import Kind
from mlcheck.model.layer_history import UNKNOWN, LayerHistory

_DRIVERS = ("overlay", "overlay2", "overlayfs")
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_METACOPY = ("trusted.overlay.metacopy", "user.overlay.metacopy")
"""Attributes by which overlayfs marks a directory that hides everything below it, and a file of
which it has copied only the owner and mode: https://docs.kernel.org/filesystems/overlayfs.html."""

_NO_ZSTD = "not supported for docker images"
"""podman 4 saves no docker-archive of an image whose registry has layers in zstd."""

_DOCUMENTS = 4 + 3 * LAYER_LIMIT
"""Most documents in one archive; engines write four, and a small one or two for each layer."""

_DOCUMENTS_LIMIT = 64 * 1024 * 1024
"""Most bytes of all of them."""


class OciLayers:
    """See `mlcheck.image.api.ImageLayers`.

    Args:
        client: returns the connection to the engine.
        image: the image's ID.
        name: name of the image, for people.
        files: returns the image's files.
    """

    def __init__(
        self, client: Callable[[], Client], image: str, name: str, files: Callable[[], RootFS]
    ) -> None:
        self._client = client
        self._image = image
        self._name = name
        self._files = files

    def read(self, wanted: Callable[[str], bool], look: Look) -> Sequence[Layer]:
        """See `mlcheck.image.api.ImageLayers.read`."""
        client = self._client()
        found = oci_images.inspect(client, self._image)
        if found is None:
            raise EngineError(f"{client.dialect.label} has no image {self._name} any more.")
        files = self._files()
        if isinstance(files, DirectoryRootFS):
            mounted = [layer.rootfs.root for layer in files.stored]
            documents = containerd.documents(client, found) if containerd.holds(found) else None
            history = None if documents is None else documents.config.history
            if (layers := stored(found, look, mounted, history)) is not None:
                return layers
        return saved(client, self._image, self._name, wanted, look)


# The engine's store


def stored(
    image: Mapping[str, Any],
    look: Look,
    mounted: Sequence[Path] = (),
    history: Sequence[LayerHistory] | None = None,
) -> list[Layer] | None:
    """Return the layers from the directories in the engine's description of an image, or None if
    they cannot be read.

    Args:
        mounted: the directories of its layers that a container's files are merged from, the lowest
            first, for an engine that does not describe them.
        history: if it is known already.
    """
    digests = (image.get("RootFS") or {}).get("Layers") or ()
    lower, upper = directories(image)
    paths = [*upper, *lower][::-1] or list(map(str, mounted))
    if (
        (image.get("GraphDriver") or {}).get("Name") not in _DRIVERS
        or len(paths) != len(digests)
        or os.geteuid() != 0  # other users see neither trusted attributes nor all files
        or not all(path.startswith("/") for path in paths)
    ):
        return None
    if history is None:
        history = _history(image, Path(paths[-1])) or [UNKNOWN] * len(paths)
    found: list[_StoredLayer] = []
    budget = Budget()
    try:
        with refused():
            for path in paths:
                found.append(_StoredLayer(Path(path), found[:], budget, look))
    except (OSError, ProbeError):
        return None
    return [
        Layer(digest, h.created_by, layer.members, layer.sha256, layer.look, h.instructions)
        for digest, h, layer in zip(digests, history, found, strict=True)
    ]


def _history(image: Mapping[str, Any], upper: Path) -> Sequence[LayerHistory] | None:
    layers = len(image["RootFS"]["Layers"])
    if "History" in image:  # podman includes it
        return history_of(image["History"], layers)
    # docker's answer does not show which entries made no layer; its store has the configuration.
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
    """A layer in its directory, with whiteouts in the form of overlayfs or fuse-overlayfs.

    Args:
        lower: the layers below it.
        budget: of the image.
        look: looks at a file.

    Raises:
        OSError, ProbeError: it cannot be read.
        OverBudget: the image has more than an image may have.
    """

    def __init__(
        self, directory: Path, lower: Sequence[_StoredLayer], budget: Budget, look: Look
    ) -> None:
        self._look = look
        self.files = DirectoryRootFS(directory)
        self._lower = lower
        hiding: list[LayerMember] = []
        added: list[LayerMember] = []
        if self._marked("/", _OPAQUE):
            hiding.append(LayerMember("/", "opaque"))
        numbers: dict[tuple[int, int], int] = {}
        for file in self.files.walk("/"):
            budget.entries(1, len(file.path))
            parent, _, name = file.path.rpartition("/")
            if file.type == "char" and self._device(file.path) == 0:
                hiding.append(LayerMember(file.path, "whiteout"))
                continue
            if name == OPAQUE:
                hiding.append(LayerMember(parent or "/", "opaque"))
                continue
            if name.startswith(WHITEOUT):
                hiding.append(LayerMember(f"{parent}/{name.removeprefix(WHITEOUT)}", "whiteout"))
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

    def look(self, member: LayerMember) -> str | None:
        with self._open(member.path) as content:
            return looked_at(member.path, content, self._look)

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


def saved(
    client: Client, image: str, name: str, wanted: Callable[[str], bool], look: Look
) -> list[Layer]:
    """Read the layers from the stream of `docker save`."""
    kind: Kind = "docker-archive"
    with engine_errors(client.dialect, f"save {name}"):
        response = _archive(client, client._url("/images/{0}/get", image))
        if client.dialect.own_api and not response.ok and _NO_ZSTD in response.text:
            kind = "oci-archive"
            url = f"{client.base_url}{client.images_url}/{image}/get?format={kind}"
            response = _archive(client, url)
        client._raise_for_status(response)
    try:
        with TarStream(chunks(client, response, f"the layers of {name}")) as stream:
            return from_stream(stream, wanted, look, kind)
    except OverBudget as error:
        raise EngineError(f"The image {error}.", NOT_JUDGED) from None
    except (BrokenArchive, ValueError) as error:
        raise EngineError(
            f"The archive that {client.dialect.label} sent of {name} {error}.",
            "Try again; when it happens again, the engine is at fault.",
        ) from error


def _archive(client: Client, url: str) -> Any:
    # Engines write the archive first and send it then.
    return client._get(url, headers=PLAIN, stream=True, timeout=SILENCE_LIMIT_S)


def from_stream(
    stream: TarStream,
    wanted: Callable[[str], bool],
    look: Look,
    kind: Kind = "docker-archive",
) -> list[Layer]:
    """Read the layers of an image from the stream of an archive of that kind.

    Raises:
        BrokenArchive, ValueError: the archive is damaged; the message follows its name.
        EngineError: a layer is damaged.
    """
    layers: dict[str, _Passed] = {}
    documents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    budget = Budget()
    left = _DOCUMENTS_LIMIT
    while (member := stream.next()) is not None:
        path = normal(member.name)[1:]
        if member.target is not None:
            above = "" if member.type == "hard link" else path.rpartition("/")[0]
            links[path] = os.path.normpath(f"/{above}/{member.target}")[1:]
            continue
        if member.type != "file":
            continue
        source = stream.content()
        start = source.pread(0, BLOCK)
        if compression(start) or start[257:262] == b"ustar" or not start.strip(b"\0"):
            if len(layers) >= LAYER_LIMIT:
                raise BrokenArchive(f"has more than {LAYER_LIMIT} layers")
            budget.stored += member.size
            layers[path] = _Passed(source, wanted, look, budget)
        elif member.size <= min(DOCUMENT_LIMIT, left) and len(documents) < _DOCUMENTS:
            documents[path] = source.pread(0, member.size)
            left -= member.size

    def final(path: str) -> str:
        for _ in range(LINK_LIMIT):
            if path not in links:
                break
            path = links[path]
        return path

    contents, found = read_contents(
        kind, lambda name: documents[final(name)], lambda name: layers[final(name)]
    )
    digests = contents.diff_ids()
    history = contents.config.history or [UNKNOWN] * len(found)
    # One that is named twice is put over the others twice.
    mentions = Budget()
    with refused():
        for one in found:
            mentions.entries(len(one.members))
    return [one.layer(d, h) for one, d, h in zip(found, digests, history, strict=True)]


class _Passed:
    """A layer that was read from a stream."""

    def __init__(
        self, source: Source, wanted: Callable[[str], bool], look: Look, budget: Budget
    ) -> None:
        self._wanted = wanted
        self._look = look
        self._sums: dict[int, bytes] = {}
        self._said: dict[int, str] = {}
        index = index_layer(plain(source, budget), "", self._passing, budget)
        self.members, self._places = members(index, Budget())

    def _passing(self, entry: LayerEntry, content: Iterator[bytes]) -> None:
        number = hashlib.sha256()
        path = normal(entry.path)
        looked = Looked(path, self._look) if self._wanted(path) else None
        for data in content:
            number.update(data)
            if looked is not None:
                looked.feed(data)
        self._sums[entry.offset] = number.digest()
        if looked is not None and (said := looked.end()):
            self._said[entry.offset] = said

    def layer(self, digest: str, history: LayerHistory) -> Layer:
        created_by, instructions = history.created_by, history.instructions
        return Layer(digest, created_by, self.members, self._sha256, self._said_of, instructions)

    def _sha256(self, member: LayerMember) -> bytes:
        return self._sums[self._places[member.inode][0]]

    def _said_of(self, member: LayerMember) -> str | None:
        return self._said.get(self._places[member.inode][0])
