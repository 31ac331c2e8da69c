"""The package list of an image: `/list-of-pkgs-inside.txt`, or its checked-in copy.

Two generations are known. The older begins with micromamba's header and a ruler of box-drawing
characters, then come conda's packages, the system's (`bzip2.x86_64 1.0.6-13.el7`) and
micromamba. The newer has neither header nor ruler and is sorted, so that a header, if one slips
in, may be anywhere.
"""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import shortened
from mlcheck.inspect.packages.facts import ListedPackage, PackageList
from mlcheck.model.errors import UsageError
from mlcheck.model.files import Problem

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes; five hundred times the longest real list."""

ENTRIES_LIMIT = 100_000
"""Packages; a hundred times as many as the longest real list has."""

PROBLEM_LIMIT = 100
"""Lines reported one by one."""

_BOM = b"\xef\xbb\xbf"
# Names of conda, PyPI and rpm (with .arch); versions of all three, which always hold a digit:
# that distinguishes a package from a line of prose.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_VERSION = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9][A-Za-z0-9_.!+~^:-]*")
_RULER = re.compile(r"[\u2500-\u257f \t-]+")
_HEADERS = ("name version", "package version")
_MORE_COLUMNS = ("", " build", " channel", " build channel")


def parse(data: bytes, path: str) -> PackageList:
    """Parse a package list of any generation.

    Args:
        path: origin of `data`, for the fact and its problems.
    """
    entries: list[ListedPackage] = []
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    returns: list[int] = []
    strange = 0
    columns = 2
    for number, raw in enumerate(io.BytesIO(data.removeprefix(_BOM)), start=1):
        try:
            line = raw.decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError:
            what = f"is not UTF-8: {shortened(raw.decode('utf-8', 'backslashreplace'))}"
        else:
            # What is taken off and told of, so that the list is not empty because of it.
            text = line.removesuffix("\r").strip(" \t")
            words = [word for word in text.replace("\t", " ").split(" ") if word]
            header = " ".join(words).lower()
            what = ""
            if line.endswith("\r"):
                returns.append(number)
            if header.startswith(_HEADERS) and header.partition(" version")[2] in _MORE_COLUMNS:
                columns = max(columns, len(words))
            elif not words or _RULER.fullmatch(text):
                pass
            elif (
                2 <= len(words) <= columns
                and _NAME.fullmatch(words[0])
                and _VERSION.fullmatch(words[1])
            ):
                if len(entries) == ENTRIES_LIMIT:
                    what = f"is behind {ENTRIES_LIMIT} packages: what follows is not read"
                    problems.append(Problem(f"{path}:{number}", what))
                    break
                first = lines.setdefault(" ".join(words), number)
                if first == number:
                    entries.append(ListedPackage(words[0], words[1], number))
                else:
                    what = f"is line {first} again: {shortened(text)}"
            else:
                what = f"is no line `name version`: {shortened(text)}"
                if not text.isascii():
                    what += f", which are the characters {shortened(ascii(text))}"
        if not what:
            continue
        strange += 1
        if strange <= PROBLEM_LIMIT:
            problems.append(Problem(f"{path}:{number}", what))
    if strange > PROBLEM_LIMIT:
        problems.append(Problem(path, f"has {strange - PROBLEM_LIMIT} more such lines"))
    if returns:
        more = f", as {len(returns) - 1} others do" if len(returns) > 1 else ""
        what = f"ends with a carriage return{more}: other programs take it for a part of the line"
        problems.append(Problem(f"{path}:{returns[0]}", what))
    if entries and data.startswith(_BOM):
        problems.append(Problem(f"{path}:1", "begins with a byte order mark"))
    if not entries:
        problems.append(Problem(path, "lists no package" if data.strip() else "is empty"))
    return PackageList(path, tuple(entries), tuple(problems))


def read(rootfs: RootFS, path: str = "/list-of-pkgs-inside.txt") -> PackageList:
    """Read the package list in the image; one that cannot be read gives a Problem.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    try:
        data = rootfs.read(path, SIZE_LIMIT)
    except Unreadable as unreadable:
        return PackageList(path, (), (Problem(unreadable.path, unreadable.what),))
    return parse(data, path)


def read_host_file(path: Path) -> PackageList:
    """Read a checked-in copy of the list, on the user's machine.

    Raises:
        UsageError: there is no such file, it cannot be read, or it is no package list.
    """
    try:
        # Not blocking, so that a FIFO is recognised and not waited for.
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
