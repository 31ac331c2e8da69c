"""Shared parts of the commands by which people look at an image's files."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Sequence
from pathlib import Path

from mlcheck.image.api import RootFS
from mlcheck.model import shell_words

TOOLS = ("/bin/", "/usr/bin/")
"""Directories in which an image has the usual tools for looking at files."""

LIST = ("ls", "-ld")
"""The command for a file that is better not opened."""

_PRINTED = 1024 * 1024
"""Most bytes of a file that is printed."""


def words_for(rootfs: RootFS, tool: str, paths: Sequence[str]) -> list[str]:
    """Return the tool with its options; `ls` instead if it could wait forever, or fill a screen.

    Raises:
        ProbeError: this machine does not allow looking.
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
    """Return the paths without symlinks that a program outside of the image would follow out of it:
    of the files themselves, and for `ls` also of the links that lead to them.

    Raises:
        ProbeError: this machine does not allow looking.
    """
    found: list[str] = []
    for path in paths:
        there = rootfs.resolve(path)
        if words[0] == "ls" and there.file is not None and there.file.type == "symlink":
            parent, name = posixpath.split(path.rstrip("/"))
            found.append(posixpath.join(rootfs.resolve(parent).final_path, name))
        found.append(there.final_path)
    return list(dict.fromkeys(found))


def in_directory(directory: Path, words: Sequence[str], files: Sequence[str]) -> str:
    """Return the command for files of an image that lies unpacked in a directory of
    this machine."""
    return shell_words.joined([*words, *(f"{directory}{file}" for file in files)])
