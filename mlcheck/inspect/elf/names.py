"""Every name of an ELF file: hard links, links to programs, and links that Python follows."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.elf.facts import ElfFiles
from mlcheck.inspect.prefix.probe import package_directories

LINK_LIMIT = 200
"""Links out of the prefix that are followed; real images have none or a few."""

_PTH_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Names:
    """Names by which the files of a prefix are reached, besides the one that a walk meets first.

    Args:
        linked: names of each file that has several in the prefix.
        modules: directories outside of the prefix with modules of its Python, by the path that
            leads there.
    """

    linked: tuple[tuple[str, ...], ...] = ()
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)


def probe(rootfs: RootFS, top: str) -> Names:
    """Find the names of what lies in the prefix `top`.

    Raises:
        ProbeError: this machine forbids looking.
    """
    by_inode: dict[tuple[int, int], list[str]] = {}
    for file in rootfs.walk(top):
        if file.type == "file" and file.inode != (0, 0):
            by_inode.setdefault(file.inode, []).append(file.path)
    linked = tuple(tuple(paths) for paths in by_inode.values() if len(paths) > 1)
    inside = _Directory(rootfs.resolve(top).final_path)
    modules: dict[str, str] = {}
    for path in _leading_to_modules(rootfs, top):
        final = rootfs.resolve(path).final
        # What holds the prefix itself is no package.
        if final is None or final.type != "directory" or inside.is_below_or_above(final.path):
            continue
        if len(modules) < LINK_LIMIT and final.path not in modules.values():
            modules[path] = final.path
    return Names(linked, modules)


def _leading_to_modules(rootfs: RootFS, top: str) -> Iterator[str]:
    """Yield the links below the directories with packages, these, and what their .pth files add."""
    for packages in package_directories(rootfs, top):
        yield packages
        for file in rootfs.walk(packages):
            if file.type == "symlink":
                yield file.path
        for name in rootfs.listdir(packages):
            if name.endswith(".pth"):
                yield from _added(rootfs, f"{packages}/{name}")


def _added(rootfs: RootFS, path: str) -> Iterator[str]:
    """Yield the directories that a .pth file adds (https://docs.python.org/3/library/site.html)."""
    try:
        lines = rootfs.read(path, _PTH_LIMIT).decode("utf-8", "replace").splitlines()
    except Unreadable:
        return
    for line in lines[:LINK_LIMIT]:
        entry = line.rstrip()
        if entry and not entry.startswith(("#", "import ", "import\t")) and "\0" not in entry:
            yield posixpath.join(path.rpartition("/")[0], entry)


@dataclass(frozen=True, slots=True)
class _Directory:
    path: str

    def is_below_or_above(self, other: str) -> bool:
        own, other = f"{self.path.rstrip('/')}/", f"{other.rstrip('/')}/"
        return own.startswith(other) or other.startswith(own)


def added(found: ElfFiles, names: Names, outside: Iterable[tuple[str, str, ElfFiles]]) -> ElfFiles:
    """Return the files of the prefix under each of their names.

    Args:
        outside: (path that leads out, directory, files below that).
    """
    files = dict(found.files)
    for paths in names.linked:
        for known in [files[path] for path in paths if path in files][:1]:
            files |= {path: dataclasses.replace(known, path=path) for path in paths}
    problems = list(found.problems)
    scanned = found.scanned
    for path, directory, below in outside:
        for file in below.files.values():
            name = f"{path}{file.path[len(directory.rstrip('/')) :]}"
            files.setdefault(name, dataclasses.replace(file, path=name))
        problems += below.problems
        scanned += below.scanned
    return ElfFiles(files, scanned, tuple(problems))


@dataclass(frozen=True, slots=True)
class Programs:
    """The files to which the names in a prefix's bin/ lead, each once.

    Args:
        files: name to file, which begins with the prefix as it is written if it lies in there.
        outside: those of the files that do not.
        python: name of the prefix's Python, or "".
    """

    files: Mapping[str, str]
    outside: tuple[str, ...]
    python: str = ""


def programs(rootfs: RootFS, top: str) -> Programs:
    """Resolve the names in bin/; of one file the name that is no link counts.

    Raises:
        ProbeError: this machine forbids looking.
    """
    found: dict[tuple[int, int] | str, tuple[str, str]] = {}
    answers = [rootfs.resolve(f"{top}/bin/{name}") for name in rootfs.listdir(f"{top}/bin")]
    answers.sort(key=lambda one: one.file is not None and one.file.type == "symlink")
    for one in answers:
        if one.final is not None and one.final.type == "file":
            inode = one.final.inode
            key = inode if inode != (0, 0) else one.final_path
            found.setdefault(key, (one.path, one.final_path))
    real = rootfs.resolve(top).final_path.rstrip("/")
    outside = sorted(final for _, final in found.values() if not final.startswith(f"{real}/"))
    files = {
        path: final if final in outside else f"{top}{final[len(real) :]}"
        for path, final in sorted(found.values())
    }
    python = rootfs.resolve(f"{top}/bin/python3").final
    name = f"{top}/bin/python3" if python is not None and python.type == "file" else ""
    return Programs(files, tuple(outside), name)
