"""Separate files of debugging information, which debuggers read and no loader.

They have the headers of the program that they belong to, without its contents: sections of code are
marked as empty (SHT_NOBITS), which they are in no file that can be loaded (objcopy(1),
`--only-keep-debug`; eu-strip(1), `-f`).
"""

from __future__ import annotations

import struct

from mlcheck.image.api import Unreadable

_SHT_NOBITS = 8
_SHF_EXECINSTR = 4
_DIRECTORIES = frozenset(("debug", ".debug", ".build-id"))


class DebugFile(Unreadable):
    """A separate file of debugging information."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "has debugging information alone, and no code")

    @property
    def is_in_its_place(self) -> bool:
        """True if it lies where debuggers look, or is named for them: not in a library's place."""
        directory, _, name = self.path.rpartition("/")
        return name.endswith((".debug", ".dbg")) or not _DIRECTORIES.isdisjoint(
            directory.split("/")
        )


def are_sections(form: struct.Struct, table: bytes) -> bool:
    """Return whether these are the sections of a separate debug file.

    Args:
        form: name, type and flags of one.
        table: all of them; empty if they cannot be read.
    """
    return any(
        type_ == _SHT_NOBITS and flags & _SHF_EXECINSTR
        for _, type_, flags in form.iter_unpack(table)
    )
