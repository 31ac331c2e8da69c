"""The prefix in conda's files: how it was put in, and how scripts' first lines were rewritten."""

from __future__ import annotations

import posixpath
import re

from mlcheck.image.api import RootFS
from mlcheck.inspect.answers import shortened
from mlcheck.inspect.conda.facts import RecordedFile

_PLACEHOLDER = re.compile(rb"/[^\0\s:'\"]*_placehold_placehold[^\0\s:'\"/]*")
"""Pattern with which conda-build pads the prefix of the machine that builds a package."""

_PYTHON = re.compile(r"python[23]?(\.\d+)?t?(-nohome)?")


def has_placeholder(content: bytes) -> bool:
    """Return whether a file still has the prefix of the machine that built its package."""
    return _PLACEHOLDER.search(content) is not None


def other_shebangs(content: bytes, prefix: str) -> list[bytes]:
    """Return a script as it may have been before its first line was rewritten."""
    if not content.startswith(b"#!"):
        return []
    _, _, rest = content.partition(b"\n")
    names = ["python", "python3", *(f"python3.{minor}" for minor in range(6, 20))]
    first = [f"#!{start}{name}" for start in (f"{prefix}/bin/", "/usr/bin/env ") for name in names]
    return [line.encode() + b"\n" + rest for line in first]


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


def before(content: bytes, prefix: bytes, placeholder: bytes, binary: bool) -> bytes:
    """Reconstruct a file as it was in its package, as far as the installed one allows."""
    if not binary:
        return content.replace(prefix, placeholder)
    pad = len(placeholder) - len(prefix)

    def undone(match: re.Match[bytes]) -> bytes:
        times = match[1].count(prefix)
        zeros = len(match[2]) - times * pad
        return match[1].replace(prefix, placeholder) + b"\0" * max(zeros, 0)

    return re.sub(rb"([^\0]*" + re.escape(prefix) + rb"[^\0]*)(\0*)", undone, content)


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
