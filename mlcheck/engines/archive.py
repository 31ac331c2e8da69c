"""The engine "archive": images in docker's and OCI's archives, read as they are.

Nothing is unpacked and nothing is started. The layers are read once, from end to end, for what is
in them; contents are read where they lie when they are asked for. What is compressed is
decompressed in memory, and again when something is read that is no longer kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, cast

from mlcheck import shell_words
from mlcheck.engines import showing
from mlcheck.engines.archive_image import ArchivedImage, Layer, check_unchanged, read_image
from mlcheck.engines.archive_layers import LayerIndex, LayerNode, index_layer, merged
from mlcheck.engines.base import (
    DEFAULT_LIMIT_S,
    DEFAULT_OUTPUT_LIMIT,
    HEAD,
    PLAINLY,
    Ask,
    Completed,
    Prepared,
    Progress,
    PullPolicy,
    Start,
    T,
    Unreadable,
    silent,
)
from mlcheck.engines.byte_sources import SourceFile
from mlcheck.engines.layer_members import StoredLayers
from mlcheck.engines.tar_headers import BrokenArchive
from mlcheck.engines.tree import TreeRootFS
from mlcheck.errors import EngineError, NothingRuns, UsageError
from mlcheck.facts import Environment, File
from mlcheck.files import normal
from mlcheck.image import ImageRef

KINDS = ("docker-archive", "oci-archive", "oci")


class Archive:
    """See `mlcheck.engines.base.Engine`."""

    name = "archive"

    def unusable(self) -> str | None:
        """None: what it does needs nothing of this machine."""
        return None

    tried = unusable

    def describe(self) -> str:
        """What it is."""
        return "reads archives without unpacking them; runs nothing"

    @contextmanager
    def prepare(
        self, ref: ImageRef, *, pull: PullPolicy = "missing", progress: Progress = silent
    ) -> Iterator[Prepared]:
        """See `mlcheck.engines.base.Engine.prepare`. Nothing is fetched or converted."""
        if ref.kind not in KINDS:
            raise UsageError(
                f"{ref.text}: the engine archive does not open this kind of image.",
                f"It opens: {', '.join(KINDS)}.",
            )
        yield Prepared(ref, ref.location, read_image(ref).digest)

    @contextmanager
    def open(self, prepared: Prepared, *, start: Start = Start()) -> Iterator[OpenArchive]:
        """Open an image."""
        image = read_image(prepared.ref)
        check_unchanged(image, prepared.digest, prepared.location)
        yield OpenArchive(prepared, image)


class OpenArchive:
    """An open image; see `mlcheck.engines.base.OpenImage`."""

    engine = Archive.name
    notes: tuple[str, ...] = (
        "Read from its archive: nothing was run, and the digests of its layers were not verified.",
    )

    def __init__(self, prepared: Prepared, image: ArchivedImage) -> None:
        self.ref = prepared.ref
        self.digest = prepared.digest
        self.rootfs = ArchiveRootFS(self.ref.text, image.layers)
        self.layers = StoredLayers(
            [layer.source for layer in image.layers],
            image.contents.config.history,
            self.rootfs.indices,
            self.ref.text,
        )
        self._image = image

    @property
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

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        stdin: bytes = b"",
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """See `mlcheck.engines.base.OpenImage.run`.

        Raises:
            NothingRuns: always.
        """
        self._refuse()

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Completed:
        """The same."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        able = "podman or apptainer"
        if self.ref.kind == "docker-archive":
            able = f"docker, {able}"
        raise NothingRuns(
            "the engine archive only reads, and this needs a process in the image.",
            f"Use an engine that runs commands: --engine {able}.",
        )

    def show_run(self, argv: Sequence[str]) -> str:
        """The shell command by which a person runs `argv` in this image by hand."""
        options = ["--rm", "--network", "none", "--entrypoint", argv[0]]
        return shell_words.joined(["podman", "run", *options, self.ref.text, *argv[1:]])

    def show_file(self, tool: str, *paths: str, static: Ask = PLAINLY) -> str:
        """The shell command by which a person looks at files of this image with `tool`: this
        machine's on a copy from the archive, podman's container for what has none there."""
        words = static(wanted_words, self.rootfs, tool, paths)
        found = [static(member, self.rootfs, path) for path in paths]
        places = [place for place in found if place is not None]
        if len(places) < len(paths):
            return self.show_run([*words, *paths])
        steps = []
        for place in places:
            layer = self._image.layers[place.layer]
            name = shell_words.quoted(place.name)
            if words[0] == "ls":
                steps.append(f"{_listing(layer.show)} -- {name}")
                continue
            # Tools such as readelf want a file. Nobody else can have put one of its name there.
            read = f'file=$(mktemp) && {layer.show} -- {name} >"$file"'
            steps.append(f'{read} && {shell_words.joined(words)} "$file"')
        return "; ".join(steps)


def _listing(show: str) -> str:
    """The command that lists a layer's files, of the one that writes them."""
    start, _, end = show.rpartition("-xOf ")
    return f"{start}-tvf {end}"


def wanted_words(rootfs: ArchiveRootFS, tool: str, paths: Sequence[str]) -> tuple[str, ...]:
    """The tool by which to look at files; see `showing.words_for`."""
    return tuple(showing.words_for(rootfs, tool, paths))


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file of an image lies.

    Args:
        layer: number of the layer, from 0, the lowest.
        name: in the layer's archive.
    """

    layer: int
    name: str


def member(rootfs: ArchiveRootFS, path: str) -> Member | None:
    """Where the regular file at `path` lies; None: there is none."""
    return rootfs.member(path)


class ArchiveRootFS(TreeRootFS[LayerNode]):
    """The image's files; see `mlcheck.engines.base.RootFS`. Safe for use from several threads.

    The inode of a file is the number of its layer and its own, equal for hard links. The layers are
    read on the first question.

    Raises:
        EngineError: a layer is damaged.
    """

    def __init__(self, image: str, layers: Sequence[Layer]) -> None:
        self._image = image
        self._layers = tuple(layers)
        self._lock = threading.RLock()
        self._root: LayerNode | None = None
        self._indices: list[LayerIndex] | None = None

    def indices(self) -> list[LayerIndex]:
        """What is in each layer; read once."""
        with self._lock:
            if self._indices is None:
                self._indices = [self._index(layer) for layer in self._layers]
            return self._indices

    def _index(self, layer: Layer) -> LayerIndex:
        try:
            return index_layer(layer.source, layer.digest)
        except BrokenArchive as error:
            raise EngineError(
                f"{self._image}: the archive of the layer {layer.digest} {error}.",
                "Write the archive anew.",
            ) from error

    def member(self, path: str) -> Member | None:
        """Where the regular file at `path` lies; None: there is none."""
        node = self._locate(path).node
        return Member(node.layer, node.member) if node and node.type == "file" else None

    def each(
        self,
        top: str,
        wanted: Callable[[str, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """See `mlcheck.engines.base.RootFS.each`. The files are read as they lie in the archive:
        what is compressed is decompressed once more at most."""
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
        """The regular files below `top`, directory by directory; hard links of one file once."""
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
