"""How the image's dynamic loader finds libraries, without starting it.

The model is glibc's (ld.so(8), `elf/dl-load.c`): for a name without a slash, in this order,
DT_RPATH of the file that needs it and of those that led to it (when the file has no DT_RUNPATH),
LD_LIBRARY_PATH, DT_RUNPATH of the file, /etc/ld.so.cache, the default directories. A file for
another class or machine is passed over; one that is no ELF file ends the search, as it ends the
program. Once loaded, a library answers every later need of the same name or soname.

Left out: `glibc-hwcaps` directories, because they depend on the CPU that is used, and entries
relative to the working directory, which is not known; these stand in `searched` as written.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mlcheck.engines.base import OpenImage, RootFS, Unreadable
from mlcheck.facts import ElfFile, ElfFiles, Libraries, LibraryNeed, Problem, ResolvedFile
from mlcheck.probes import elf, ld_so_cache

LOOKUP_LIMIT = 2_000_000
"""Places looked at for all programs together; a large image needs a tenth of that."""

_LOADER_SIZE_LIMIT = 16 * 1024 * 1024
_NATIVE_PROGRAMS = ("/bin/sh", "/usr/bin/env", "/bin/ls", "/sbin/ldconfig")
# glibc keeps its default directories as one array of strings, each ending in a slash.
_DEFAULT_DIRECTORIES = re.compile(rb"(?:/(?:usr/)?lib[A-Za-z0-9_/.-]*/\0){2,}")
_FALLBACK_DIRECTORIES = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_]))")


_NOTHING_KNOWN = ElfFiles({}, 0)


@dataclass(frozen=True, slots=True)
class _Object:
    """A loaded file: `path` as it was found, and what loaded it (None: the program itself)."""

    path: str
    final_path: str
    elf: ElfFile
    loader: _Object | None

    @property
    def origin(self) -> str:
        return self.path.rpartition("/")[0] or "/"


def probe(
    image: OpenImage,
    wanted: Sequence[str],
    elf_paths: Sequence[str],
    known: ElfFiles = _NOTHING_KNOWN,
) -> Libraries:
    """Resolve `wanted` sonames, and all that the files `elf_paths` need to be loaded.

    Args:
        wanted: sonames such as "libGL.so.1", searched as a program without any DT_RPATH does.
        elf_paths: programs or libraries; each is loaded by itself.
        known: what was parsed before, by paths without symlinks: it is not read again.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    loader = _Loader(image.rootfs, image.environment.env.get("LD_LIBRARY_PATH", ""), known)
    needs: dict[LibraryNeed, None] = {}
    native = loader.native(elf_paths)
    for soname in wanted:
        need, _ = loader.find(soname, None, native)
        needs[need] = None
    for path in elf_paths:
        needs.update(dict.fromkeys(loader.load(path)))
    return Libraries(tuple(needs), tuple(loader.problems))


def opened(image: OpenImage, program: str, by: str, sonames: Sequence[str]) -> Libraries:
    """Resolve what the library `by` opens with dlopen(3) in a process of `program`.

    Args:
        program, by: paths of ELF files.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    loader = _Loader(image.rootfs, image.environment.env.get("LD_LIBRARY_PATH", ""))
    return Libraries(tuple(loader.opened(program, by, sonames)), tuple(loader.problems))


class _Loader:
    def __init__(self, rootfs: RootFS, library_path: str, known: ElfFiles = _NOTHING_KNOWN) -> None:
        self._rootfs = rootfs
        # A semicolon separates too, in LD_LIBRARY_PATH alone.
        self._library_path = library_path.replace(";", ":") if library_path else None
        self._known = known.files
        self._parsed: dict[str, ElfFile | Unreadable] = {}
        self._default_directories: dict[str | None, tuple[str, ...]] = {}
        self._resolved: dict[str, ResolvedFile] = {}
        self._lookups = 0
        self.problems: list[Problem] = []
        self._cache: Mapping[str, tuple[str, ...]] = {}
        try:
            self._cache = ld_so_cache.read(rootfs)
        except Unreadable as unreadable:
            self.problems.append(Problem(unreadable.path, unreadable.what))

    def native(self, others: Sequence[str]) -> ElfFile | None:
        """A file of the class and machine that the image's programs have."""
        for path in (*_NATIVE_PROGRAMS, *others):
            found = self._parse(path)
            if isinstance(found, ElfFile):
                return found
        return None

    def load(self, path: str) -> Iterator[LibraryNeed]:
        """All needs of one program, breadth first as glibc loads them."""
        parsed = self._parse(path)
        if isinstance(parsed, Unreadable):
            self.problems.append(Problem(parsed.path, parsed.what))
            return
        final_path = self._rootfs.resolve(path).final_path
        # The program's own $ORIGIN is that of the real file; a library's is that of its path.
        program = _Object(final_path, final_path, parsed, None)
        loaded = {parsed.soname or path: program}
        by_file = {final_path: program}
        pending = deque([program])
        interpreter = parsed.interpreter
        if interpreter is not None:
            need, found = self.find(interpreter, program, parsed)
            yield need
            if found is not None:
                by_file[found.final_path] = found
                loaded[interpreter] = loaded[found.elf.soname or interpreter] = found
        while pending:
            current = pending.popleft()
            for soname in current.elf.needed:
                if (found := loaded.get(soname)) is not None:
                    yield _need(soname, current.elf.path, found, (), ())
                    continue
                need, found = self.find(soname, current, parsed)
                yield need
                if found is None:
                    continue
                known = by_file.setdefault(found.final_path, found)
                loaded[soname] = loaded[known.elf.soname or soname] = known
                if known is found:
                    pending.append(found)
            if self._lookups > LOOKUP_LIMIT:
                self.problems.append(
                    Problem(path, f"was not followed: more than {LOOKUP_LIMIT} places to look at")
                )
                return

    def opened(self, program: str, by: str, sonames: Sequence[str]) -> Iterator[LibraryNeed]:
        """Where each is found that `by`, loaded by `program`, asks for by name."""
        chain: _Object | None = None
        for path in (program, by):
            parsed = self._parse(path)
            if isinstance(parsed, Unreadable):
                self.problems.append(Problem(parsed.path, parsed.what))
                return
            final_path = self._rootfs.resolve(path).final_path
            chain = _Object(final_path, final_path, parsed, chain)
        for soname in sonames:
            yield self.find(soname, chain, chain.elf if chain else None)[0]

    def find(
        self, soname: str, by: _Object | None, like: ElfFile | None
    ) -> tuple[LibraryNeed, _Object | None]:
        """Search one library.

        Args:
            by: the object that needs it; None for a plain search.
            like: a file whose class and machine the library must have; None: any.
        """
        searched: list[str] = []
        rejected: list[tuple[str, str]] = []
        needed_by = by.elf.path if by else ""
        for path in self._candidates(soname, by, like, searched):
            self._lookups += 1
            resolved = self._resolve(path)
            if resolved.final is None:
                if resolved.file is not None:
                    rejected.append((path, resolved.problem or "leads nowhere"))
                continue
            parsed = self._parse(resolved.final_path)
            if isinstance(parsed, Unreadable):
                rejected.append((path, f"{parsed.what}; the loader ends its search here"))
                break
            if like and (parsed.bits, parsed.machine) != (like.bits, like.machine):
                reason = f"is for {parsed.bits}-bit {parsed.machine}"
                rejected.append((path, f"{reason}, not {like.bits}-bit {like.machine}"))
                continue
            found = _Object(path, resolved.final_path, parsed, by)
            return _need(soname, needed_by, found, searched, rejected), found
        return _need(soname, needed_by, None, searched, rejected), None

    def _candidates(
        self, soname: str, by: _Object | None, like: ElfFile | None, searched: list[str]
    ) -> Iterator[str]:
        """Paths to look at, in the loader's order; their directories are added to `searched`."""
        program = by
        while program and program.loader:
            program = program.loader
        if "/" in soname:
            path = self._expand(soname, by, program)
            if path.startswith("/"):
                yield path
            return
        for entry in self._entries(by, program):
            searched.append(entry)
            if entry.startswith("/"):
                yield f"{entry.rstrip('/')}/{soname}"
        searched.append(ld_so_cache.PATH)
        yield from self._cache.get(soname, ())
        for directory in self._defaults(program.elf if program else like):
            searched.append(directory)
            yield f"{directory}/{soname}"

    def _entries(self, by: _Object | None, program: _Object | None) -> Iterator[str]:
        """Directories of DT_RPATH, LD_LIBRARY_PATH and DT_RUNPATH for a need of `by`."""
        paths: list[tuple[str, _Object | None]] = []
        if by is not None and by.elf.runpath is None:
            ancestor: _Object | None = by
            while ancestor is not None:
                # glibc forgets the DT_RPATH of a file that also has DT_RUNPATH.
                if ancestor.elf.rpath is not None and ancestor.elf.runpath is None:
                    paths.append((ancestor.elf.rpath, ancestor))
                ancestor = ancestor.loader
        if self._library_path is not None:
            paths.append((self._library_path, program))
        if by is not None and by.elf.runpath is not None:
            paths.append((by.elf.runpath, by))
        seen: set[str] = set()
        for text, owner in paths:
            for entry in text.split(":"):
                directory = self._expand(entry, owner, program) or "."
                if directory not in seen:
                    seen.add(directory)
                    yield directory

    def _expand(self, text: str, owner: _Object | None, program: _Object | None) -> str:
        """Replace $ORIGIN, $LIB and $PLATFORM."""
        if "$" not in text:
            return text
        like = program.elf if program else None
        values = {
            "ORIGIN": owner.origin if owner else "$ORIGIN",
            "LIB": self._defaults(like)[0].lstrip("/"),
            "PLATFORM": like.machine.lower() if like else "$PLATFORM",
        }
        return _TOKEN.sub(lambda token: values[token[1] or token[2]], text)

    def _defaults(self, program: ElfFile | None) -> tuple[str, ...]:
        """The directories that the program's loader trusts, read from the loader itself."""
        interpreter = program.interpreter if program else None
        if interpreter is None and (native := self.native(())) is not None:
            interpreter = native.interpreter
        if interpreter not in self._default_directories:
            directories: tuple[str, ...] = _FALLBACK_DIRECTORIES
            try:
                content = self._rootfs.read(interpreter or "/", _LOADER_SIZE_LIMIT)
            except Unreadable:
                content = b""
            if array := _DEFAULT_DIRECTORIES.search(content):
                directories = tuple(
                    entry.decode("ascii").rstrip("/") for entry in array[0].split(b"\0") if entry
                )
            self._default_directories[interpreter] = directories
        return self._default_directories[interpreter]

    def _resolve(self, path: str) -> ResolvedFile:
        if path not in self._resolved:
            self._resolved[path] = self._rootfs.resolve(path)
        return self._resolved[path]

    def _parse(self, path: str) -> ElfFile | Unreadable:
        if path not in self._parsed:
            try:
                known = self._known.get(self._resolve(path).final_path)
                self._parsed[path] = (
                    replace(known, path=path) if known else elf.read(self._rootfs, path)
                )
            except Unreadable as unreadable:
                self._parsed[path] = unreadable
        return self._parsed[path]


def _need(
    soname: str,
    by: str,
    found: _Object | None,
    searched: Sequence[str],
    rejected: Sequence[tuple[str, str]],
) -> LibraryNeed:
    return LibraryNeed(
        soname=soname,
        by=by,
        path=found.path if found else None,
        final_path=found.final_path if found else None,
        bits=found.elf.bits if found else None,
        machine=found.elf.machine if found else None,
        searched=tuple(searched),
        rejected=tuple(rejected),
    )
