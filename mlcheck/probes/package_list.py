"""The package list of an image: `/list-of-pkgs-inside.txt`, or its checked-in copy.

Two generations are known. The older begins with micromamba's header and a ruler of box-drawing
characters, then come conda's packages, the system's (`bzip2.x86_64 1.0.6-13.el7`) and
micromamba. The newer has neither header nor ruler and is sorted, so that a header, if one slips
in, may stand anywhere.
"""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

from mlcheck.engines.base import RootFS, Unreadable
from mlcheck.errors import UsageError
from mlcheck.facts import ListedPackage, PackageList, Problem
from mlcheck.probes.reading import shortened

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes; five hundred times the longest real list."""

PROBLEM_LIMIT = 100
"""Lines reported one by one."""

_BOM = b"\xef\xbb\xbf"
# Names of conda, PyPI and rpm (with .arch); versions of all three, which always hold a digit:
# that tells a package from a line of prose.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_VERSION = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9][A-Za-z0-9_.!+~^:-]*")
_RULER = re.compile(r"[\u2500-\u257f\s-]+")
_HEADER = re.compile(r"(?:name|package)\s+version(?:\s+build)?(?:\s+channel)?", re.IGNORECASE)


def parse(data: bytes, path: str) -> PackageList:
    """Parse a package list of any generation.

    Args:
        path: where `data` was read, for the fact and its problems.
    """
    entries: list[ListedPackage] = []
    problems: list[Problem] = []
    strange = 0
    columns = 2
    for number, raw in enumerate(io.BytesIO(data.removeprefix(_BOM)), start=1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            what = f"is not UTF-8: {shortened(raw.decode('utf-8', 'backslashreplace'))}"
        else:
            words = line.split()
            if not words or _RULER.fullmatch(line):
                continue
            if _HEADER.fullmatch(line):
                columns = max(columns, len(words))
                continue
            if (
                2 <= len(words) <= columns
                and _NAME.fullmatch(words[0])
                and _VERSION.fullmatch(words[1])
            ):
                entries.append(ListedPackage(words[0], words[1], number))
                continue
            what = f"is no line `name version`: {shortened(line)}"
        strange += 1
        if strange <= PROBLEM_LIMIT:
            problems.append(Problem(f"{path}:{number}", what))
    if strange > PROBLEM_LIMIT:
        problems.append(Problem(path, f"has {strange - PROBLEM_LIMIT} more such lines"))
    if not entries:
        problems.append(Problem(path, "lists no package" if data.strip() else "is empty"))
    return PackageList(path, tuple(entries), tuple(problems))


def read(rootfs: RootFS, path: str = "/list-of-pkgs-inside.txt") -> PackageList:
    """The package list in the image; one that cannot be read gives a Problem.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    try:
        data = rootfs.read(path, SIZE_LIMIT)
    except Unreadable as unreadable:
        return PackageList(path, (), (Problem(unreadable.path, unreadable.what),))
    return parse(data, path)


def read_host_file(path: Path) -> PackageList:
    """A checked-in copy of the list, on the user's machine.

    Raises:
        UsageError: there is no such file, it cannot be read, or it is no package list.
    """
    try:
        # Not blocking, so that a FIFO is told from a file instead of being waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _no_list(path, "is no regular file")
            if status.st_size > SIZE_LIMIT:
                raise _no_list(path, f"is larger than {SIZE_LIMIT // 1024**2} MiB")
            found = parse(file.read(SIZE_LIMIT), str(path))
    except OSError as error:
        raise _no_list(path, f"cannot be read ({error.strerror})") from None
    if len(found.entries) <= len(found.problems):
        raise _no_list(path, found.problems[-1].what if not found.entries else "is something else")
    return found


def _no_list(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} {why}; expected a package list with lines `name version`.",
        "Give the checked-in copy of the image's /list-of-pkgs-inside.txt.",
    )
