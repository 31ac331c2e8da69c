"""The prefix in conda's files: how it was put in, and how scripts' first lines were rewritten."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from mlcheck.image.api import RootFS
from mlcheck.inspect.answers import shortened
from mlcheck.inspect.conda.facts import RecordedFile

SCRIPT_LIMIT = 16 * 1024**2
"""Bytes of a script whose first line may have been rewritten; the largest known has 2 MB."""

MOST_REPLACED = 1_000_000
"""Places in a binary file at which the prefix was put in; real ones have some thousands."""

_PIECE = 1024**2
_PADDING = b"_placehold_placehold"
"""The text with which conda-build pads the prefix of the machine that builds a package."""

_ENDS_PATH = re.compile(rb"[\0\s:'\"]")
_ZEROS = re.compile(rb"\0*+")

_PYTHON = re.compile(r"python[23]?(\.\d+)?t?(-nohome)?")


def has_placeholder(content: bytes) -> bool:
    """Return whether a file still has the prefix of the machine that built its package: a path with
    the padding in it."""
    at = 0
    while (found := content.find(_PADDING, at)) >= 0:
        slash = content.rfind(b"/", at, found)
        if slash >= 0 and not _ENDS_PATH.search(content, slash, found):
            return True
        at = found + 1
    return False


def other_shebangs(content: bytes, prefix: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield a script as it may have been before its first line was rewritten: that line, and the
    rest."""
    if not content.startswith(b"#!") or len(content) > SCRIPT_LIMIT:
        return
    _, _, rest = content.partition(b"\n")
    names = ["python", "python3", *(f"python3.{minor}" for minor in range(6, 20))]
    for start in (f"{prefix}/bin/", "/usr/bin/env "):
        for name in names:
            yield f"#!{start}{name}\n".encode(), rest


def missing_python(rootfs: RootFS, content: bytes, prefix: str) -> str:
    """Return why a script's first line starts no Python of this image, or "" if it does one."""
    line = content.partition(b"\n")[0][2:512].decode("utf-8", "replace").strip()
    words = line.split()
    program = words[0] if words else ""
    said = f"a first line #!{shortened(line)}"
    name = posixpath.basename(program)
    places = [program]
    if name == "env":
        asked = (word for word in words[1:] if not word.startswith("-") and "=" not in word)
        name = next(asked, "")
        places = [f"{path}/{name}" for path in (f"{prefix}/bin", "/usr/local/bin", "/usr/bin")]
    if not _PYTHON.fullmatch(name):
        return f"{said}, which is no Python"
    if not any(place.startswith("/") and _is_file(rootfs, place) for place in places):
        return f"{said}, which is not in the image"
    return ""


def _is_file(rootfs: RootFS, path: str) -> bool:
    final = rootfs.resolve(path).final
    return final is not None and final.type == "file"


def before(content: bytes, prefix: bytes, placeholder: bytes, binary: bool) -> Iterator[bytes]:
    """Yield, piece by piece, a file as it was in its package, as far as the installed one allows.

    conda and mamba put the prefix in place of the placeholder. In a binary file, where no byte may
    move, they add as many zeros at the end of each text as it has become shorter
    (https://github.com/conda/conda/blob/main/conda/core/portability.py). A file that has fewer is
    yielded as it is from there on.
    """
    at = 0
    if binary and content.count(prefix) <= MOST_REPLACED:
        pad = len(placeholder) - len(prefix)
        while (found := content.find(prefix, at)) >= 0:
            start = max(at, content.rfind(b"\0", at, found) + 1)
            end = content.find(b"\0", found)
            end = len(content) if end < 0 else end
            zeros = _ZEROS.match(content, end)
            assert zeros is not None
            left = zeros.end() - end - pad * content.count(prefix, start, end)
            if left < 0:
                break
            yield content[at:start]
            yield from _replaced(content[start:end], prefix, placeholder)
            yield bytes(left)
            at = zeros.end()
    if binary:
        yield content[at:]
    else:
        yield from _replaced(content, prefix, placeholder)


def _replaced(content: bytes, prefix: bytes, placeholder: bytes) -> Iterator[bytes]:
    """Yield the content with the placeholder for each prefix, which may be far longer."""
    at = 0
    while at < len(content):
        piece = content[at : at + _PIECE]
        parts = piece.split(prefix)
        at += len(piece)
        # The beginning of a prefix at the end is left to the next piece.
        left = min(len(parts[-1]), len(prefix) - 1) if at < len(content) else 0
        yield placeholder.join(parts)[: -left or None]
        at -= left


def may_be_relocated(entry: RecordedFile, content: bytes, prefix: bytes) -> bool:
    """Return whether the record may only know the file as it was before the prefix was put in."""
    if not plain(entry) or entry.size is None:
        return False
    times = content.count(prefix)
    if b"\0" in content:
        return times > 0 and entry.size == len(content)
    # The placeholder has up to 255 bytes (conda-build), and the same length everywhere.
    grown = entry.size - len(content)
    return any(
        grown > 0 and grown % n == 0 and grown // n + len(prefix) in range(80, 256)
        for n in range(1, times + 1)
    )


def plain(entry: RecordedFile) -> bool:
    """Return whether the record mentions no prefix in the file."""
    return entry.placeholder is None and entry.in_prefix in (None, entry.sha256)
