"""Read the files of an image that only its engine can reach: as tar streams from a container.

For a daemon on another machine, and for a user who may talk to the daemon and not read its
files. What the image holds comes as archives, and nothing of these is ever written to disk
under a name: their members' names are keys in memory, their contents go to anonymous temporary
files. Links are followed here, component by component, exactly as in `mlcheck.rootfs`.

Engines cannot list one directory: listing one streams all that is below it, once. Of each file
that passes by, the beginning is kept (all of a small one), since a request for a single file
costs about 0.1 s and probes read hundreds of small files.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from mlcheck.engines.base import T, Unreadable
from mlcheck.engines.streamed_file import StreamedFile
from mlcheck.engines.tar_stream import BrokenArchive, Member, TarStream
from mlcheck.errors import EngineError, ProbeError
from mlcheck.facts import File, FileType, ResolvedFile
from mlcheck.rootfs import (
    LINK_LIMIT,
    PATH_LIMIT,
    TYPE_WORDS,
    components,
    each_in,
    led,
    normal,
    size_text,
)

NAME_LIMIT = 255
"""Bytes of one file name, as in Linux (NAME_MAX)."""

ENTRY_LIMIT = 2_000_000
"""Files whose facts are kept in memory, about 500 bytes each; large images have 100,000."""

KEPT_WHOLE = 128 * 1024
"""Bytes up to which a file that passes by is kept whole."""

KEPT_PROGRAM = 8 * 1024 * 1024
"""The same for an ELF file: probes read every one of them from end to end."""

KEPT_START = 4096
"""Bytes kept of a larger file."""

KEPT_AT_LEAST = 64
"""Bytes kept of each file when KEPT_ALTOGETHER is used up: what tells its format."""

KEPT_ALTOGETHER = 1024 * 1024 * 1024
"""Bytes of an anonymous temporary file for all that is kept."""

GetArchive = Callable[[str], Iterable[bytes] | None]
"""Tar stream of the file or tree at a path without symlinks in it; None: there is none.

Ask for it with `Accept-Encoding: identity`: docker compresses otherwise, which takes seven times
as long. A name that is not UTF-8 has surrogates. Raises EngineError. An iterable with `close` is
closed.
"""


@dataclass(slots=True, eq=False)
class _Node:
    """A file of the image.

    Args:
        known: of a directory, the entries looked at so far; None: there is no such entry.
        complete: whether `known` holds them all.
        kept: offset and length of its first bytes in the spool.
    """

    path: str
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None
    inode: tuple[int, int] = (0, 0)
    kept: tuple[int, int] = (0, 0)
    known: dict[str, _Node | None] = field(default_factory=dict)
    complete: bool = False

    def fact(self, path: str) -> File:
        return File(
            path, self.type, self.mode, self.uid, self.gid, self.size, self.target, self.inode
        )

    def child(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a path leads: a node, or why nowhere."""

    path: str
    node: _Node | None
    problem: str = ""


class StreamedRootFS:
    """The image's files from tar streams; see `mlcheck.engines.base.RootFS`.

    Safe for use from several threads. Answers stay as they were when first given, whatever
    commands change in the container later. Sockets do not exist in archives and so not here;
    directories have the size 0. The inode of a file is its own number, equal for hard links
    that one stream held, and (0, 0) for a file that was looked at alone.

    Args:
        get_archive: streams a file or tree.
        export: streams the whole container; given where `get_archive` follows a symlink at its
            path or does not tell the owners (podman). All facts then come from one such
            stream, on the first question, and only contents from `get_archive`.
    """

    def __init__(
        self, get_archive: GetArchive, export: Callable[[], Iterable[bytes]] | None = None
    ) -> None:
        self._get_archive = get_archive
        self._export = export
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._entries = 0
        self._spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see close()
        self._spooled = 0
        self._root = _Node("/", "directory", 0o755, 0, 0, 0, None)
        self._root_seen = False

    def close(self) -> None:
        """Give the temporary file back. Files that are still open stay readable."""
        self._spool.close()

    def lstat(self, path: str) -> File | None:
        """What is at `path`, a final symlink not followed; None when nothing is.

        Raises:
            EngineError: the engine did not answer.
        """
        node = self._locate(path, follow=False).node
        return node.fact(normal(path)) if node else None

    def resolve(self, path: str) -> ResolvedFile:
        """Follow all symlinks from `path`, inside the image.

        Raises:
            EngineError: the engine did not answer.
        """
        file = self.lstat(path)
        place = self._locate(path)
        if place.node is None:
            return ResolvedFile(
                path, file, None, place.path, led(path, file, place.path, place.problem)
            )
        return ResolvedFile(path, file, place.node.fact(place.path), place.path)

    def read(self, path: str, limit: int) -> bytes:
        """Content of the regular file that `path` leads to.

        Raises:
            Unreadable: there is no such file, it is no regular file, or it is larger than
                `limit` bytes, whatever size its archive claims.
            EngineError: the engine did not answer.
            ProbeError: this machine's temporary directory is full.
        """
        with self.open(path) as file:
            too_large = file.seek(0, os.SEEK_END) > limit
            file.seek(0)
            try:
                content = b"" if too_large else file.read()
            except OSError as error:
                raise ProbeError(
                    f"{path}: cannot be read on this machine: {error.strerror or error}."
                ) from error
        if too_large:
            raise Unreadable(path, f"is larger than {size_text(limit)}")
        return content

    def open(self, path: str) -> BinaryIO:
        """The regular file that `path` leads to, for reading: unbuffered, seekable.

        Nothing is asked of the engine before more is read than what is kept, and no more comes
        over than what is read. Reading raises EngineError when the engine fails.

        Raises:
            Unreadable: there is no such file, or it is no regular file.
            EngineError: the engine did not answer.
        """
        place = self._locate(path)
        if place.node is None:
            raise Unreadable(path, led(path, self.lstat(path), place.path, place.problem))
        if place.node.type != "file":
            word = TYPE_WORDS[place.node.type]
            wrong = f"is {word}, not a regular file"
            raise Unreadable(path, led(path, self.lstat(path), place.path, wrong))
        node = place.node
        start = os.pread(self._spool.fileno(), node.kept[1], node.kept[0]) if node.kept[1] else b""
        return cast(BinaryIO, StreamedFile(node.size, start, lambda: self._content(node)))

    def listdir(self, path: str) -> list[str]:
        """Names in the directory that `path` leads to, sorted; [] when there is none.

        Raises:
            EngineError: the engine did not answer.
            ProbeError: the image has more files than ENTRY_LIMIT.
        """
        node = self._locate(path).node
        if node is None or node.type != "directory":
            return []
        return [name for name, _ in self._below(node)]

    def each(
        self,
        top: str,
        wanted: Callable[[File, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """Look into the regular files below `top`; see `mlcheck.engines.base.RootFS.each`."""
        return each_in(self, top, wanted, look)

    def walk(self, top: str) -> Iterator[File]:
        """Every file below `top`, in sorted order, a directory before what it holds.

        A symlink at `top` is followed, none below it; paths begin with `top` as it was written.

        Raises:
            EngineError: the engine did not answer.
            ProbeError: the image has more files than ENTRY_LIMIT, or a directory lies deeper
                than any path can name.
        """
        node = self._locate(top).node
        if node is None or node.type != "directory":
            return
        pending = [(normal(top).rstrip("/"), iter(self._below(node)))]
        while pending:
            shown, entries = pending[-1]
            entry = next(entries, None)
            if entry is None:
                pending.pop()
                continue
            path = f"{shown}/{entry[0]}"
            if len(path) > PATH_LIMIT:
                raise ProbeError(
                    f"{path[:60]}... is a path of more than {PATH_LIMIT} bytes, "
                    "which no program can open.",
                    "Remove the nested directories from the image.",
                )
            yield entry[1].fact(path)
            if entry[1].type == "directory":
                pending.append((path, iter(self._below(entry[1]))))

    def _locate(self, path: str, *, follow: bool = True) -> _Place:
        """Walk to `path`; with `follow`, through a final symlink too."""
        if "\0" in path:
            return _Place(path, None, "does not exist in the image")
        trail = [self._top()]
        todo = components(path)
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                if len(trail) > 1:
                    trail.pop()
                continue
            here = trail[-1].child(name)
            if len(os.fsencode(name)) > NAME_LIMIT:
                return _Place(here, None, "does not exist: its name is too long")
            node = self._entry(trail[-1], name)
            if node is None:
                rest = [] if ".." in todo else todo[::-1]
                return _Place("/".join((here, *rest)), None, "does not exist in the image")
            if node.target is not None and (todo or follow):
                links += 1
                if links > LINK_LIMIT:
                    return _Place(here, None, "is in a link loop")
                if node.target.startswith("/"):
                    del trail[1:]
                todo += components(node.target)
                continue
            if not todo:
                return _Place(here, node)
            if node.type != "directory":
                return _Place(here, None, f"is {TYPE_WORDS[node.type]}, not a directory")
            trail.append(node)
        return _Place(trail[-1].path, trail[-1])

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
        """The entry `name` of a directory, asked for alone where it is not known yet."""
        with self._lock:
            if name not in parent.known and not parent.complete:
                if _is_utf8(name):
                    node = _Node(parent.child(name), "file", 0, 0, 0, 0, None)
                    try:
                        parent.known[name] = node if self._look(node) else None
                        self._entries += 1
                    except EngineError:
                        # docker follows a symlink only to describe it, and fails in a loop.
                        self._load(parent)
                else:
                    # Engines speak JSON, which has no words for such a name.
                    self._load(parent)
            return parent.known.get(name)

    def _below(self, directory: _Node) -> list[tuple[str, _Node]]:
        with self._lock:
            if not directory.complete:
                self._load(directory)
            return sorted((name, node) for name, node in directory.known.items() if node)

    def _look(self, node: _Node) -> bool:
        """Learn the facts of `node` from the first header of its archive; False: not there."""
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
        """Learn all that is below a directory from one stream."""
        if self._export:
            stream: TarStream | None = TarStream(self._export())
            prefix: list[str] = []
        else:
            stream = self._stream(top.path)
            prefix = components(top.path)[:1]
        if stream is None:
            raise _broken(top.path, "is not there any more")
        fresh = _Node(top.path, "directory", top.mode, top.uid, top.gid, 0, None)
        with stream:
            while (member := _next(stream, top.path)) is not None:
                self._entries += 1
                if self._entries > ENTRY_LIMIT:
                    raise ProbeError(
                        f"{top.path}: more than {ENTRY_LIMIT} files in the image cannot be judged."
                    )
                self._place(fresh, prefix, member, stream)
        top.mode, top.uid, top.gid = fresh.mode, fresh.uid, fresh.gid
        top.known = fresh.known
        _mark_complete(top)

    def _place(self, top: _Node, prefix: list[str], member: Member, stream: TarStream) -> None:
        """Put a member of the stream where its name says, below `top`."""
        parts = _inside(top.path, prefix, member.name)
        if not parts:
            if member.type != "directory":
                raise _broken(top.path, "is no directory any more")
            _learn(top, member)
            return
        parent = _find(top, parts[:-1])
        if parent is None or parent.type != "directory":
            raise _broken(top.path, f"holds {member.name!r} without its directory")
        node = _Node(parent.child(parts[-1]), "file", 0, 0, 0, 0, None)
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

    def _content(self, node: _Node) -> TarStream:
        """A stream that stands before the content of a regular file."""
        if _is_utf8(node.path):
            stream = self._stream(node.path)
            member = None if stream is None else _next(stream, node.path)
            if stream is None or member is None or member.type != "file":
                raise _broken(node.path, "is no regular file any more")
            return stream
        # The nearest directory with a name that can be asked for.
        parts = components(node.path)[::-1]
        first = next(index for index, part in enumerate(parts) if not _is_utf8(part))
        stream = self._stream("/" + "/".join(parts[:first]))
        while stream is not None and (member := _next(stream, node.path)) is not None:
            name = components(member.name)[::-1]
            if name == parts[max(first - 1, 0) :]:
                return stream
        raise _broken(node.path, "is not there any more")

    def _stream(self, path: str) -> TarStream | None:
        chunks = self._get_archive(path)
        return None if chunks is None else TarStream(chunks)


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
    """The components of a member's name below the top of the archive."""
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
