"""Layers of an image: what is in each, and what they are together.

Rules: https://github.com/opencontainers/image-spec/blob/main/layer.md. Where that is silent, as it
is with docker on overlayfs: each layer is unpacked into a directory of its own, and the directories
are laid over each other. So a symlink within a layer is followed by what comes after it in that
layer, one of a lower layer is replaced by a directory of the upper one, and a directory that a
layer needs and does not have is 0755 and root's. What docker refuses is still read: a name that
comes twice (the last one counts), a hard link to a file of a lower layer, a whiteout behind a file
of its name in the same layer (it hides only what is below).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mlcheck.engines.base import HEAD
from mlcheck.engines.byte_sources import Source
from mlcheck.engines.tar_headers import BLOCK, BrokenArchive, next_member
from mlcheck.engines.tree import Node
from mlcheck.errors import EngineError
from mlcheck.facts import FileType
from mlcheck.files import LINK_LIMIT, components, without_collection
from mlcheck.listing import PATH_LIMIT

ENTRY_LIMIT = 1_000_000
"""Members of all layers, about 700 bytes of memory each; large images have 150,000."""

NAMES_LIMIT = 256 * 1024 * 1024
"""Characters of all their names and targets; large images have 15 million."""

START_OF_PROGRAM = 4096
"""Bytes kept of an ELF file, of which its program headers are wanted too; of others HEAD."""

STARTS_LIMIT = 64 * 1024 * 1024
"""Bytes kept of all files of a layer."""

_WINDOW = 4096
_PIECE = 256 * 1024
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_EMPTY = bytes(BLOCK)


class LayerEntry(NamedTuple):
    """A member of a layer, as its headers have it.

    Args:
        path, target: as they are written; bytes that are not UTF-8 are surrogates.
        mode: permission bits with set-uid, set-gid and sticky.
        size, offset: where its content is in the layer without compression.
        start: the first bytes of a regular file.
    """

    path: str
    type: FileType | Literal["hard link"]
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None
    offset: int
    start: bytes = b""


@dataclass(frozen=True, slots=True)
class LayerIndex:
    """What one pass over a layer finds: all that is to be known of it but the contents.

    Args:
        digest: what names the layer: of its blob, or of its tar archive (its diff_id).
        size: bytes of its tar archive.
        entries: the members in order.
    """

    digest: str
    size: int
    entries: tuple[LayerEntry, ...]


Passing = Callable[[LayerEntry, Iterator[bytes]], None]
"""Told of each regular file that is not empty, with its content as it passes by."""


def index_layer(source: Source, digest: str, passing: Passing | None = None) -> LayerIndex:
    """Read a layer once, from its beginning to its end.

    Args:
        source: its tar archive, without compression.
        passing: sees the contents; without it they are passed over.

    Raises:
        BrokenArchive: it is no intact tar archive, or has more than can be kept.
        EngineError: this machine cannot read it.
    """
    with without_collection():
        return _index(_Reader(source), digest, passing)


def _index(reader: _Reader, digest: str, passing: Passing | None) -> LayerIndex:
    entries: list[LayerEntry] = []
    names = starts = 0
    while (member := next_member(reader.read)) is not None:
        start = b""
        if member.type == "file" and member.size and starts < STARTS_LIMIT:
            start = reader.peek(min(HEAD, member.size))
            if start.startswith(b"\x7fELF"):
                start = reader.peek(min(START_OF_PROGRAM, member.size))
            starts += len(start)
        names += len(member.name) + len(member.target or "")
        if len(entries) >= ENTRY_LIMIT or names > NAMES_LIMIT:
            raise BrokenArchive(f"has more than {ENTRY_LIMIT} files, or names of absurd length")
        entries.append(LayerEntry(*member, reader.at, start))
        if passing is not None and member.type == "file" and member.size:
            passing(entries[-1], reader.content(member.size))
        reader.skip(member.size + -member.size % BLOCK)
    return LayerIndex(digest, reader.end(), tuple(entries))


class _Reader:
    """Reads a source forward, through a small window: headers lie apart by the files' sizes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window = b""
        self._start = 0
        self.at = 0

    def read(self, count: int) -> bytes:
        """Exactly that many bytes. Where the source ends, what marks the end of an archive: it may
        be left out (as Go's archive/tar has it)."""
        data = self.peek(count)
        if len(data) < count:
            if data or count != BLOCK or (self.at and not self._source.pread(self.at - 1, 1)):
                raise BrokenArchive("broke off: it is incomplete")
            return _EMPTY
        self.at += count
        return data

    def peek(self, count: int) -> bytes:
        """At most `count` bytes, without going on."""
        offset = self.at - self._start
        data = self._window[offset : offset + count]
        if len(data) < count:
            self._start = self.at
            self._window = self._source.pread(self.at, max(count, _WINDOW))
            data = self._window[:count]
        return data

    def content(self, size: int) -> Iterator[bytes]:
        """That many bytes from here, in pieces, without going on."""
        at, end = self.at, self.at + size
        while at < end:
            data = self._source.pread(at, min(end - at, _PIECE))
            if not data:
                raise BrokenArchive("broke off: it is incomplete")
            at += len(data)
            yield data

    def skip(self, count: int) -> None:
        """Go on. Whether that is still within the source shows at the next header."""
        self.at += count

    def end(self) -> int:
        """Read to the end, where compressed data has its checksum; how many bytes it all was."""
        while more := len(self._source.pread(self.at, 1024 * 1024)):
            self.at += more
        return self.at


@dataclass(slots=True, eq=False)
class LayerNode(Node):
    """A file of the image.

    Args:
        layer, offset, start: where the content of a regular file is, and its beginning.
        member: its name in its layer.
        children: of a directory.
        implied: of a layer's root directory: it has no member of its own.
        opaque, whiteouts: what a directory hides of that below it: all, or these names.
        link: the target of a hard link that the layer itself does not have.
    """

    layer: int = 0
    offset: int = 0
    start: bytes = b""
    member: str = ""
    children: dict[str, LayerNode] | None = None
    implied: bool = False
    opaque: bool = False
    whiteouts: set[str] | None = None
    link: list[str] | None = field(default=None)


def merged(layers: Sequence[LayerIndex]) -> LayerNode:
    """The root directory of an image of these layers, the lowest first.

    Raises:
        EngineError: a layer has a name that leads out of the image, or a hard link to nothing.
    """
    numbers = itertools.count(1)
    root = _directory(implied=True)
    with without_collection():
        for number, layer in enumerate(layers):
            top = unpacked(layer, number, numbers)
            _resolve_links(root, top, layer)
            _lay_over(root, top)
    return root


def _directory(*, implied: bool = False) -> LayerNode:
    """A directory as docker makes one that a layer needs and does not have."""
    return LayerNode("directory", 0o755, 0, 0, 0, None, (0, 0), children={}, implied=implied)


def unpacked(layer: LayerIndex, number: int, inodes: itertools.count[int]) -> LayerNode:
    """What unpacking a layer into an empty directory would give."""
    root = _directory(implied=True)
    # Members come directory by directory: the last one is the next one's, mostly.
    last: tuple[str, LayerNode] = ("", root)
    for entry in layer.entries:
        head, _, name = entry.path.rpartition("/")
        if head == last[0] and name and name not in (".", ".."):
            parent = last[1]
        else:
            parts = _parts(entry.path, layer)
            if not parts:
                if entry.type != "directory":
                    raise _broken(layer, f"has a {entry.type} in place of the root directory")
                _learn_directory(root, entry)
                continue
            *above, name = parts
            parent = _parent(root, above, layer)
            last = (head, parent) if name == entry.path[len(head) + 1 :] else ("\0", root)
        assert parent.children is not None
        if name.startswith(_WHITEOUT):
            _white_out(parent, name, layer)
            continue
        before = parent.children.get(name)
        if entry.type == "directory":
            if before is None or before.type != "directory":
                before = _directory()
                before.inode = (number, next(inodes))
                parent.children[name] = before
                last = ("\0", root)
            _learn_directory(before, entry)
            continue
        if before is not None:
            last = ("\0", root)
        if entry.type == "hard link":
            parent.children[name] = _hard_link(root, entry, layer)
            continue
        target = entry.target
        size = entry.size if target is None else len(target.encode("utf-8", "surrogateescape"))
        parent.children[name] = LayerNode(
            entry.type,
            entry.mode,
            entry.uid,
            entry.gid,
            size,
            target,
            (number, next(inodes)),
            number,
            entry.offset,
            entry.start,
            entry.path,
        )
    return root


def _parts(path: str, layer: LayerIndex) -> list[str]:
    parts = components(path)[::-1]
    if ".." in parts:
        raise _broken(layer, f"has a file {path[:200]!r}, which leads out of its directory")
    if len(path) > PATH_LIMIT:
        raise _broken(layer, f"has a file {path[:60]!r}..., whose name no program can open")
    return parts


def _learn_directory(node: LayerNode, entry: LayerEntry) -> None:
    node.mode, node.uid, node.gid, node.implied = entry.mode, entry.uid, entry.gid, False


def _parent(root: LayerNode, parts: list[str], layer: LayerIndex) -> LayerNode:
    """The directory in which a member is unpacked; made where it is missing."""
    found = _find(root, parts, make=True)
    if found is None or found.type != "directory":
        raise _broken(
            layer, f"has something below {'/'.join(parts)[:200]!r}, which is no directory"
        )
    return found


def _find(root: LayerNode, parts: list[str], *, make: bool = False) -> LayerNode | None:
    """What is at a path, all symlinks followed, the last one too."""
    trail = [root]
    todo = parts[::-1]
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            if len(trail) > 1:
                trail.pop()
            continue
        children = trail[-1].children
        if children is None:
            return None
        node = children.get(name)
        if node is None:
            if not make:
                return None
            node = children[name] = _directory()
        if node.target is not None:
            links += 1
            if links > LINK_LIMIT:
                return None
            if node.target.startswith("/"):
                del trail[1:]
            todo += components(node.target)
            continue
        trail.append(node)
    return trail[-1]


def _white_out(parent: LayerNode, name: str, layer: LayerIndex) -> None:
    if name == _OPAQUE:
        parent.opaque = True
        return
    if name.startswith(_WHITEOUT + _WHITEOUT):
        return  # what aufs keeps for itself
    hidden = name.removeprefix(_WHITEOUT)
    if hidden in ("", ".", ".."):
        raise _broken(layer, f"has a whiteout of {hidden!r}, which is no name")
    if parent.whiteouts is None:
        parent.whiteouts = set()
    parent.whiteouts.add(hidden)


def _hard_link(root: LayerNode, entry: LayerEntry, layer: LayerIndex) -> LayerNode:
    parts = _parts(entry.target or "", layer)
    node = _linked(root, parts)
    if node is None:
        # A file of a layer below, if there is one.
        return LayerNode("file", 0, 0, 0, 0, None, (0, 0), member=entry.path, link=parts)
    if node.type == "directory":
        raise _broken(layer, f"has a hard link {entry.path[:200]!r} to a directory")
    return node


def _linked(root: LayerNode, parts: list[str]) -> LayerNode | None:
    """What a hard link means: a symlink at the end is not followed."""
    parent = _find(root, parts[:-1]) if parts else None
    return parent.children.get(parts[-1]) if parent and parent.children else None


def _resolve_links(lower: LayerNode, top: LayerNode, layer: LayerIndex) -> None:
    for children in _directories(top):
        for name, node in children.items():
            if node.link is not None:
                found = _linked(lower, node.link)
                if found is None or found.type == "directory":
                    raise _broken(
                        layer,
                        f"has a hard link {node.member[:200]!r} to {'/'.join(node.link)[:200]!r}, "
                        "which is no file",
                    )
                children[name] = found


def _directories(top: LayerNode) -> list[dict[str, LayerNode]]:
    found: list[dict[str, LayerNode]] = []
    pending = [top]
    while pending:
        children = pending.pop().children
        if children is not None:
            found.append(children)
            pending += [node for node in children.values() if node.children is not None]
    return found


def _lay_over(lower: LayerNode, upper: LayerNode) -> None:
    """Put a layer over what is there; `lower` becomes both."""
    pending = [(lower, upper)]
    while pending:
        below, above = pending.pop()
        assert below.children is not None and above.children is not None
        if not above.implied:
            below.mode, below.uid, below.gid = above.mode, above.uid, above.gid
        if above.opaque:
            below.children.clear()
        for name in above.whiteouts or ():
            below.children.pop(name, None)
        for name, node in above.children.items():
            before = below.children.get(name)
            if before is not None and before.children is not None and node.children is not None:
                pending.append((before, node))
            else:
                below.children[name] = node


def _broken(layer: LayerIndex, what: str) -> EngineError:
    return EngineError(
        f"The layer {layer.digest} {what}.", "Build the image again, or write the archive anew."
    )
