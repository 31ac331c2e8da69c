"""lief in a process of its own: what it finds in the ELF files that come on stdin.

So a file that makes it crash ends this process alone, and the half second that lief takes to be
imported passes while the caller walks through an image's files. This is a program, and the only
place that imports lief.

On stdin come ELF files, each behind its length (4 bytes, big-endian). Each is answered by one
line of JSON: the object of `described`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer until stdin ends, as it does with the process that started this one."""
    import lief

    # It writes what it dislikes about a file to stderr.
    lief.logging.disable()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while length := requests.read(4):
        content = requests.read(int.from_bytes(length, "big"))
        answers.write(json.dumps(described(lief.ELF, content)).encode() + b"\n")
        answers.flush()
    os._exit(0)  # without the tenth of a second in which lief is taken down


def described(elf: Any, content: bytes) -> dict[str, Any]:
    """The facts of one file, by the names of `mlcheck.facts.ElfFile`'s fields; {"problem": why}.

    Args:
        elf: lief.ELF.
        content: of a file that has a valid ELF header.
    """
    import io

    binary = elf.parse(io.BytesIO(content))
    if binary is None:
        return {"problem": "cannot be parsed as ELF"}
    entries = list(binary.dynamic_entries)

    def names(kind: Any, attribute: str) -> list[str]:
        return [_text(getattr(entry, attribute)) for entry in entries if isinstance(entry, kind)]

    order: Any = "little" if content[5] == 1 else "big"
    try:
        rpath = names(elf.DynamicEntryRpath, "rpath")
        runpath = names(elf.DynamicEntryRunPath, "runpath")
        return {
            "bits": 32 * content[4],
            # lief's own header does not tell numbers that it has no name for.
            "machine": _name(elf.ARCH, int.from_bytes(content[18:20], order)),
            "type": _name(elf.Header.FILE_TYPE, int.from_bytes(content[16:18], order)),
            "rpath": ":".join(rpath) if rpath else None,
            "runpath": ":".join(runpath) if runpath else None,
            "needed": names(elf.DynamicEntryLibrary, "name"),
            "soname": next(iter(names(elf.DynamicSharedObject, "name")), None),
        }
    except UnicodeDecodeError:
        return {"problem": "holds a name for the loader that is not UTF-8"}


def _text(found: str | bytes) -> str:
    """lief gives bytes for some of the texts that are not UTF-8; for others it raises."""
    return found if isinstance(found, str) else found.decode("utf-8")


def _name(names: Any, value: int) -> str:
    try:
        return str(names(value).name)
    except ValueError:
        return str(value)


if __name__ == "__main__":
    main()
