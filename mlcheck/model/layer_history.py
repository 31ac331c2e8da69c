"""Lines of an image's history, made readable."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SHELL = re.compile(r"^(?:RUN )?(?:\|\d+ .*?)?/bin/(?:ba)?sh (?:-\w+ \w+ )?-c ")
"""Prefix by which docker records RUN, after the build's arguments."""

_CHECKSUM = re.compile(r"(?<=:)([0-9a-f]{8})[0-9a-f]{56}\b")


@dataclass(frozen=True, slots=True)
class LayerHistory:
    """The part of an image's history that belongs to one layer.

    Args:
        created_by: the line of the instruction that made it.
        instructions: that line, and those of instructions behind it that made no layer; with the
            lowest layer also those before it.
    """

    created_by: str
    instructions: tuple[str, ...] = ()


UNKNOWN = LayerHistory("")
"""The history of a layer, of which the image says nothing."""


def instruction(created_by: str, width: int) -> str:
    """Restore the instruction as it was written from a history line, cut to a width."""
    if not created_by:
        return "no build history"
    line = " ".join(created_by.split()).removesuffix("# buildkit").strip()
    line = _SHELL.sub("RUN ", line.replace("/bin/sh -c #(nop) ", "", 1).strip())
    line = _CHECKSUM.sub(r"\1", line)
    return line if len(line) <= width else f"{line[: width - 3]}..."
