"""The contents of promised files, as far as their names say what these must be."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import opened, shortened
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.files.facts import FileContents
from mlcheck.inspect.registry import fact
from mlcheck.machine import shell_syntax
from mlcheck.machine.shell_syntax import NotRead, syntax_error
from mlcheck.model.files import ResolvedFile
from mlcheck.profile.catalog import Profile

_LIMIT = 1024 * 1024
"""Bytes of a script that are read."""

_SHELLS = {".sh": "bash", ".bash": "bash", ".zsh": "zsh", ".csh": "csh", ".tcsh": "csh"}
_TEXTS = (".py", ".txt", ".md", ".rst", ".yml", ".yaml", ".toml", ".json", ".xml", ".pem", ".crt")
_MAGIC = {
    ".tgz": (b"\x1f\x8b", "gzip"),
    ".gz": (b"\x1f\x8b", "gzip"),
    ".bz2": (b"BZh", "bzip2"),
    ".xz": (b"\xfd7zXZ\0", "xz"),
    ".zst": (b"\x28\xb5\x2f\xfd", "zstd"),
    ".zip": (b"PK", "zip"),
    ".whl": (b"PK", "zip"),
    ".jar": (b"PK", "zip"),
}
_POINTER = b"version https://git-lfs.github.com/"
_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html|\?xml)", re.IGNORECASE)
_LIBRARY = re.compile(r"(lib.+)\.so((?:\.\d+)*)")
_STEM = re.compile(r"(.+?)\.so(?:\.\d+)*")
_INTERFACES = ("libblas", "libcblas", "liblapack", "liblapacke", "libmpi")
"""Libraries that are one of several others (OpenBLAS, MKL), under whose SONAME they are known."""


@fact()
def contents(ask: Ask, rootfs: RootFS, profile: Profile) -> FileContents:
    """Look into the promised files, and follow where promised links must lead."""
    targets = {path: expected.target for path, expected in profile.expect.files.items()}
    return ask(probe, rootfs, targets, shell_syntax.here())


def probe(rootfs: RootFS, targets: Mapping[str, str | None], shells: Sequence[str]) -> FileContents:
    """Look into files.

    Args:
        targets: the promised files, and what the profile says of the target of a link.
        shells: those of this machine that read scripts, on which the answer depends.

    Raises:
        ProbeError: this machine forbids reading one.
    """
    problems, places, unread = {}, {}, {}
    for path, target in targets.items():
        there = rootfs.resolve(path)
        if there.final is not None and there.final.type == "file":
            try:
                problem = judge(rootfs, path, there, shells)
            except NotRead as why:
                problem, unread[path] = None, str(why)
            if problem is not None:
                problems[path] = problem
        place = place_of(target)
        if place is not None:
            led = rootfs.resolve(place)
            places[path] = (led.final_path if led.final else None, there.final_path)
    return FileContents(problems, places, unread)


def place_of(target: str | None) -> str | None:
    """Return the path to which a promised link must lead: `*/opt/conda/bin/zsh` stands for that
    path, written with or without `..`; None if it is a pattern."""
    if target is None:
        return None
    place = target.removeprefix("*")
    return place if place.startswith("/") and not re.search(r"[*?\[]", place) else None


def judge(rootfs: RootFS, path: str, there: ResolvedFile, shells: Sequence[str]) -> str | None:
    """Return why a file is not of the kind that its name says, or None if it is.

    Args:
        there: the file at the path.

    Raises:
        NotRead: it is a script that no shell here can read.
        ProbeError: this machine forbids reading it.
    """
    name = path.rpartition("/")[2]
    suffix = next((s for s in (*_SHELLS, *_TEXTS, *_MAGIC) if name.endswith(s)), "")
    library = _LIBRARY.fullmatch(name)
    program = there.final is not None and there.final.mode & 0o111 and _is_program(path)
    if not (suffix or library or program):
        return None
    try:
        with opened(rootfs, path) as file:
            content = file.read(_LIMIT)
    except Unreadable as unreadable:
        return unreadable.what
    if library is None or library[2]:
        if not content.strip():
            return "is empty"
        if content.startswith(_POINTER):
            return "is a pointer of Git LFS, without the file"
    if library is not None:
        return _as_library(rootfs, path, library)
    if suffix in _MAGIC:
        magic, kind = _MAGIC[suffix]
        return None if content.startswith(magic) else f"is no {kind} file"
    if suffix in _SHELLS:
        return shell_problem(content, _SHELLS[suffix], shells)
    if suffix in _TEXTS:
        return "is no text: it has a null byte" if b"\0" in content else None
    if content.startswith((b"\x7fELF", b"#!")):
        return None
    return "is neither a program (ELF) nor a script that begins with #!"


def _is_program(path: str) -> bool:
    directory, _, name = path.rpartition("/")
    return directory.endswith(("/bin", "/sbin")) or "." not in name


def shell_problem(content: bytes, shell: str, shells: Sequence[str]) -> str | None:
    """Return why a file is no script of a shell ("bash", "zsh", "csh"), or None if it is.

    Raises:
        NotRead: none of `shells` can read it.
    """
    if b"\0" in content:
        return "is no shell script: it has a null byte"
    if _PAGE.match(content):
        return "is no shell script but a page (HTML or XML)"
    first, _, rest = content.partition(b"\n")
    interpreter = first.decode("utf-8", "replace") if first.startswith(b"#!") else ""
    if interpreter:
        if not fnmatch.fnmatchcase(interpreter, "*sh*"):
            return f"is no shell script: it begins with {shortened(interpreter)}"
        for one in ("zsh", "csh"):
            shell = one if one in interpreter else shell
    lines = rest.splitlines() if interpreter else content.splitlines()
    if all(line.strip().startswith(b"#") or not line.strip() for line in lines):
        return "has no command"
    if shell not in shells:
        raise NotRead(f"was not read: this machine has no {shell}")
    if len(content) == _LIMIT:
        raise NotRead(f"was not read: it has more than {_LIMIT} bytes")
    said = syntax_error(content, shell)
    return None if said is None else f"is no script of {shell}: {shortened(said, 200)}"


def _as_library(rootfs: RootFS, path: str, library: re.Match[str]) -> str | None:
    """Return why the loader finds in `libX.so.N` another library than the one that programs were
    linked with, or None."""
    try:
        soname = elf.read(rootfs, path).soname
    except Unreadable as unreadable:
        # libX.so may be a text for the linker.
        return unreadable.what if library[2] else None
    if soname is None or not library[2]:
        return None
    name = library[0]
    if name == soname or name.startswith(f"{soname}.") or soname.startswith(f"{name}."):
        return None
    known = _STEM.fullmatch(soname)
    if known is not None and known[1] != library[1] and library[1] in _INTERFACES:
        return None
    return f"is another library, {shortened(soname)}"
