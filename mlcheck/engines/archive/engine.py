"""The engine "archive": images in docker's and OCI's archives, read as they are.

Nothing is unpacked and nothing is started. The layers are read once, from end to end, to index
them; contents are read in place on demand. Compressed data is decompressed in memory, and again if
something is read that is no longer kept.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, cast

import mlcheck
from mlcheck.engines import file_commands
from mlcheck.engines.archive import ARCHIVE
from mlcheck.engines.archive.image import ArchivedImage, Layer, check_unchanged, read_image
from mlcheck.engines.base import (
    PLAINLY,
    Abilities,
    Ask,
    Command,
    Engine,
    OpenImage,
    Prepared,
    Progress,
    PullPolicy,
    Start,
    silent,
)
from mlcheck.image.api import HEAD, ImageLayers, T, Unreadable
from mlcheck.image.budget import NOT_JUDGED, OverBudget
from mlcheck.image.byte_sources import Source, SourceFile
from mlcheck.image.layer_members import StoredLayers
from mlcheck.image.layers import LayerIndex, LayerNode, index_layer, merged
from mlcheck.image.paths import normal
from mlcheck.image.tar_headers import BrokenArchive
from mlcheck.image.tree import TreeRootFS
from mlcheck.model import shell_words
from mlcheck.model.environment import Environment
from mlcheck.model.errors import EngineError, NothingRuns, UsageError
from mlcheck.model.files import File
from mlcheck.model.image_ref import ImageRef


class Archive(Engine):
    """See `mlcheck.engines.base.Engine`. It needs nothing of this machine."""

    def __init__(self, name: str = "archive") -> None:
        super().__init__(name)

    def describe(self) -> str:
        """Return what this engine is."""
        return "reads archives without unpacking them; runs nothing"

    def abilities(self) -> Abilities:
        """See `Engine.abilities`."""
        return Abilities(
            version=f"mlcheck {mlcheck.__version__}",
            store="none",
            files="in the archive",
            gpus="no",
            users="runs nothing",
            limits="runs nothing",
        )

    @contextmanager
    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> Iterator[Prepared]:
        """See `mlcheck.engines.base.Engine.prepare`. Nothing is fetched or converted."""
        if ref.kind not in ARCHIVE.opens:
            raise UsageError(
                f"{ref.text}: the engine archive does not open this kind of image.",
                f"It opens: {', '.join(ARCHIVE.opens)}.",
            )
        contents = read_image(ref).contents
        yield Prepared(ref, ref.location, contents.digest, contents.config_digest)

    @contextmanager
    def open(self, prepared: Prepared, *, start: Start = Start()) -> Iterator[OpenArchive]:
        """Open an image."""
        image = read_image(prepared.ref)
        check_unchanged(image, prepared.digest, prepared.location)
        yield OpenArchive(self.name, prepared, start, image)


class OpenArchive(OpenImage):
    """An open image; see `mlcheck.engines.base.OpenImage`."""

    def __init__(self, engine: str, prepared: Prepared, start: Start, image: ArchivedImage) -> None:
        super().__init__(engine, prepared, start)
        self._image = image
        self._rootfs = ArchiveRootFS(self.ref.text, image)

    @property
    def rootfs(self) -> ArchiveRootFS:
        """The files of the image."""
        return self._rootfs

    @functools.cached_property
    def layers(self) -> ImageLayers:
        """The layers of the image, as they are stored in the archive."""
        image = self._image
        return StoredLayers(
            [layer.source for layer in image.layers],
            image.contents.config.history,
            self.rootfs.indices,
            self.ref.text,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes for readers of a report."""
        return (
            "Read from its archive: nothing was run, and the digests of its layers were not "
            "verified.",
        )

    @functools.cached_property
    def environment(self) -> Environment:
        """The image's configuration."""
        config = self._image.contents.config
        pairs = (text.partition("=") for text in config.env or ())
        return Environment(
            env={name: value for name, _, value in pairs},
            entrypoint=config.entrypoint or (),
            cmd=config.cmd or (),
            user=config.user or "",
            workdir=config.workdir or "",
            exposed=config.exposed or (),
            labels=dict(config.labels or {}),
            source=f"the configuration in {self.ref.text}",
        )

    def _run(self, command: Command) -> NoReturn:
        """Refuse.

        Raises:
            NothingRuns: always.
        """
        able = "podman or apptainer"
        if self.ref.kind == "docker-archive":
            able = f"docker, {able}"
        raise NothingRuns(
            "the engine archive only reads, and this needs a process in the image.",
            f"Use an engine that runs commands: --engine {able}.",
        )

    _run_anew = _run

    def _run_words(self, argv: Sequence[str]) -> Sequence[str]:
        options = ["--rm", "--network", "none", "--entrypoint", argv[0]]
        return ["podman", "run", *options, self.ref.text, *argv[1:]]

    def _show_file(self, words: Sequence[str], files: Sequence[str]) -> str:
        """Return the command to look at files in podman's container of the image."""
        return self.show_run([*words, *files])

    def _end(self) -> None:
        """Nothing was started."""

    def show_file(self, tool: str, *paths: str, static: Ask = PLAINLY) -> str:
        """Return the shell command by which a person looks at files of this image with `tool`:
        this machine's on a copy from the archive, or podman's container if this machine has no
        such tool."""
        words = static(wanted_words, self.rootfs, tool, paths)
        found = [static(member, self.rootfs, path) for path in paths]
        places = [place for place in found if place is not None]
        if len(places) < len(paths):
            return self._show_file(words, paths)
        steps = []
        for place in places:
            layer = self._image.layers[place.layer]
            name = shell_words.quoted(place.name)
            if words[0] == "ls":
                steps.append(f"{_listing(layer.show)} -- {name}")
                continue
            # Tools such as readelf need a file. Nobody else can have put one with that name there.
            read = f'file=$(mktemp) && {layer.show} -- {name} >"$file"'
            steps.append(f'{read} && {shell_words.joined(words)} "$file"')
        return "; ".join(steps)


def _listing(show: str) -> str:
    """Return the command that lists a layer's files, from the one that writes the layer."""
    start, _, end = show.rpartition("-xOf ")
    return f"{start}-tvf {end}"


def wanted_words(rootfs: ArchiveRootFS, tool: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Return the tool by which to look at files; see `file_commands.words_for`."""
    return tuple(file_commands.words_for(rootfs, tool, paths))


@dataclass(frozen=True, slots=True)
class Member:
    """The place of a file of an image.

    Args:
        layer: number of the layer, from 0, the lowest.
        name: its name in the layer's archive.
    """

    layer: int
    name: str


def member(rootfs: ArchiveRootFS, path: str) -> Member | None:
    """Return the place of the regular file at `path`, or None if there is none."""
    return rootfs.member(path)


class ArchiveRootFS(TreeRootFS[LayerNode]):
    """The image's files; see `mlcheck.image.api.RootFS`. Safe for use from several threads.

    The inode of a file consists of the number of its layer and its own, equal for hard links. The
    layers are read when they are first needed.

    Raises:
        EngineError: a layer is damaged.
    """

    def __init__(self, name: str, image: ArchivedImage) -> None:
        super().__init__()
        self._image = name
        self._layers = image.layers
        self._budget = image.budget
        self._lock = threading.RLock()
        self._root: LayerNode | None = None
        self._indices: list[LayerIndex] | None = None

    def indices(self) -> list[LayerIndex]:
        """Return the index of each layer; read once."""
        with self._lock:
            if self._indices is None:
                read: dict[Source, LayerIndex] = {}
                for layer in self._layers:
                    if layer.source not in read:
                        read[layer.source] = self._index(layer)
                self._indices = [read[layer.source] for layer in self._layers]
            return self._indices

    def _index(self, layer: Layer) -> LayerIndex:
        try:
            return index_layer(layer.source, layer.digest, budget=self._budget)
        except BrokenArchive as error:
            raise EngineError(
                f"{self._image}: the archive of the layer {layer.digest} {error}.",
                NOT_JUDGED if isinstance(error, OverBudget) else "Write the archive anew.",
            ) from error

    def member(self, path: str) -> Member | None:
        """Return the place of the regular file at `path`, or None if there is none."""
        node = self._locate(path).node
        return Member(node.layer, node.member) if node and node.type == "file" else None

    def each(
        self,
        top: str,
        wanted: Callable[[str, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """See `mlcheck.image.api.RootFS.each`. The files are read in the order of the archive:
        compressed data is decompressed at most once more."""
        chosen: list[tuple[LayerNode, File]] = []
        for file, node in self._files(top):
            start = node.start
            if len(start) < min(HEAD, node.size):
                start = self._layers[node.layer].source.pread(node.offset, min(HEAD, node.size))
            if wanted(file.path, start[:HEAD]):
                chosen.append((node, file))
        told: dict[str, T | Unreadable] = {}
        for node, file in sorted(chosen, key=lambda one: (one[0].layer, one[0].offset)):
            try:
                with self._content(file.path, node) as content:
                    told[file.path] = look(file, content)
            except Unreadable as unreadable:
                told[file.path] = unreadable
        for _, file in chosen:
            yield file, told[file.path]

    def _files(self, top: str) -> Iterator[tuple[File, LayerNode]]:
        """Iterate over the regular files below `top`, directory by directory; hard links of one
        file once."""
        node = self._locate(top).node
        seen: set[tuple[int, int]] = set()
        pending = [(normal(top).rstrip("/"), node)] if node else []
        while pending:
            path, directory = pending.pop()
            below = []
            for name, child in self._below(directory):
                if child.type == "directory":
                    below.append((f"{path}/{name}", child))
                elif child.type == "file" and child.inode not in seen:
                    seen.add(child.inode)
                    yield child.fact(f"{path}/{name}"), child
            pending += reversed(below)

    def _top(self) -> LayerNode:
        with self._lock:
            if self._root is None:
                self._root = merged(self.indices())
            return self._root

    def _entry(self, parent: LayerNode, name: str) -> LayerNode | None:
        return parent.children.get(name) if parent.children is not None else None

    def _below(self, directory: LayerNode) -> Sequence[tuple[str, LayerNode]]:
        return sorted((directory.children or {}).items())

    def _content(self, path: str, node: LayerNode) -> BinaryIO:
        source = self._layers[node.layer].source
        return cast(BinaryIO, SourceFile(source, node.offset, node.size, node.start, path))
