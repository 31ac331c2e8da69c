"""conda's records of the files in a prefix, and the state of these files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from mlcheck.engines.base import Later
from mlcheck.model.files import Problem


@dataclass(frozen=True, slots=True)
class CondaRecord:
    """One `conda-meta/*.json`, without its files.

    Args:
        build: build string ("py311h1234567_0").
        subdir: platform of the package ("linux-64", "noarch"); "" if the record does not state it.
        depends: its needs, each as conda writes it ("python >=3.11,<3.12.0a0").
        record: path of the file.
    """

    name: str
    version: str
    build: str
    subdir: str
    depends: tuple[str, ...]
    record: str


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file that a record lists.

    Args:
        package: name of the record.
        record: path of the record.
        type: "hardlink", "softlink", "directory", "pyc_file", "unix_python_entry_point", ...; ""
            when only the list `files` has it.
        sha256: of the file in the package, 64 hex digits, or None.
        in_prefix: of the file as it was installed, or None.
        size: bytes of the file in the package, or None.
        placeholder: the prefix of the machine that built the package, as it occurs in the file, or
            None if the record does not state it.
        binary: True if the prefix is replaced as in a binary file, padded with NUL bytes.
    """

    path: str
    package: str
    record: str
    type: str
    sha256: str | None = None
    in_prefix: str | None = None
    size: int | None = None
    placeholder: str | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True)
class CondaRecords:
    """All records of one prefix.

    Args:
        files: only those that the profile names, except in `AllRecords`.
    """

    prefix: str
    records: tuple[CondaRecord, ...]
    files: tuple[RecordedFile, ...]
    problems: tuple[Problem, ...] = ()


AllRecords = NewType("AllRecords", Later[CondaRecords])
"""The records with every file, which only other probes need."""


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file that is not as a record has it.

    Args:
        packages: names of the packages that list it.
        found, recorded: the state found and the state recorded, in words.
    """

    path: str
    packages: tuple[str, ...]
    found: str
    recorded: str


@dataclass(frozen=True, slots=True)
class FilePresence:
    """The recorded files that exist, and those that do not.

    Args:
        compared: number of files that were looked for.
        missing: at most `mlcheck.inspect.conda.probe.MOST_MISSING`.
        uncompiled: number of missing files that are byte code, which Python makes anew.
        more: number of missing files that are not among `missing`.
    """

    compared: int
    missing: tuple[FileDifference, ...]
    uncompiled: int = 0
    more: int = 0


@dataclass(frozen=True, slots=True)
class FileContents:
    """The recorded files whose content is the one from their package, and the others.

    Args:
        compared: number of files that exist and have a recorded hash.
        hashed, size: number of files that were read for the comparison, and their bytes.
        changed: files with other content.
        relocated: number of files with the prefix in place of the placeholder, as the record says.
        rewritten: scripts that differ only in the interpreter's path in their first line.
        unjudged: files that contain the prefix, while the record knows only the content before the
            prefix was put in.
    """

    compared: int
    hashed: int
    size: int
    changed: tuple[FileDifference, ...]
    relocated: int = 0
    rewritten: tuple[str, ...] = ()
    unjudged: tuple[FileDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class Replacement:
    """A file that an image has in place of a conda package's.

    Args:
        by: the file that it should equal, or "" if the profile names none.
        problem: what it is instead of that, or of a file of its kind; "" if it is right.
    """

    path: str
    by: str
    problem: str


@dataclass(frozen=True, slots=True)
class Replacements:
    """The recorded files that the profile says are replaced."""

    files: tuple[Replacement, ...]


@dataclass(frozen=True, slots=True)
class StaleByteCode:
    """Byte code that Python runs although its source is another.

    Args:
        found: how they differ, in words.
    """

    path: str
    source: str
    found: str


@dataclass(frozen=True, slots=True)
class ByteCode:
    """Byte code that Python does not check.

    Args:
        compared: number of such files.
    """

    compared: int
    stale: tuple[StaleByteCode, ...] = ()
