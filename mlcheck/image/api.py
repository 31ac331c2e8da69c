"""The files and layers of an image, in the form that every engine provides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple, Protocol, TypeVar

from mlcheck.model.files import File, FileType, ResolvedFile

T = TypeVar("T")

HEAD = 64
"""Bytes at the beginning of a file that are enough to recognise its format: the largest
ELF header."""


class RootFS(Protocol):
    """The files of an image. Every link resolves inside the image, never on the host.

    Paths are absolute inside the image. Nothing here writes, and nothing but regular files is
    ever opened for reading.
    """

    def lstat(self, path: str) -> File | None:
        """Return the entry at `path` without following a final symlink, or None if there
        is none."""

    def resolve(self, path: str) -> ResolvedFile:
        """Follow all symlinks from `path`, inside the image."""

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of the regular file that `path` leads to.

        Raises:
            Unreadable: there is no such file, it is not a regular file, or it is larger than
                `limit` bytes. Nothing of it was kept.
            ProbeError: this machine's permissions do not allow it.
        """

    def open(self, path: str) -> BinaryIO:
        """Open the same file for reading (unbuffered by the caller's choice), seekable."""

    def listdir(self, path: str) -> list[str]:
        """Return the names in the directory that `path` leads to, sorted; [] if there is
        no directory."""

    def walk(self, top: str) -> Iterator[File]:
        """Iterate over every file below `top` (followed if it is a symlink), in sorted order,
        depth first.

        Directories reached through symlinks are not entered. Directories that cannot be read
        raise ProbeError.
        """

    def each(
        self,
        top: str,
        wanted: Callable[[str, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """Look into the regular files below `top`: each is opened once, hard links of one file
        count once, and several files are read at a time.

        They come directory by directory, each before those in it, sorted by name.

        Args:
            wanted: called with a path and the beginning of the file (HEAD bytes, or all of a
                smaller one); True to look into the file. Called from several threads, as `look` is.
            look: called with a file and its content, open for reading at the first byte and
                seekable. It may raise Unreadable.

        Raises:
            ProbeError: this machine's permissions do not allow it, or a disk fails.
        """


class Unreadable(Exception):  # noqa: N818 - a finding about the image, not an error
    """A file of the image cannot be read as requested: `what` follows a path in a sentence."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = path
        self.what = what


class LayerMember(NamedTuple):
    """An entry that a layer adds, or an entry by which it hides parts of the layers below it.

    Args:
        path: absolute in the image.
        type: "whiteout": hides whatever lower layers have at `path`; "opaque": hides everything
            that they have in the directory there.
        size: bytes of a regular file, else 0.
        inode: the layer's own number, equal for hard links of one file.
    """

    path: str
    type: FileType | Literal["whiteout", "opaque"]
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image.

    Args:
        digest: of its tar archive, as the image's configuration claims it.
        created_by: the line of the image's history that made it; "" if the history does not
            record it.
        instructions: the lines of the history since the layer below: that one, and those that made
            no layer.
        members: entries that hide come before entries that add.
        sha256: of the content of a regular file.
        look: what was said of a file with a requested name (see `ImageLayers.read`).
    """

    digest: str
    created_by: str
    members: Sequence[LayerMember]
    sha256: Callable[[LayerMember], bytes]
    look: Callable[[LayerMember], str | None]
    instructions: Sequence[str] = ()


LAYER_START = 1024 * 1024
"""Bytes of a file that are looked at together."""

LAYER_OVERLAP = 64 * 1024
"""Bytes that are looked at again with those that follow: the longest word sought fits in."""

BINARY_START = 16 * 1024
"""Bytes at the beginning of a file that have no zero among them, if it is a text."""

LAYER_LIMIT = 1024 * 1024 * 1024
"""Most bytes of a text that are looked at."""

Look = Callable[[str, bytes, int], str | None]
"""Called with the path, a piece of the file, and where in the file it begins; returns what the file
is, in words."""


class Looked:
    """Looks at a file piece by piece: at all of a text, and at the beginning of any other.

    Args:
        path: in the image.
    """

    def __init__(self, path: str, look: Look) -> None:
        self._path = path
        self._look = look
        self._piece = bytearray()
        self._at = 0
        self.said: str | None = None
        self.wants_more = True

    def feed(self, data: bytes) -> None:
        """Take what follows in the file."""
        view = memoryview(data)
        while self.wants_more and view:
            room = LAYER_START - len(self._piece)
            self._piece += view[:room]
            view = view[room:]
            if len(self._piece) == LAYER_START:
                self._judge()

    def end(self) -> str | None:
        """Return what the file is, at its end."""
        if self.wants_more and len(self._piece) > (LAYER_OVERLAP if self._at else 0):
            self._judge()
        self.wants_more = False
        return self.said

    def _judge(self) -> None:
        piece = bytes(self._piece)
        self.said = self._look(self._path, piece, self._at)
        binary = not self._at and b"\0" in piece[:BINARY_START]
        self._at += len(piece) - LAYER_OVERLAP
        self._piece = self._piece[-LAYER_OVERLAP:]
        self.wants_more = self.said is None and not binary and self._at < LAYER_LIMIT


def looked_at(path: str, content: BinaryIO, look: Look) -> str | None:
    """Return what an opened file is."""
    looked = Looked(path, look)
    while looked.wants_more and (data := content.read(LAYER_START)):
        looked.feed(data)
    return looked.end()


class ImageLayers(Protocol):
    """The layers of an open image."""

    def read(self, wanted: Callable[[str], bool], look: Look) -> Sequence[Layer]:
        """Return all layers, the lowest first.

        Args:
            wanted: called with a path; True if such a file is to be looked at.
            look: looks at it.

        Raises:
            EngineError: the engine failed, or a layer is damaged.
            ProbeError: this machine cannot read them.
        """
