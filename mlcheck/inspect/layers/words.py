"""Wasted bytes in layers, in words."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mlcheck.inspect.layers.facts import ImageLayer, Leftover, Secret, Waste, WasteKind
from mlcheck.inspect.layers.places import is_shown
from mlcheck.model.layer_history import instruction
from mlcheck.model.units import shown

_WORDS: dict[WasteKind, str] = {
    "metadata": "stored again, only owner or mode differ",
    "same": "stored again, unchanged",
    "deleted": "that {by} deletes",
    "overwritten": "that {by} replaces",
}
_NAMED = 3
_LINE = 100


def title(layer: ImageLayer) -> str:
    """Describe a layer for people: its number, and the line of the image's history."""
    return f"layer {layer.number} ({instruction(layer.created_by, _LINE)})"


def wasted(waste: Waste, by: str) -> str:
    """Describe wasted bytes.

    Args:
        by: the layer that caused them.
    """
    why = _WORDS[waste.kind].format(by=by)
    return f"{shown(waste.size)} {why}: {_files(waste.largest, waste.files)}"


def left_over(left: Leftover) -> str:
    """Describe a cache of a package manager."""
    files = _files(left.largest, left.files)
    return f"{shown(left.size)} of {left.cache}'s cache{later(left.deleted_by)}: {files}"


def later(deleted_by: int | None) -> str:
    """Return a clause about the layer that deletes the subject, or "" if no layer does."""
    return "" if deleted_by is None else f", deleted by layer {deleted_by}"


def reason(path: str, allowed: Mapping[str, str]) -> str | None:
    """Return the reason why a file is allowed, or None if there is none."""
    fitting = (why for glob, why in allowed.items() if fnmatch.fnmatchcase(path, glob))
    return next(fitting, None)


def published(secret: Secret) -> str | None:
    """Return the reason why a file is not secret, or None if there is none."""
    if secret.owned:
        return "a file of a package, as it was published"
    if secret.owned is None and secret.what == "private key" and is_shown(secret.path):
        return "a key of a package's own tests or examples, published with it"
    return None


def remarks(layer: ImageLayer) -> Iterator[str]:
    """Describe a layer's wasted bytes, a line each."""
    for waste in layer.waste:
        yield wasted(waste, f"layer {waste.by}")
    yield from map(left_over, layer.leftovers)
    none: Counter[str] = Counter()
    for secret in layer.secrets:
        if why := published(secret):
            none[why] += 1
        else:
            yield f"{secret.what}{later(secret.deleted_by)}: {secret.path}"
    for said, kind in layer.told:
        yield f"{kind} in {said}"
    for why, count in none.items():
        yield f"{count} that look like secrets are none: {why}"


def _files(largest: Sequence[tuple[str, int]], count: int) -> str:
    named = [f"{path} ({shown(size)})" for path, size in largest[:_NAMED]]
    more = [f"{count - len(named)} more"] if count > len(named) else []
    return ", ".join([*named, *more])
