"""Facts: what probes found in an image. Frozen data without any judgement.

Every path is absolute *inside the image* (`/opt/conda/bin/root.exe`). What an image holds may be
broken or hostile; a probe that meets such a thing does not raise, it records a `Problem` in the
fact, and a check decides what it means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the image that a probe could not make sense of.

    Args:
        path: where in the image, with `:LINE` behind it when a line is known.
        what: what is wrong with it, in words that follow the path ("is a FIFO").
    """

    path: str
    what: str


FileType = Literal["file", "directory", "symlink", "fifo", "socket", "block", "char"]


@dataclass(frozen=True, slots=True)
class File:
    """One file of the image, not following a final symlink.

    Args:
        mode: permission bits with set-uid, set-gid and sticky (`stat.S_IMODE`).
        size: bytes.
        target: where a symlink points, as it is written; None for other types.
        inode: device and inode number, equal for hard links of one file.
    """

    path: str
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None = None
    inode: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A promised path and what is there.

    Args:
        path: as it was asked for.
        file: what is there itself (a symlink is not followed); None when nothing is.
        final: what it leads to inside the image after all symlinks; None when it leads nowhere
            (dangling, a loop, out of a directory that is a file).
        final_path: the path of `final`, or the last path that was reached.
        problem: why `final` is None, in words.
    """

    path: str
    file: File | None
    final: File | None
    final_path: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """The answers for the promised paths, by path."""

    files: Mapping[str, ResolvedFile]


@dataclass(frozen=True, slots=True)
class OsRelease:
    """`/etc/os-release` and, on CentOS 7, `/etc/centos-release`.

    Args:
        fields: the assignments of os-release(5), unquoted.
        release_file: first line of /etc/redhat-release or /etc/centos-release, or None.
    """

    fields: Mapping[str, str]
    release_file: str | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """What the image's configuration says about how it is started.

    Args:
        env: variables of the configuration (not of a shell).
        entrypoint, cmd: argv lists; None when the image does not tell.
        labels: None when the image does not tell.
        source: where this was read, for people ("/.singularity.d/env/10-docker2singularity.sh").
    """

    env: Mapping[str, str]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    user: str | None
    workdir: str | None
    exposed: tuple[str, ...]
    labels: Mapping[str, str] | None
    source: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedPackage:
    """One line of a package list: name and version as written, and the line number from 1."""

    name: str
    version: str
    line: int


@dataclass(frozen=True, slots=True)
class PackageList:
    """A package list: `/list-of-pkgs-inside.txt` or its checked-in copy.

    Args:
        path: where it was read.
        entries: in the order of the file; one name may rightly stand there with two versions.
        problems: lines that are neither package, header nor ruler; or why nothing was read.
    """

    path: str
    entries: tuple[ListedPackage, ...]
    problems: tuple[Problem, ...] = ()


PackageSource = Literal["conda", "dist-info", "rpm", "dpkg", "micromamba"]


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """One package that is really there.

    Args:
        version: for rpm and dpkg with the release ("1.0.8-8.el9"), without an epoch.
        source: which database or record says so.
        record: path of that record in the image.
        arch: rpm's or dpkg's architecture, else "".
        owner: for a dist-info, name of the conda record that lists it among its files, else "".
    """

    name: str
    version: str
    source: PackageSource
    record: str
    arch: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class InstalledPackages:
    """All packages found, sorted by source and name.

    Args:
        sources: the sources that could be read at all; the database of system packages that is
            not among them was looked for and could not be read (`notes` says why).
        notes: what was not read and why, for people.
    """

    packages: tuple[InstalledPackage, ...]
    sources: frozenset[PackageSource]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ElfFile:
    """What the dynamic loader would know of one ELF file.

    Args:
        bits: 32 or 64.
        machine: lief's name of e_machine ("X86_64", "AARCH64").
        type: lief's name of e_type ("EXEC", "DYN", "REL", ...).
        rpath, runpath: DT_RPATH and DT_RUNPATH as written, or None; several tags joined by ":".
        needed: DT_NEEDED in order.
        soname: DT_SONAME.
        interpreter: PT_INTERP.
        dynamic: whether there is a dynamic section; without one the file is static.
    """

    path: str
    bits: int
    machine: str
    type: str
    rpath: str | None
    runpath: str | None
    needed: tuple[str, ...]
    soname: str | None
    interpreter: str | None
    dynamic: bool


@dataclass(frozen=True, slots=True)
class ElfFiles:
    """Every ELF file below some directories, by path; hard links and symlinks only once."""

    files: Mapping[str, ElfFile]
    scanned: int
    """How many regular files were looked at."""
    problems: tuple[Problem, ...] = ()
    """Files that begin as ELF and cannot be parsed (truncated, crafted)."""


@dataclass(frozen=True, slots=True)
class LibraryNeed:
    """One soname and where the loader finds it.

    Args:
        soname: what is asked for ("libGL.so.1").
        by: path of the ELF file that needs it; "" when nothing but the profile asks.
        path: what the loader would load, as found on its search path; None: not found.
        final_path: the same after all symlinks inside the image; None: not found.
        bits, machine: of the file found.
        searched: the directories that were looked at, in the loader's order.
        rejected: (path, reason) of candidates that the loader would not take.
    """

    soname: str
    by: str
    path: str | None
    final_path: str | None
    bits: int | None
    machine: str | None
    searched: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Libraries:
    """How the loader resolves libraries (ld.so(8)): RPATH, LD_LIBRARY_PATH, RUNPATH, cache,
    default directories."""

    needs: tuple[LibraryNeed, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command answered.

    Args:
        exit_code: 128+n for signal n as a shell says it; None when a limit ended it.
        stdout, stderr: decoded as UTF-8 with replacement characters.
        ended: "exited", or which limit ended it.
        seconds: wall time.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: str
    stderr: str
    ended: Literal["exited", "timeout", "output-limit"]
    seconds: float


@dataclass(frozen=True, slots=True)
class RootConfig:
    """`root-config --libs`: run, and read.

    Args:
        path: where root-config was found on PATH; None when it was not.
        run: the answer of `root-config --libs`; None when nothing can be started.
        text: the script itself; None when it is no readable text.
    """

    path: str | None
    run: CommandResult | None
    text: str | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernelspec:
    """One kernel.json.

    Args:
        name: name of its directory.
        path: path of kernel.json.
        argv0: what argv[0] resolves to on the image's PATH inside the image; None: nothing.
        env: variables that it sets.
    """

    name: str
    path: str
    argv: tuple[str, ...]
    display_name: str
    language: str
    metadata: Mapping[str, object]
    env: Mapping[str, str]
    argv0: str | None


@dataclass(frozen=True, slots=True)
class Kernelspecs:
    """All kernelspecs in the directories that Jupyter searches in the image.

    Args:
        searched: the directories, in Jupyter's order.
        listed: what `jupyter kernelspec list --json` said, name to directory; None when it
            could not be run (`note` says why).
    """

    specs: tuple[Kernelspec, ...]
    searched: tuple[str, ...]
    listed: Mapping[str, str] | None
    note: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class PythonInfo:
    """The Python that the image's PATH starts.

    Args:
        executable, prefix: `sys.executable` and `sys.prefix` as it says itself.
        version: "3.11.9".
    """

    executable: str
    prefix: str
    version: str


@dataclass(frozen=True, slots=True)
class PythonProbe:
    """`python3` run on the image's PATH; `info` is None when it did not answer."""

    info: PythonInfo | None
    result: CommandResult


@dataclass(frozen=True, slots=True)
class ImportResult:
    """One import in a fresh interpreter.

    Args:
        error: last line of the traceback, or how the interpreter ended; None: imported.
        seconds: wall time.
    """

    module: str
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Imports:
    """All the asked-for imports, in the order asked."""

    results: tuple[ImportResult, ...]


@dataclass(frozen=True, slots=True)
class Shell:
    """One shell started with `-c`.

    Args:
        path: as the profile names it.
        final_path: after all symlinks inside the image; None when there is nothing.
        result: the answer to `-c "echo mlcheck-$((6*7))"` or what fits the shell.
    """

    path: str
    final_path: str | None
    result: CommandResult | None


@dataclass(frozen=True, slots=True)
class Shells:
    """Some shells, each started once."""

    shells: tuple[Shell, ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """Some commands, each run once: name (as in the profile) to answer."""

    answers: Mapping[str, CommandResult]


@dataclass(frozen=True, slots=True)
class Script:
    """A file in `bin/` that begins with `#!`.

    Args:
        interpreter: the words of its first line after `#!`.
        resolved: what the first word (or, behind /usr/bin/env, the second on PATH) resolves to
            inside the image; None when nothing is there.
        mode: permission bits.
    """

    path: str
    interpreter: tuple[str, ...]
    resolved: str | None
    mode: int


@dataclass(frozen=True, slots=True)
class Scripts:
    """All scripts directly in the prefix's `bin/`."""

    scripts: tuple[Script, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class EntrypointRuns:
    """The entrypoint started with a command behind it, as `docker run IMAGE COMMAND` does.

    Args:
        exit_code: the answer to `bash -c "exit 7"`.
        words: the answer to `bash -c "echo two words"`.
    """

    exit_code: CommandResult
    words: CommandResult
