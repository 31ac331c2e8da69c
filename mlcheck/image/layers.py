"""Layers of an image: the content of each, and their merged result.

Rules: https://github.com/opencontainers/image-spec/blob/main/layer.md. Where that says nothing,
layers are merged as docker does on overlayfs: each layer is unpacked into a directory of its own,
and the directories are stacked. So a symlink within a layer is followed by later members of that
layer, a symlink of a lower layer is replaced by a directory of the upper one, and a directory that
a layer needs and does not have is 0755 and root's. Some things that docker refuses are accepted: a
name that occurs twice (the last one counts), a hard link to a file of a lower layer, a whiteout
behind a file of its name in the same layer (it hides only what is below).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mlcheck.image.api import HEAD
from mlcheck.image.budget import NOT_JUDGED, STARTS_LIMIT, Budget, OverBudget
from mlcheck.image.byte_sources import Source
from mlcheck.image.paths import LINK_LIMIT, components, without_collection
from mlcheck.image.scan import PATH_LIMIT
from mlcheck.image.tar_reader import TarReader
from mlcheck.image.tree import Node
from mlcheck.model.errors import EngineError
from mlcheck.model.files import FileType

START_OF_PROGRAM = 4096
"""Bytes kept of an ELF file, whose program headers are needed too; of other files, HEAD bytes."""

_PIECE = 256 * 1024
WHITEOUT = ".wh."
"""Prefix of the name of a whiteout."""

OPAQUE = ".wh..wh..opq"
"""Name of the entry that hides everything of its directory in the layers below."""


class LayerEntry(NamedTuple):
    """A member of a layer, as its headers describe it.

    Args:
        path, target: as they are written; bytes that are not UTF-8 are surrogates.
        mode: permission bits with set-uid, set-gid and sticky.
        size, offset: position of its content in the layer without compression.
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
    """The result of one pass over a layer: everything but the contents of its files.

    Args:
        digest: identifies the layer: the digest of its blob, or of its tar archive (its diff_id).
        size: bytes of its tar archive.
        entries: the members in order.
    """

    digest: str
    size: int
    entries: tuple[LayerEntry, ...]


Passing = Callable[[LayerEntry, Iterator[bytes]], None]
"""Called with each regular file that is not empty, and its content in pieces."""


def index_layer(
    source: Source, digest: str, passing: Passing | None = None, budget: Budget | None = None
) -> LayerIndex:
    """Read a layer once, from its beginning to its end.

    Args:
        source: its tar archive, without compression.
        passing: called with the contents; without it they are skipped.
        budget: of the image; None: the layer is one by itself.

    Raises:
        BrokenArchive: it is not an intact tar archive, or has more than an image may have.
        EngineError: this machine cannot read it.
    """
    reader = TarReader(source, end_may_be_unmarked=True, padding_may_be_missing=True)
    with without_collection():
        return _index(reader, digest, passing, budget or Budget())


def _index(reader: TarReader, digest: str, passing: Passing | None, budget: Budget) -> LayerIndex:
    entries: list[LayerEntry] = []
    while (member := reader.next()) is not None:
        start = b""
        if member.type == "file" and member.size and budget.starts < STARTS_LIMIT:
            start = reader.peek(min(HEAD, member.size))
            if start.startswith(b"\x7fELF"):
                start = reader.peek(min(START_OF_PROGRAM, member.size))
            budget.starts += len(start)
        budget.entries(1, len(member.name) + len(member.target or ""))
        entries.append(LayerEntry(*member, reader.at, start))
        if passing is not None and member.type == "file" and member.size:
            passing(entries[-1], iter(lambda: reader.read(_PIECE), b""))
    return LayerIndex(digest, reader.read_to_end(), tuple(entries))


@dataclass(slots=True, eq=False)
class LayerNode(Node):
    """A file of the image.

    Args:
        layer, offset, start: the place of a regular file's content, and its first bytes.
        member: its name in its layer.
        children: entries of a directory.
        implied: True for the root directory of a layer that has no member for it.
        opaque, whiteouts: parts of the directory below that a directory hides: everything, or
            these names.
        link: the target of a hard link, if the layer itself does not have it.
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
    """Return the root directory of an image with these layers, the lowest first.

    Raises:
        EngineError: a layer has a name that leads out of the image, or a hard link to nothing; or
            the image has more than an image may have.
    """
    numbers = itertools.count(1)
    root = directory(implied=True)
    budget = Budget()
    with without_collection(), refused():
        for number, layer in enumerate(layers):
            top = unpacked(layer, number, numbers, budget)
            _resolve_links(root, top, layer, budget)
            lay_over(root, top)
    return root


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Refuse an image that takes more than is spent on one, with an EngineError."""
    try:
        yield
    except OverBudget as error:
        raise EngineError(f"The image {error}.", NOT_JUDGED) from None


def directory(*, implied: bool = False) -> LayerNode:
    """Make a directory as docker does if a layer needs one that it does not have."""
    return LayerNode("directory", 0o755, 0, 0, 0, None, (0, 0), children={}, implied=implied)


def unpacked(
    layer: LayerIndex, number: int, inodes: itertools.count[int], budget: Budget
) -> LayerNode:
    """Return the tree that unpacking a layer into an empty directory would give.

    Raises:
        EngineError: that cannot be unpacked.
        OverBudget: the image has more than an image may have.
    """
    root = directory(implied=True)
    budget.entries(len(layer.entries))
    # Members come directory by directory: the last directory is usually the next one's too.
    last: tuple[str, LayerNode] = ("", root)
    for entry in layer.entries:
        if len(entry.path) > PATH_LIMIT or len(entry.target or "") > PATH_LIMIT:
            which = entry.path if len(entry.path) > PATH_LIMIT else entry.target or ""
            raise _broken(
                layer,
                f"has a file {entry.path[:60]!r} with the name or target {which[:60]!r}..., "
                f"which no program can open: it has {len(which)} characters",
            )
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
            parent = _parent(root, above, layer, budget)
            last = (head, parent) if name == entry.path[len(head) + 1 :] else ("\0", root)
        assert parent.children is not None
        if name.startswith(WHITEOUT):
            _white_out(parent, name, layer)
            continue
        before = parent.children.get(name)
        if entry.type == "directory":
            if before is None or before.type != "directory":
                before = directory()
                before.inode = (number, next(inodes))
                parent.children[name] = before
                last = ("\0", root)
            _learn_directory(before, entry)
            continue
        if before is not None:
            last = ("\0", root)
        if entry.type == "hard link":
            parent.children[name] = _hard_link(root, entry, layer, budget)
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
    return parts


def _learn_directory(node: LayerNode, entry: LayerEntry) -> None:
    node.mode, node.uid, node.gid, node.implied = entry.mode, entry.uid, entry.gid, False


def _parent(root: LayerNode, parts: list[str], layer: LayerIndex, budget: Budget) -> LayerNode:
    """Return the directory in which a member is unpacked, made if it is missing."""
    found = _find(root, parts, budget, make=True)
    if found is None or found.type != "directory":
        raise _broken(
            layer, f"has something below {'/'.join(parts)[:200]!r}, which is no directory"
        )
    return found


def _find(
    root: LayerNode, parts: list[str], budget: Budget, *, make: bool = False
) -> LayerNode | None:
    """Return the node at a path, following all symlinks, the last one too; None if there
    is none."""
    budget.steps(len(parts))
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
            budget.entries(1)
            node = children[name] = directory()
        if node.target is not None:
            links += 1
            if links > LINK_LIMIT:
                return None
            budget.steps(node.target.count("/") + 1)
            if node.target.startswith("/"):
                del trail[1:]
            todo += components(node.target)
            continue
        trail.append(node)
    return trail[-1]


def _white_out(parent: LayerNode, name: str, layer: LayerIndex) -> None:
    if name == OPAQUE:
        parent.opaque = True
        return
    if name.startswith(WHITEOUT + WHITEOUT):
        return  # aufs' own files
    hidden = name.removeprefix(WHITEOUT)
    if hidden in ("", ".", ".."):
        raise _broken(layer, f"has a whiteout of {hidden!r}, which is no name")
    if parent.whiteouts is None:
        parent.whiteouts = set()
    parent.whiteouts.add(hidden)


def _hard_link(root: LayerNode, entry: LayerEntry, layer: LayerIndex, budget: Budget) -> LayerNode:
    parts = _parts(entry.target or "", layer)
    node = _linked(root, parts, budget)
    if node is None:
        # Possibly a file of a layer below.
        return LayerNode("file", 0, 0, 0, 0, None, (0, 0), member=entry.path, link=parts)
    if node.type == "directory":
        raise _broken(layer, f"has a hard link {entry.path[:200]!r} to a directory")
    return node


def _linked(root: LayerNode, parts: list[str], budget: Budget) -> LayerNode | None:
    """Return the node that a hard link refers to: a symlink at the end is not followed."""
    parent = _find(root, parts[:-1], budget) if parts else None
    return parent.children.get(parts[-1]) if parent and parent.children else None


def _resolve_links(lower: LayerNode, top: LayerNode, layer: LayerIndex, budget: Budget) -> None:
    for length, children in _directories(top):
        # As they are walked: symlinks put files deeper than their names in the archive tell.
        budget.entries(0, length * len(children))
        for name, node in children.items():
            if node.link is not None:
                found = _linked(lower, node.link, budget)
                if found is None or found.type == "directory":
                    raise _broken(
                        layer,
                        f"has a hard link {node.member[:200]!r} to {'/'.join(node.link)[:200]!r}, "
                        "which is no file",
                    )
                children[name] = found


def _directories(top: LayerNode) -> list[tuple[int, dict[str, LayerNode]]]:
    """Return the entries of every directory, and the length of its path."""
    found: list[tuple[int, dict[str, LayerNode]]] = []
    pending = [(0, top)]
    while pending:
        length, directory = pending.pop()
        if (children := directory.children) is not None:
            found.append((length, children))
            pending += [
                (length + 1 + len(name), node)
                for name, node in children.items()
                if node.children is not None
            ]
    return found


class Hidden(NamedTuple):
    """Anything but a directory that a layer hides.

    Args:
        now: the layer's own entry at that path, possibly a directory; None if it has none.
    """

    path: str
    before: LayerNode
    now: LayerNode | None


def lay_over(lower: LayerNode, upper: LayerNode) -> list[Hidden]:
    """Put a layer over the layers below: `lower` becomes the merged tree. Return what
    that hides."""
    hidden: list[Hidden] = []
    pending = [("", lower, upper)]
    while pending:
        path, below, above = pending.pop()
        assert below.children is not None and above.children is not None
        if not above.implied:
            below.mode, below.uid, below.gid = above.mode, above.uid, above.gid
        gone: dict[str, LayerNode] = {}
        if above.opaque:
            gone.update(below.children)
            below.children.clear()
        for name in above.whiteouts or ():
            if name in below.children:
                gone[name] = below.children.pop(name)
        for name, node in above.children.items():
            before = below.children.get(name)
            if before is not None:
                if before.children is not None and node.children is not None:
                    pending.append((f"{path}/{name}", before, node))
                    continue
                gone[name] = before
            below.children[name] = node
        for name, node in gone.items():
            hidden += _leaves(Hidden(f"{path}/{name}", node, above.children.get(name)))
    return hidden


def _leaves(top: Hidden) -> Iterator[Hidden]:
    pending = [top]
    while pending:
        path, before, now = one = pending.pop()
        if before.children is None:
            yield one
            continue
        there = (now and now.children) or {}
        pending += [
            Hidden(f"{path}/{name}", child, there.get(name))
            for name, child in before.children.items()
        ]


def _broken(layer: LayerIndex, what: str) -> EngineError:
    return EngineError(
        f"The layer {layer.digest} {what}.", "Build the image again, or write the archive anew."
    )
