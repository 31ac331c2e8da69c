"""What the engines share of the commands by which people look at an image's files."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Sequence

from mlcheck.engines.base import RootFS

TOOLS = ("/bin/", "/usr/bin/")
"""Where an image has what people look at files with."""

LIST = ("ls", "-ld")
"""How a file is looked at that had better not be opened."""

_PRINTED = 1024 * 1024
"""Bytes of a file that people can still look at."""


def words_for(rootfs: RootFS, tool: str, paths: Sequence[str]) -> list[str]:
    """The tool with its options; `ls` in its place where it could wait for ever, or fill a screen.

    Raises:
        ProbeError: this machine forbids looking.
    """
    words = shlex.split(tool)
    if words[0] == "ls":
        return words
    for path in paths:
        final = rootfs.resolve(path).final
        if final is None:
            continue
        inside = final.type == "directory" and words[0] in ("grep", "find")
        if final.type != "file" and not inside:
            return [*LIST]
        if words[0] == "cat" and final.size > _PRINTED:
            return [*LIST]
    return words


def places(rootfs: RootFS, words: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The paths with no symlink left that something outside of the image would follow out of it:
    of the files themselves, and for `ls` also of the links that lead to them.

    Raises:
        ProbeError: this machine forbids looking.
    """
    found: list[str] = []
    for path in paths:
        there = rootfs.resolve(path)
        if words[0] == "ls" and there.file is not None and there.file.type == "symlink":
            parent, name = posixpath.split(path.rstrip("/"))
            found.append(posixpath.join(rootfs.resolve(parent).final_path, name))
        found.append(there.final_path)
    return list(dict.fromkeys(found))
