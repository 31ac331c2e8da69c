"""Paths for the dynamic loader: their tokens ($ORIGIN, $LIB, $PLATFORM), and lists of them.

glibc's rules are in ld.so(8), "Dynamic string tokens", and `elf/dl-load.c`; musl's in
`ldso/dynlink.c` (`fixup_rpath`, `path_open`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM))(?![A-Za-z0-9_])")
_MUSL_TOKEN = re.compile(r"\$(?:ORIGIN|\{ORIGIN\})")


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Replace tokens as glibc does: what looks like one and is none ($ORIGINAL) stays.

    Args:
        values: of ORIGIN, LIB and PLATFORM.
    """
    if "$" not in text:
        return text
    return _TOKEN.sub(lambda token: values[token[1] or token[2]], text)


def expanded_by_musl(text: str, origin: str) -> str:
    """Replace tokens in a whole RPATH as musl does, which ignores it if it has any but $ORIGIN."""
    replaced = _MUSL_TOKEN.sub(lambda _: origin, text)
    return replaced if text.count("$") == len(_MUSL_TOKEN.findall(text)) else ""


def entries(text: str, separators: str = ":") -> list[str]:
    """Split a list of directories as glibc does: one without any text counts as none at all, and an
    empty entry is the working directory."""
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    return text.split(separators[0]) if text else []


def entries_of_musl(text: str) -> list[str]:
    """Split a list of directories as musl does, which skips empty entries."""
    return [entry for line in text.split("\n") for entry in line.split(":") if entry]
