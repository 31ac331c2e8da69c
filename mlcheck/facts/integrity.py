"""What conda's records promise of the prefix's files, and what the packages need of each other."""

from __future__ import annotations

from dataclasses import dataclass

from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class CondaRecord:
    """One `conda-meta/*.json`, without its files.

    Args:
        build: build string ("py311h1234567_0").
        subdir: platform of the package ("linux-64", "noarch"); "" when the record does not tell.
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
        placeholder: the prefix of the machine that built the package, where it stands in the file
            and the record tells; None otherwise.
        binary: whether the prefix is replaced as in a binary file, with NUL bytes behind it.
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
    """All records of one prefix."""

    prefix: str
    records: tuple[CondaRecord, ...]
    files: tuple[RecordedFile, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file that is not as a record has it.

    Args:
        packages: names of the packages that list it.
        found, recorded: what is there and what should be, in words.
    """

    path: str
    packages: tuple[str, ...]
    found: str
    recorded: str


@dataclass(frozen=True, slots=True)
class FilePresence:
    """Which of the recorded files are there.

    Args:
        compared: how many were looked for.
        uncompiled: how many of them are byte code that is not there, which Python makes anew.
    """

    compared: int
    missing: tuple[FileDifference, ...]
    uncompiled: int = 0


@dataclass(frozen=True, slots=True)
class FileContents:
    """Which of the recorded files have the content that their package put there.

    Args:
        compared: how many have a recorded hash and are there.
        hashed, size: how many files were read for that, and their bytes.
        changed: the others.
        relocated: how many have the prefix in place of the placeholder, as the record says.
        rewritten: scripts that differ in the interpreter's place in their first line alone.
        unjudged: files with the prefix in them of which the record only knows the content
            before it was put there.
    """

    compared: int
    hashed: int
    size: int
    changed: tuple[FileDifference, ...]
    relocated: int = 0
    rewritten: tuple[str, ...] = ()
    unjudged: tuple[FileDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """A Python package as its metadata tells.

    Args:
        requires: its Requires-Dist lines as written.
        path: of the metadata.
    """

    name: str
    version: str
    requires: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Distributions:
    """All Python packages of the prefix.

    Args:
        python: leading parts of the version of the prefix's Python ("3.11"), "" without one.
    """

    python: str
    distributions: tuple[Distribution, ...]
    problems: tuple[Problem, ...] = ()
