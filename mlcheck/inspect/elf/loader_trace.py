"""The dynamic loader's list with LD_TRACE_LOADED_OBJECTS set (ld.so(8))."""

from __future__ import annotations

import posixpath
import re

_FOUND = re.compile(r"\t(?:(?P<soname>\S+) => )?(?P<path>/.*) \(0x[0-9a-f]+\)")
_MISSING = re.compile(r"\t(?P<soname>\S+) => not found")
_MOST = 20_000


def loaded(output: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return sonames with their resolved paths (`..` taken out), and those not found."""
    lines = output.split("\n")[:_MOST]
    found = {}
    for line in lines:
        if match := _FOUND.fullmatch(line):
            found[match["soname"] or match["path"]] = posixpath.normpath(match["path"])
    missing = (match["soname"] for line in lines if (match := _MISSING.fullmatch(line)))
    return found, tuple(dict.fromkeys(missing))
