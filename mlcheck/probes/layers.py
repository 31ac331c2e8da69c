"""What the layers of an image hold in vain, and what should never have been in one.

The layers are laid over each other as overlayfs does it. Contents are compared only where a layer
has a file of the same path and size as one below it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mlcheck.engines.base import ImageLayers, Layer, LayerMember
from mlcheck.facts import ImageLayer, Layers, Leftover, Secret, Waste, WasteKind
from mlcheck.probes import layer_names

SECRETS_LIMIT = 1000
"""Secrets that are told of."""

LARGEST = 10
"""Files that are named of many."""

Key = tuple[int, int]
"""Number of a layer (from 0), and of an inode in it."""


def probe(layers: ImageLayers) -> Layers:
    """Look at all layers of an image.

    Raises:
        EngineError, ProbeError: they cannot be read.
    """
    return _Pile(layers.read(layer_names.may_be_secret)).fact()


@dataclass(slots=True)
class _File:
    """A file of the image as it is up to some layer.

    Args:
        key: the copy of its content that is needed; others are waste.
        member: as the last layer has it that has it.
        at: number of that layer.
    """

    key: Key
    member: LayerMember
    at: int


_Tree = dict[str, "_Tree | _File | None"]
"""A directory; None: something without content."""


@dataclass(slots=True)
class _Bytes:
    """Sizes of files, one for each of their inodes."""

    size: int = 0
    files: int = 0
    largest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, member: LayerMember) -> None:
        self.size += member.size
        self.files += 1
        push = heapq.heappush if len(self.largest) < LARGEST else heapq.heappushpop
        push(self.largest, (member.size, member.path))

    @property
    def named(self) -> tuple[tuple[str, int], ...]:
        return tuple((path, size) for size, path in sorted(self.largest, reverse=True))


class _Pile:
    """The layers, laid over each other one after another."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._root: _Tree = {}
        self._waste: dict[tuple[int, WasteKind, int], _Bytes] = {}
        self._names: Counter[Key] = Counter()
        self._vain: set[Key] = set()
        self._sums: dict[Key, bytes] = {}
        self._hidden: dict[tuple[int, str], int] = {}
        self._found: list[dict[str, str]] = []
        marks = (layer_names.conda_cache(m.path) for layer in layers for m in layer.members)
        self._of_conda = frozenset(mark for mark in marks if mark)
        for number in range(len(layers)):
            self._lay(number)

    def fact(self) -> Layers:
        """What was found."""
        found = []
        left = SECRETS_LIMIT
        untold = 0
        for number, layer in enumerate(self._layers):
            sizes = {m.inode: m.size for m in layer.members if m.type == "file"}
            secrets = [
                Secret(path, what, self._hidden.get((number, path)))
                for path, what in sorted(self._found[number].items())
            ]
            found.append(
                ImageLayer(
                    number + 1,
                    layer.digest,
                    layer.created_by,
                    sum(sizes.values()),
                    len(sizes),
                    tuple(
                        Waste(kind, by + 1, total.size, total.files, total.named)
                        for (at, kind, by), total in sorted(self._waste.items())
                        if at == number
                    ),
                    tuple(self._leftovers(number, layer)),
                    tuple(secrets[:left]),
                )
            )
            untold += len(secrets[left:])
            left = max(left - len(secrets), 0)
        return Layers(tuple(found), untold)

    def _lay(self, number: int) -> None:
        """Put the next layer over those below."""
        layer = self._layers[number]
        self._found.append(dict(_secrets(layer)))
        files = [member for member in layer.members if member.type == "file"]
        self._names.update((number, member.inode) for member in files)
        removed: dict[str, _File] = {}
        for member in layer.members:
            if member.type in ("whiteout", "opaque"):
                self._remove(member, removed)
        same = self._same(number, files, removed)
        parent: tuple[str, _Tree] = ("", self._root)
        for member in layer.members:
            if member.type in ("whiteout", "opaque"):
                continue
            above, _, name = member.path.rpartition("/")
            if parent[0] != above:
                parent = above, self._directory(above)
            before = parent[1].get(name)
            if member.type == "directory":
                if isinstance(before, _File):
                    self._hide(before, number, "deleted")
                if not isinstance(before, dict):
                    parent[1][name] = {}
                continue
            if isinstance(before, dict):
                for file in _below(before):
                    self._hide(file, number, "deleted")
            elif before is None:
                before = removed.pop(member.path, None)
            if member.type != "file":
                parent[1][name] = None
                if isinstance(before, _File):
                    self._hide(before, number, "overwritten")
                continue
            key = number, member.inode
            if isinstance(before, _File):
                if member.path in same:
                    self._repeat(before, member, number)
                    key = before.key
                else:
                    self._hide(before, number, "overwritten")
            parent[1][name] = _File(key, member, number)
        for file in removed.values():
            self._hide(file, number, "deleted")

    def _remove(self, member: LayerMember, removed: dict[str, _File]) -> None:
        """Take away what a member hides."""
        path, name = member.path.rstrip("/"), ""
        if member.type == "whiteout":
            path, _, name = path.rpartition("/")
        directory = self._at(path)
        if not isinstance(directory, dict):
            return
        hidden = {name: directory.pop(name, None)} if name else dict(directory)
        if not name:
            directory.clear()
        removed.update((file.member.path, file) for file in _below(hidden))

    def _at(self, path: str) -> _Tree | _File | None:
        found: _Tree | _File | None = self._root
        for name in path.split("/")[1:]:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def _directory(self, path: str) -> _Tree:
        """The directory at a path. A layer has a directory before what is in it."""
        found = self._at(path)
        assert isinstance(found, dict)
        return found

    def _same(
        self, number: int, files: Iterable[LayerMember], removed: dict[str, _File]
    ) -> set[str]:
        """Paths at which the layers below have the same content."""
        pairs: list[tuple[LayerMember, _File]] = []
        for member in files:
            before = removed.get(member.path) or self._at(member.path)
            if isinstance(before, _File) and before.member.size == member.size > 0:
                pairs.append((member, before))
        wanted = {(number, member.inode): member for member, _ in pairs}
        wanted |= {(old.at, old.member.inode): old.member for _, old in pairs}
        # In the order in which they lie: going back in compressed data is slow.
        for key, member in sorted(wanted.items()):
            if key not in self._sums:
                self._sums[key] = self._layers[key[0]].sha256(member)
        return {
            member.path
            for member, old in pairs
            if self._sums[number, member.inode] == self._sums[old.at, old.member.inode]
        }

    def _repeat(self, before: _File, member: LayerMember, number: int) -> None:
        """A layer has a second copy of some content."""
        self._note_hidden(before, number)
        key = number, member.inode
        if key not in self._vain:
            self._vain.add(key)
            old = before.member
            kept = (old.mode, old.uid, old.gid) == (member.mode, member.uid, member.gid)
            self._add(number, "same" if kept else "metadata", number, member)

    def _hide(self, file: _File, by: int, kind: WasteKind) -> None:
        """A name of a file is hidden; with the last one, its content is stored in vain."""
        self._note_hidden(file, by)
        self._names[file.key] -= 1
        if self._names[file.key] == 0 and file.key not in self._vain and file.member.size:
            self._add(file.key[0], kind, by, file.member)

    def _note_hidden(self, file: _File, by: int) -> None:
        path = file.member.path
        if path in self._found[file.at] or layer_names.cache(path, self._of_conda):
            self._hidden[file.at, path] = by + 1

    def _add(self, number: int, kind: WasteKind, by: int, member: LayerMember) -> None:
        self._waste.setdefault((number, kind, by), _Bytes()).add(member)

    def _leftovers(self, number: int, layer: Layer) -> Iterator[Leftover]:
        """Caches in a layer. A file that also has a name elsewhere is in use."""
        found: dict[str, dict[int, LayerMember]] = {}
        used = set()
        hidden: dict[str, set[int | None]] = {}
        for member in layer.members:
            if member.type != "file" or not member.size:
                continue
            cache = layer_names.cache(member.path, self._of_conda)
            if cache is None:
                used.add(member.inode)
            else:
                found.setdefault(cache, {})[member.inode] = member
                hidden.setdefault(cache, set()).add(self._hidden.get((number, member.path)))
        for cache, members in sorted(found.items()):
            total = _Bytes()
            for inode, member in members.items():
                if inode not in used:
                    total.add(member)
            if total.files:
                by = {layer for layer in hidden[cache] if layer is not None}
                deleted_by = max(by) if None not in hidden[cache] else None
                yield Leftover(cache, total.size, total.files, total.named, deleted_by)


def _below(tree: _Tree) -> Iterator[_File]:
    pending: list[_Tree | _File | None] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, _File):
            yield node
        elif node is not None:
            pending += node.values()


def _secrets(layer: Layer) -> Iterator[tuple[str, str]]:
    """Paths of secrets in a layer, and what they are."""
    for member in layer.members:
        if member.type == "file" and member.size and layer_names.may_be_secret(member.path):
            what = layer_names.secret(member.path, layer.start(member))
            if what is not None:
                yield member.path, what
