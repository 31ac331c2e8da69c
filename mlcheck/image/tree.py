"""Files of an image whose names and facts are a tree in memory, with contents stored anywhere.

Links are followed here, component by component, exactly as in `mlcheck.image.rootfs`. Names are
keys in memory and never names on this machine.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar

from mlcheck.image.api import HEAD, T, Unreadable
from mlcheck.image.budget import NOT_JUDGED, Budget, OverBudget
from mlcheck.image.paths import (
    LINK_LIMIT,
    TYPE_WORDS,
    components,
    in_order,
    led,
    normal,
    once,
)
from mlcheck.image.scan import PATH_LIMIT
from mlcheck.model.errors import EngineError, ProbeError
from mlcheck.model.files import File, FileType, ResolvedFile
from mlcheck.model.units import binary

NAME_LIMIT = 255
"""Most bytes of one file name, as in Linux (NAME_MAX)."""

_SURELY_SHORT = NAME_LIMIT // 4
"""Characters that always fit: a character takes at most four bytes in UTF-8."""


@dataclass(slots=True, eq=False)
class Node:
    """A file of the image."""

    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None
    inode: tuple[int, int]

    def fact(self, path: str) -> File:
        return File(
            path, self.type, self.mode, self.uid, self.gid, self.size, self.target, self.inode
        )


N = TypeVar("N", bound=Node)


@dataclass(frozen=True, slots=True)
class Place(Generic[N]):
    """The result of resolving a path: a node, or the reason why there is none."""

    path: str
    node: N | None
    problem: str = ""


class TreeRootFS(abc.ABC, Generic[N]):
    """The image's files; see `mlcheck.image.api.RootFS`.

    Sockets do not exist in archives and so not here; directories have the size 0.

    Raises:
        EngineError: from every method, if the source of the tree fails, or if links make paths
            longer than is followed for one image.
    """

    def __init__(self) -> None:
        self._steps = Budget()

    @abc.abstractmethod
    def _top(self) -> N:
        """Return the root directory."""

    @abc.abstractmethod
    def _entry(self, parent: N, name: str) -> N | None:
        """Return the entry `name` of a directory, or None if there is none."""

    @abc.abstractmethod
    def _below(self, directory: N) -> Sequence[tuple[str, N]]:
        """Return all entries of a directory, sorted by name."""

    @abc.abstractmethod
    def _content(self, path: str, node: N) -> BinaryIO:
        """Open a regular file: seekable."""

    def lstat(self, path: str) -> File | None:
        """Return the entry at `path` without following a final symlink, or None if there
        is none."""
        node = self._locate(path, follow=False).node
        return node.fact(normal(path)) if node else None

    def resolve(self, path: str) -> ResolvedFile:
        """Follow all symlinks from `path`, inside the image."""
        file = self.lstat(path)
        place = self._locate(path)
        if place.node is None:
            return ResolvedFile(
                path, file, None, place.path, led(path, file, place.path, place.problem)
            )
        return ResolvedFile(path, file, place.node.fact(place.path), place.path)

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of the regular file that `path` leads to.

        Raises:
            Unreadable: there is no such file, it is not a regular file, or it is larger than
                `limit` bytes, whatever size its archive claims.
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
            raise Unreadable(path, f"is larger than {binary(limit)}")
        return content

    def open(self, path: str) -> BinaryIO:
        """Open the regular file that `path` leads to for reading: unbuffered, seekable.

        Reading raises EngineError if the engine fails.

        Raises:
            Unreadable: there is no such file, or it is not a regular file.
        """
        place = self._locate(path)
        if place.node is None:
            raise Unreadable(path, led(path, self.lstat(path), place.path, place.problem))
        if place.node.type != "file":
            word = TYPE_WORDS[place.node.type]
            wrong = f"is {word}, not a regular file"
            raise Unreadable(path, led(path, self.lstat(path), place.path, wrong))
        return self._content(path, place.node)

    def listdir(self, path: str) -> list[str]:
        """Return the names in the directory that `path` leads to, sorted; [] if there is
        no directory."""
        node = self._locate(path).node
        if node is None or node.type != "directory":
            return []
        return [name for name, _ in self._below(node)]

    def walk(self, top: str) -> Iterator[File]:
        """Iterate over every file below `top`, in sorted order, a directory before its entries.

        A symlink at `top` is followed, none below it; paths begin with `top` as it was written.

        Raises:
            ProbeError: a directory lies deeper than any path can name.
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

    def each(
        self,
        top: str,
        wanted: Callable[[str, bytes], bool],
        look: Callable[[File, BinaryIO], T],
    ) -> Iterator[tuple[File, T | Unreadable]]:
        """Look into the regular files below `top`; see `mlcheck.image.api.RootFS.each`."""
        for file in once(sorted(self.walk(top), key=in_order), set()):
            try:
                with self.open(file.path) as content:
                    head = b""
                    while len(head) < HEAD and (more := content.read(HEAD - len(head))):
                        head += more
                    content.seek(0)
                    if wanted(file.path, head):
                        yield file, look(file, content)
            except Unreadable as unreadable:
                yield file, unreadable
            except OSError as error:
                raise ProbeError(
                    f"{file.path}: cannot be read on this machine: {error.strerror or error}."
                ) from error

    def _locate(self, path: str, *, follow: bool = True) -> Place[N]:
        """Walk to `path`; with `follow`, through a final symlink too."""
        if "\0" in path:
            return Place(path, None, "does not exist in the image")
        trail = [self._top()]
        names: list[str] = []
        todo = components(path)
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                if names:
                    names.pop()
                    trail.pop()
                continue
            if len(name) > _SURELY_SHORT and len(os.fsencode(name)) > NAME_LIMIT:
                return Place(_path(names, name), None, "does not exist: its name is too long")
            node = self._entry(trail[-1], name)
            if node is None:
                rest = [] if ".." in todo else todo[::-1]
                return Place(_path(names, name, *rest), None, "does not exist in the image")
            if node.target is not None and (todo or follow):
                links += 1
                if links > LINK_LIMIT:
                    return Place(_path(names, name), None, "is in a link loop")
                if node.target.startswith("/"):
                    del trail[1:], names[:]
                self._follow(node.target)
                todo += components(node.target)
                continue
            if not todo:
                return Place(_path(names, name), node)
            if node.type != "directory":
                word = TYPE_WORDS[node.type]
                return Place(_path(names, name), None, f"is {word}, not a directory")
            trail.append(node)
            names.append(name)
        return Place(_path(names), trail[-1])

    def _follow(self, target: str) -> None:
        try:
            self._steps.steps(target.count("/") + 1)
        except OverBudget as error:
            raise EngineError(f"The image {error}.", NOT_JUDGED) from None


def _path(names: list[str], *more: str) -> str:
    return "/" + "/".join((*names, *more))
