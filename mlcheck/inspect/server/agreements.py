"""Statements that several files make, and that must agree."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.server.facts import Agreements, Written

LIMIT = 1024 * 1024
_CHARACTERS = 200


def probe(rootfs: RootFS, asked: Mapping[str, Mapping[str, str]]) -> Agreements:
    """Read the text at group 1 of each expression in each file.

    Args:
        asked: by name, by path (with `*`), a regular expression.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    said = {}
    for name, places in asked.items():
        found: list[Written] = []
        for pattern, expression in places.items():
            paths = list(_fitting(rootfs, "/", pattern.strip("/").split("/")))
            found += [Written(pattern, path, _text(rootfs, path, expression)) for path in paths]
            if not paths:
                found.append(Written(pattern, "", None))
        said[name] = tuple(found)
    return Agreements(said)


def _fitting(rootfs: RootFS, directory: str, parts: list[str]) -> Iterator[str]:
    """Yield the files whose path matches, part by part."""
    for name in rootfs.listdir(directory):
        if fnmatch.fnmatchcase(name, parts[0]):
            path = f"{directory.rstrip('/')}/{name}"
            if parts[1:]:
                yield from _fitting(rootfs, path, parts[1:])
            elif (final := rootfs.resolve(path).final) and final.type == "file":
                yield path


def _text(rootfs: RootFS, path: str, expression: str) -> str | None:
    try:
        content = rootfs.read(path, LIMIT).decode("utf-8", "replace")
    except Unreadable:
        return None
    match = re.search(expression, content)
    return match[1][:_CHARACTERS] if match else None
