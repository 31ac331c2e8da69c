"""lief in a process of its own: parse the ELF files that arrive on stdin.

So a file that makes lief crash ends this process alone, and the half second of importing lief
overlaps with the caller's walk through an image's files. This is a program, and the only
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

    # It writes its complaints about a file to stderr.
    lief.logging.disable()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while length := requests.read(4):
        content = requests.read(int.from_bytes(length, "big"))
        answers.write(json.dumps(described(lief.ELF, content)).encode() + b"\n")
        answers.flush()
    os._exit(0)  # without the tenth of a second in which lief is taken down


def described(elf: Any, content: bytes) -> dict[str, Any]:
    """Return the facts of one file, by the names of the fields of `ElfFile`; {"problem": reason} if
    it cannot be parsed.

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
        sonames = names(elf.DynamicSharedObject, "name")
        return {
            "bits": 32 * content[4],
            # lief's own header lacks the numbers that it has no name for.
            "machine": _name(elf.ARCH, int.from_bytes(content[18:20], order)),
            "type": _name(elf.Header.FILE_TYPE, int.from_bytes(content[16:18], order)),
            # Of several the loader goes by the last one.
            "rpath": rpath[-1] if rpath else None,
            "runpath": runpath[-1] if runpath else None,
            "needed": names(elf.DynamicEntryLibrary, "name"),
            "soname": sonames[-1] if sonames else None,
        }
    except UnicodeDecodeError:
        return {"problem": "holds a name for the loader that is not UTF-8"}


def _text(found: str | bytes) -> str:
    """Decode a text: lief returns bytes for some that are not UTF-8; for others it raises."""
    return found if isinstance(found, str) else found.decode("utf-8")


def _name(names: Any, value: int) -> str:
    try:
        return str(names(value).name)
    except ValueError:
        return str(value)


if __name__ == "__main__":
    main()
