"""Wasted bytes and secrets in image layers.

The layers are laid over each other as overlayfs does it. Contents are compared only where a layer
has a file of the same path and size as one below it.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import ImageLayers, Layer, LayerMember
from mlcheck.image.layer_members import member_of, tree_of
from mlcheck.image.layers import Hidden, LayerNode, directory, lay_over
from mlcheck.inspect.layers import names as layer_names
from mlcheck.inspect.layers import published
from mlcheck.inspect.layers import secrets as texts
from mlcheck.inspect.layers.facts import ImageLayer, Layers, Leftover, Secret, Waste, WasteKind
from mlcheck.inspect.registry import fact
from mlcheck.model.errors import NotApplicable, needed
from mlcheck.model.layer_history import instruction

NO_LAYERS = "this engine sees one file system without layers: docker, podman and archive have them"

SECRETS_LIMIT = 1000
"""Maximum number of secrets that are reported."""

TOLD_LIMIT = 100
"""Maximum number of secrets in the instructions of one layer."""

LARGEST = 10
"""Maximum number of files that are named."""

Key = tuple[int, int]
"""Number of a layer (from 0), and of an inode in it."""


@fact()
def image_layers(image: OpenImage, ask: Ask) -> Layers:
    """Examine the layers of the image."""
    found = examined(image, needed(image.layers, NO_LAYERS), ask)
    if not found.layers:
        raise NotApplicable("the image has no layers")
    return found


def examined(image: OpenImage, layers: ImageLayers, ask: Ask) -> Layers:
    """Examine the layers, and look for the packages of files that seem to be secret."""
    found = ask(probe, layers)
    secrets = {(one.path, one.sha256) for layer in found.layers for one in layer.secrets}
    if not secrets:
        return found
    owned = ask(published.owned, image.rootfs, sorted(secrets))
    return dataclasses.replace(
        found,
        layers=tuple(
            dataclasses.replace(
                layer,
                secrets=tuple(
                    dataclasses.replace(one, owned=owned(one.path, one.sha256))
                    for one in layer.secrets
                ),
            )
            for layer in found.layers
        ),
    )


def probe(layers: ImageLayers) -> Layers:
    """Examine all layers of an image.

    Raises:
        EngineError, ProbeError: they cannot be read.
    """
    return _Pile(layers.read(layer_names.may_be_secret, layer_names.secret)).fact()


@dataclass(slots=True)
class _Bytes:
    """Sizes of files, one for each of their inodes."""

    size: int = 0
    files: int = 0
    largest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, path: str, size: int) -> None:
        self.size += size
        self.files += 1
        push = heapq.heappush if len(self.largest) < LARGEST else heapq.heappushpop
        push(self.largest, (size, path))

    @property
    def named(self) -> tuple[tuple[str, int], ...]:
        return tuple((path, size) for size, path in sorted(self.largest, reverse=True))


class _Pile:
    """The layers, laid over each other one after another."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._root = directory(implied=True)
        self._copied: dict[str, Key] = {}
        self._waste: dict[tuple[int, WasteKind, int], _Bytes] = {}
        self._names: Counter[Key] = Counter()
        self._vain: set[Key] = set()
        self._sums: dict[Key, bytes] = {}
        self._hidden: dict[tuple[int, str], int] = {}
        self._found: list[dict[str, tuple[str, LayerMember]]] = []
        marks = (layer_names.conda_cache(m.path) for layer in layers for m in layer.members)
        self._of_conda = frozenset(mark for mark in marks if mark)
        for number in range(len(layers)):
            self._lay(number)

    def fact(self) -> Layers:
        """Return the results."""
        found = []
        left = SECRETS_LIMIT
        untold = 0
        for number, layer in enumerate(self._layers):
            sizes = {m.inode: m.size for m in layer.members if m.type == "file"}
            secrets = [
                Secret(path, what, self._hidden.get((number, path)), layer.sha256(member).hex())
                for path, (what, member) in sorted(self._found[number].items())[:SECRETS_LIMIT]
            ]
            left_out = len(self._found[number]) - len(secrets)
            found.append(
                ImageLayer(
                    number + 1,
                    layer.digest,
                    texts.without(layer.created_by),
                    sum(sizes.values()),
                    len(sizes),
                    tuple(
                        Waste(kind, by + 1, total.size, total.files, total.named)
                        for (at, kind, by), total in sorted(self._waste.items())
                        if at == number
                    ),
                    tuple(self._leftovers(number, layer)),
                    tuple(secrets[:left]),
                    tuple(_told(layer.instructions)),
                )
            )
            untold += len(secrets[left:]) + left_out
            left = max(left - len(secrets), 0)
        return Layers(tuple(found), untold)

    def _lay(self, number: int) -> None:
        """Put the next layer over those below."""
        layer = self._layers[number]
        self._found.append(dict(_secrets(layer)))
        self._names.update((number, m.inode) for m in layer.members if m.type == "file")
        hidden = lay_over(self._root, tree_of(layer, number))
        hidden = [one for one in hidden if one.before.type == "file"]
        same = self._same(hidden)
        # A file with one name overwritten and another deleted counts as deleted: that comes last.
        for path, before, now in sorted(hidden, key=lambda one: (_is_gone(one.now), one.path)):
            # The needed copy of the content; others are waste.
            key = self._copied.pop(path, before.inode)
            self._note_hidden(path, before.inode[0], number)
            if now is not None and path in same:
                self._copied[path] = key
                self._repeat(path, before, now)
            else:
                kind: WasteKind = "deleted" if _is_gone(now) else "overwritten"
                self._hide(key, number, kind, path, before)

    def _same(self, hidden: Iterable[Hidden]) -> set[str]:
        """Return the paths at which a layer has the same content as the layers below."""
        sized = [
            (path, before, now)
            for path, before, now in hidden
            if now and now.type == "file" and before.size == now.size > 0
        ]
        wanted = {node.inode: (path, node) for path, *both in sized for node in both}
        # In their order in the archive: going back in compressed data is slow.
        for key in sorted(wanted):
            if key not in self._sums:
                self._sums[key] = self._layers[key[0]].sha256(member_of(*wanted[key]))
        return {
            path for path, before, now in sized if self._sums[before.inode] == self._sums[now.inode]
        }

    def _repeat(self, path: str, before: LayerNode, now: LayerNode) -> None:
        """Record a second copy of some content in a layer."""
        if now.inode not in self._vain:
            self._vain.add(now.inode)
            old, new = ((node.mode, node.uid, node.gid) for node in (before, now))
            number = now.inode[0]
            self._add(number, "same" if old == new else "metadata", number, path, now.size)

    def _hide(self, key: Key, by: int, kind: WasteKind, path: str, file: LayerNode) -> None:
        """Hide a name of a file; with the last one, its content becomes waste."""
        self._names[key] -= 1
        if self._names[key] == 0 and key not in self._vain and file.size:
            self._add(key[0], kind, by, path, file.size)

    def _note_hidden(self, path: str, number: int, by: int) -> None:
        if path in self._found[number] or layer_names.cache(path, self._of_conda):
            self._hidden[number, path] = by + 1

    def _add(self, number: int, kind: WasteKind, by: int, path: str, size: int) -> None:
        self._waste.setdefault((number, kind, by), _Bytes()).add(path, size)

    def _leftovers(self, number: int, layer: Layer) -> Iterator[Leftover]:
        """Find caches in a layer. A file that also has a name elsewhere is in use."""
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
                    total.add(member.path, member.size)
            if total.files:
                by = {layer for layer in hidden[cache] if layer is not None}
                deleted_by = max(by) if None not in hidden[cache] else None
                yield Leftover(cache, total.size, total.files, total.named, deleted_by)


def _is_gone(now: LayerNode | None) -> bool:
    """Return whether a file was deleted that had the path of `now`."""
    return now is None or now.type == "directory"


def _secrets(layer: Layer) -> Iterator[tuple[str, tuple[str, LayerMember]]]:
    """Find secrets in a layer: their paths, and their kinds."""
    wanted = [
        member
        for member in layer.members
        if member.type == "file" and member.size and layer_names.may_be_secret(member.path)
    ]
    # In their order in the archive: going back in compressed data is slow.
    for member in sorted(wanted, key=lambda member: member.inode):
        if (what := layer.look(member)) is not None:
            yield member.path, (what, member)


def _told(instructions: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Find secrets in instructions of the image's history."""
    told: dict[tuple[str, str], None] = {}
    for line in instructions:
        written = instruction(line, len(line) or 1)
        for kind, _ in texts.in_words(written):
            told[written.partition(" ")[0][:20], kind] = None
    yield from itertools.islice(told, TOLD_LIMIT)
