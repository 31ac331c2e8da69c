"""Read the files of an image that only its engine can reach: as tar streams from a container.

For a daemon on another machine, and for a user who may use the daemon and not read its files. The
content of the image comes as archives, and nothing of these is ever written to disk under a name:
their members' names are keys in memory, their contents go to anonymous temporary files.

Engines cannot list one directory: listing one streams everything below it, once. Of each file in a
stream, the beginning is kept (all of a small one), since a request for a single file costs about
0.1 s and probes read hundreds of small files.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from mlcheck.engines.oci.streamed_file import StreamedFile
from mlcheck.image import budget
from mlcheck.image.paths import components
from mlcheck.image.tar_headers import BrokenArchive, Member
from mlcheck.image.tar_reader import TarStream
from mlcheck.image.tree import Node, TreeRootFS
from mlcheck.model.errors import EngineError, ProbeError

ENTRY_LIMIT = 2_000_000
"""Most files whose facts are kept in memory, about 500 bytes each; large images have 100,000.
One that is asked for by itself counts again."""

NAMES_LIMIT = 2 * budget.NAMES_LIMIT
"""Most characters of their names and targets."""

KEPT_WHOLE = 128 * 1024
"""Bytes up to which a file in a stream is kept whole."""

KEPT_PROGRAM = 8 * 1024 * 1024
"""The same for an ELF file: probes read every one of them from end to end."""

KEPT_START = 4096
"""Bytes kept of a larger file."""

KEPT_AT_LEAST = 64
"""Bytes kept of each file when KEPT_ALTOGETHER is used up: enough to recognise its format."""

KEPT_ALTOGETHER = 1024 * 1024 * 1024
"""Most bytes of an anonymous temporary file for everything that is kept."""

GetArchive = Callable[[str], Iterable[bytes] | None]
"""Returns the tar stream of the file or tree at a path without symlinks in it, or None if there
is none.

Request it with `Accept-Encoding: identity`: docker compresses otherwise, which takes seven
times as long. A name that is not UTF-8 has surrogates. Raises EngineError. An iterable with
`close` is closed.
"""


@dataclass(slots=True, eq=False)
class _Node(Node):
    """A file of the image.

    Args:
        known: of a directory, the entries looked up so far; None for a name that does not exist.
        complete: True if `known` holds all entries.
        kept: offset and length of its first bytes in the spool.
    """

    path: str
    kept: tuple[int, int] = (0, 0)
    known: dict[str, _Node | None] = field(default_factory=dict)
    complete: bool = False

    def child(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"


def _unknown(path: str) -> _Node:
    """Return a node for a file of which nothing is known yet."""
    return _Node("file", 0, 0, 0, 0, None, (0, 0), path)


def _directory(path: str, mode: int, uid: int, gid: int) -> _Node:
    return _Node("directory", mode, uid, gid, 0, None, (0, 0), path)


class StreamedRootFS(TreeRootFS[_Node]):
    """The image's files from tar streams; see `mlcheck.image.api.RootFS`.

    Safe for use from several threads. Answers stay as they were when first given, whatever commands
    change in the container later. The inode of a file is its own number, equal for hard links
    within one stream, and (0, 0) for a file that was looked up alone.

    Args:
        get_archive: streams a file or tree.
        export: streams the whole container; given if `get_archive` follows a symlink at its path or
            does not include the owners (podman). All facts then come from one such stream, when
            they are first needed, and only contents from `get_archive`.
    """

    def __init__(
        self, get_archive: GetArchive, export: Callable[[], Iterable[bytes]] | None = None
    ) -> None:
        super().__init__()
        self._get_archive = get_archive
        self._export = export
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._entries = self._names = 0
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see close()
        self._spooled = 0
        self._root = _directory("/", 0o755, 0, 0)
        self._root_seen = False

    def close(self) -> None:
        """Close the temporary file. Files that are still open stay readable."""
        self._spool.close()

    def _content(self, path: str, node: _Node) -> BinaryIO:
        """Open a file. The engine gets no request until more is read than is kept, and then sends
        no more than is read."""
        start = os.pread(self._spool.fileno(), node.kept[1], node.kept[0]) if node.kept[1] else b""
        return cast(BinaryIO, StreamedFile(node.size, start, lambda: self._fetch(node)))

    def _top(self) -> _Node:
        with self._lock:
            if not self._root_seen:
                if self._export:
                    self._load(self._root)
                else:
                    self._look(self._root)
                self._root_seen = True
            return self._root

    def _entry(self, parent: _Node, name: str) -> _Node | None:
        """Return the entry `name` of a directory, looked up alone if it is not known yet."""
        with self._lock:
            if name not in parent.known and not parent.complete:
                if _is_utf8(name):
                    node = _unknown(parent.child(name))
                    try:
                        parent.known[name] = node if self._look(node) else None
                        self._entries += 1
                    except EngineError:
                        # docker follows a symlink only to describe it, and fails in a loop.
                        self._load(parent)
                else:
                    # Engines use JSON, which cannot represent such a name.
                    self._load(parent)
            return parent.known.get(name)

    def _below(self, directory: _Node) -> list[tuple[str, _Node]]:
        with self._lock:
            if not directory.complete:
                self._load(directory)
            return sorted((name, node) for name, node in directory.known.items() if node)

    def _look(self, node: _Node) -> bool:
        """Learn the facts of `node` from the first header of its archive; False if it does
        not exist."""
        stream = self._stream(node.path)
        if stream is None:
            return False
        with stream:
            member = _next(stream, node.path)
            if member is None:  # a socket
                return False
            _learn(node, member)
            if member.type == "file":
                self._keep(node, stream)
            return True

    def _load(self, top: _Node) -> None:
        """Learn everything below a directory from one stream."""
        if self._export:
            stream: TarStream | None = TarStream(self._export())
            prefix: list[str] = []
        else:
            stream = self._stream(top.path)
            prefix = components(top.path)[:1]
        if stream is None:
            raise _broken(top.path, "is not there any more")
        fresh = _directory(top.path, top.mode, top.uid, top.gid)
        with stream:
            while (member := _next(stream, top.path)) is not None:
                self._entries += 1
                self._names += len(member.name) + len(member.target or "")
                if self._entries > ENTRY_LIMIT or self._names > NAMES_LIMIT:
                    raise ProbeError(
                        f"{top.path}: more than {ENTRY_LIMIT} files in the image, or "
                        f"{NAMES_LIMIT} characters of names, cannot be judged."
                    )
                self._place(fresh, prefix, member, stream)
        top.mode, top.uid, top.gid = fresh.mode, fresh.uid, fresh.gid
        top.known = fresh.known
        _mark_complete(top)

    def _place(self, top: _Node, prefix: list[str], member: Member, stream: TarStream) -> None:
        """Put a member of the stream in its place below `top`, according to its name."""
        parts = _inside(top.path, prefix, member.name)
        if not parts:
            if member.type != "directory":
                raise _broken(top.path, "is no directory any more")
            _learn(top, member)
            return
        parent = _find(top, parts[:-1])
        if parent is None or parent.type != "directory":
            raise _broken(top.path, f"holds {member.name!r} without its directory")
        node = _unknown(parent.child(parts[-1]))
        if member.type == "hard link":
            first = _find(top, _inside(top.path, prefix, member.target or ""))
            if first is None or first.type == "directory":
                raise _broken(top.path, f"holds a hard link to {member.target!r}, which it has not")
            node = dataclasses.replace(first, path=node.path)
        else:
            _learn(node, member)
            node.inode = (1, next(self._numbers))
            if member.type == "file":
                self._keep(node, stream)
        parent.known[parts[-1]] = node

    def _keep(self, node: _Node, stream: TarStream) -> None:
        """Write the beginning of the current member to the spool."""
        start = self._spooled
        try:
            data = stream.read(KEPT_AT_LEAST)
            whole = KEPT_PROGRAM if data.startswith(b"\x7fELF") else KEPT_WHOLE
            end = start + (node.size if node.size <= whole else KEPT_START)
            if end > KEPT_ALTOGETHER:
                end = start + KEPT_AT_LEAST
            while data:
                self._spooled += os.pwrite(self._spool.fileno(), data, self._spooled)
                data = stream.read(end - self._spooled)
        except BrokenArchive as error:
            raise _broken(node.path, str(error)) from error
        except OSError as error:
            raise ProbeError(
                f"{node.path}: cannot be kept in {tempfile.gettempdir()}: {error.strerror}.",
                "Free some space there, or set TMPDIR to a directory that has it.",
            ) from error
        node.kept = (start, self._spooled - start)

    def _fetch(self, node: _Node) -> TarStream:
        """Return a stream positioned at the content of a regular file."""
        parts = components(node.path)[::-1]
        # The file, or the nearest directory, with a name that can be requested.
        named = next((n for n, part in enumerate(parts) if not _is_utf8(part)), len(parts))
        asked = "/" + "/".join(parts[:named])
        stream = _found(lambda: self._stream(asked), parts[max(named - 1, 0) :], node)
        if stream is None and (export := self._export) is not None:
            # In a place where the container has a mount of its own (a volume, /dev/shm), podman
            # sends the files of that mount: for a file that is not in it, an empty archive, which
            # at times ends before its first byte.
            stream = _found(lambda: TarStream(export()), parts, node)
        if stream is None:
            raise _broken(node.path, "does not hold it as before")
        return stream

    def _stream(self, path: str) -> TarStream | None:
        chunks = self._get_archive(path)
        return None if chunks is None else TarStream(chunks)


def _found(ask: Callable[[], TarStream | None], parts: list[str], node: _Node) -> TarStream | None:
    """Return a stream positioned at the content of `node`, or None if it is not in the stream.

    Args:
        ask: returns the stream, from its beginning.
        parts: components of the file's name in it.
    """
    for _ in range(2):  # the target of a hard link may have passed already
        stream = ask()
        if stream is None or stream.is_empty():
            return None
        while (member := _next(stream, node.path)) is not None:
            if components(member.name)[::-1] == parts:
                break
        if member is not None and (member.type, member.size) == ("file", node.size):
            return stream
        stream.close()
        if member is None or member.type != "hard link":
            return None
        parts = components(member.target or "")[::-1]
    return None


def _learn(node: _Node, member: Member) -> None:
    if member.type == "hard link":
        raise _broken(node.path, "begins with a hard link")
    node.type, node.mode, node.target = member.type, member.mode, member.target
    node.uid, node.gid = member.uid, member.gid
    node.size = len(os.fsencode(member.target)) if member.target is not None else member.size


def _next(stream: TarStream, path: str) -> Member | None:
    try:
        return stream.next()
    except BrokenArchive as error:
        raise _broken(path, str(error)) from error


def _inside(path: str, prefix: list[str], name: str) -> list[str]:
    """Return the components of a member's name below the top of the archive."""
    parts = components(name)[::-1]
    if ".." in parts or parts[: len(prefix)] != prefix:
        raise _broken(path, f"holds {name[:200]!r}, which is not below it")
    return parts[len(prefix) :]


def _find(top: _Node, parts: list[str]) -> _Node | None:
    node: _Node | None = top
    for part in parts:
        node = node.known.get(part) if node else None
    return node


def _mark_complete(top: _Node) -> None:
    pending = [top]
    while pending:
        node = pending.pop()
        node.complete = True
        pending += [child for child in node.known.values() if child and child.type == "directory"]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _broken(path: str, what: str) -> EngineError:
    return EngineError(
        f"{path}: the archive that the engine sent of it {what}.",
        "Try again; when it happens again, the engine is at fault.",
    )
