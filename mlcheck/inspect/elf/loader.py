"""A process of an image and the libraries in it, as its dynamic loader would put them there.

glibc (ld.so(8), `elf/dl-load.c`) searches for a name without a slash, in this order: DT_RPATH of
the file that needs it and of those that led to it (when the file has no DT_RUNPATH),
LD_LIBRARY_PATH, DT_RUNPATH of the file, /etc/ld.so.cache, the default directories. A file for
another class or machine is passed over; one that is no library ends the search, as it ends the
program. Once loaded, a library answers every later need of the same name or soname, and it must
define the versions that others need of it.

musl (`ldso/dynlink.c`) searches LD_LIBRARY_PATH, DT_RUNPATH or else DT_RPATH of the file and of
those that led to it, and the directories of /etc/ld-musl-ARCH.path. It is itself libc, libm and
their like. What it opens first has to be the library.

Entries relative to the working directory, which is not known, are told but not searched. Libraries
for some CPUs (glibc-hwcaps) count where there is none for all; they too have to be libraries.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.image.scan import PATH_LIMIT
from mlcheck.inspect.elf import hwcaps, interpreters, ld_so_cache, tokens
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import ElfFile, LibraryNeed
from mlcheck.inspect.elf.search import Names, Object, Search, need
from mlcheck.model.files import Problem, ResolvedFile

LOOKUP_LIMIT = 1_000_000
"""Places searched for all programs together; a large image needs a fifth of that."""

_NATIVE_PROGRAMS = ("/bin/sh", "/usr/bin/env", "/bin/ls", "/sbin/ldconfig")
_LOOP = "is in a link loop"


class _Ends(Exception):  # noqa: N818 - a loader's answer, not an error
    """The loader ends its search, and the program, at this file."""


class _ListEnds(Exception):  # noqa: N818
    """The loader goes on with the next list of directories."""


class Loader:
    """The loaders of one image.

    Args:
        library_path: LD_LIBRARY_PATH.
        known: files that were parsed before, by paths without symlinks.
    """

    def __init__(
        self, rootfs: RootFS, library_path: str, known: Mapping[str, ElfFile] | None = None
    ) -> None:
        self._rootfs = rootfs
        self._library_path = library_path
        self._known = known or {}
        self._parsed: dict[str, ElfFile | Unreadable] = {}
        self._musl: dict[str, bool] = {}
        self._directories: dict[str, tuple[str, ...]] = {}
        self._resolved: dict[str, ResolvedFile] = {}
        self._hwcaps = hwcaps.Directories(rootfs)
        self._lookups = 0
        self.problems: list[Problem] = []
        self._cache: Mapping[str, tuple[str, ...]] = {}
        try:
            self._cache = ld_so_cache.read(rootfs)
        except Unreadable as unreadable:
            self.problems.append(Problem(unreadable.path, unreadable.what))

    def native(self, others: Sequence[str] = ()) -> ElfFile | None:
        """Return a file of the class and machine of the image's programs."""
        for path in (*_NATIVE_PROGRAMS, *others):
            found = self._parse(path)
            if isinstance(found, ElfFile):
                return found
        return None

    def load(self, path: str, program: str | None = None) -> Iterator[LibraryNeed]:
        """Yield all needs of one file, breadth first as the loader meets them.

        Args:
            program: the program that opens the file; None: it is one, or taken for one.
        """
        first = self._opened(path, program)
        if first is None:
            return
        main = first.program
        names = Names(musl=self._is_musl(main.elf))
        names.add(main.path, main)
        if first is not main:
            names.add(path, first)
        its = self._add_interpreter(names, main)
        if its is not None and main.elf.interpreter is not None and first is main:
            yield its
        yield from self._needs(first, names)

    def _add_interpreter(self, names: Names, main: Object) -> LibraryNeed | None:
        """Add the loader itself, which is in every process; return the need for it."""
        interpreter = self._interpreter(main.elf)
        if interpreter is None:
            return None
        its, found = self.find(interpreter, main, main.elf)
        if found is not None:
            names.add(interpreter, found)
        return its

    def _needs(self, first: Object, names: Names) -> Iterator[LibraryNeed]:
        """Yield the needs of an object and of what it leads to, in a process with these names."""
        pending = deque([first])
        while pending:
            current = pending.popleft()
            for soname, must in _asked(current.elf):
                if self._lookups > LOOKUP_LIMIT:
                    what = f"was not followed: more than {LOOKUP_LIMIT} places to look at"
                    self.problems.append(Problem(first.path, what))
                    return
                if (known := names.of(soname)) is not None:
                    if must:
                        yield need(soname, current.elf.path, known)
                    continue
                one, found = self.find(soname, current, first.program.elf)
                if must:
                    yield one
                if found is not None and names.add(soname, found) is found:
                    pending.append(found)
        if not names.musl:
            yield from names.lacking_versions()

    def opened(self, program: str, by: str, sonames: Sequence[str]) -> Iterator[LibraryNeed]:
        """Resolve the libraries that `by`, loaded by `program`, opens by name.

        The needs of these follow.
        """
        opener = self._opened(by, program)
        if opener is None:
            return
        names = Names(musl=self._is_musl(opener.program.elf))
        for one in reversed([*opener.up()]):
            names.add(one.path, one)
        self._add_interpreter(names, opener.program)
        loaded = []
        for soname in sonames:
            answer, found = self.find(soname, opener, opener.elf)
            yield answer
            if found is not None and names.add(soname, found) is found:
                loaded.append(found)
        # Each finds what was opened before it; in which order that is, is not known.
        for found in loaded:
            yield from self._needs(found, names)

    def find(
        self, soname: str, by: Object | None, like: ElfFile | None
    ) -> tuple[LibraryNeed, Object | None]:
        """Search one library.

        Args:
            by: the object that needs it, or None for a plain search.
            like: a file whose class and machine the library must have, or None for any.
        """
        search = Search(soname, by, like)
        found = None
        try:
            if self._is_musl(search.program):
                found = self._by_musl(search)
            elif "/" in soname:
                found = self._at(search, self._expand(soname, by))
            else:
                found = self._by_glibc(search)
        except (_Ends, _ListEnds):
            pass
        return search.need(found), found

    def _opened(self, path: str, program: str | None) -> Object | None:
        """Return the object of a file, and of the program that opens it; a Problem is noted."""
        chain: Object | None = None
        for one in (path,) if program is None else (program, path):
            parsed = self._parse(one)
            if isinstance(parsed, Unreadable):
                self.problems.append(Problem(one, parsed.what))
                return None
            # The program's own $ORIGIN is that of the real file; a library's is that of its path.
            final_path = self._resolve(one).final_path
            place = final_path if chain is None else one
            chain = Object(place, final_path, replace(parsed, path=one), chain)
        return chain

    def _at(self, search: Search, path: str) -> Object | None:
        """Return the library at the path that a need names."""
        if path.startswith("/"):
            return self._try(search, path)
        search.searched["the working directory"] = None
        return None

    def _by_glibc(self, search: Search) -> Object | None:
        for directories in self._lists(search.by):
            try:
                for directory in directories:
                    if directory in search.searched:
                        continue
                    search.searched[directory] = None
                    if directory.startswith("/") and (found := self._in(search, directory)):
                        return found
            except _ListEnds:
                continue
        defaults = self._defaults(search.program)
        left_out = search.by is not None and search.by.elf.no_default_directories
        search.searched[ld_so_cache.PATH] = None
        for path in self._cache.get(search.soname, ()):
            if left_out and path.startswith(tuple(f"{directory}/" for directory in defaults)):
                continue
            with contextlib.suppress(_ListEnds):
                if found := self._try(search, path):
                    return found
        for directory in () if left_out else defaults:
            search.searched[directory] = None
            if found := self._in(search, directory):
                return found
        return None

    def _lists(self, by: Object | None) -> Iterator[list[str]]:
        """Yield the lists of directories that glibc's loader goes through before its cache."""
        if by is not None and by.elf.runpath is None:
            for one in by.up():
                # It forgets the DT_RPATH of a file that also has DT_RUNPATH.
                if one.elf.rpath is not None and one.elf.runpath is None:
                    yield self._list(one.elf.rpath, one)
        yield self._list(self._library_path, by.program if by else None, ":;")
        if by is not None and by.elf.runpath is not None:
            yield self._list(by.elf.runpath, by)

    def _list(self, text: str, owner: Object | None, separators: str = ":") -> list[str]:
        found = []
        for entry in tokens.entries(text, separators):
            directory = self._expand(entry, owner) if entry else "."
            found.append(directory.rstrip("/") or "/")
        return list(dict.fromkeys(found))

    def _in(self, search: Search, directory: str) -> Object | None:
        """Look in one directory, and in those for some CPUs in it."""
        below = [f"{one}/{search.soname}" for one in self._hwcaps.below(directory)]
        some = [found for path in below if (found := self._try(search, path))]
        place = "/" if directory == "/" else f"{directory}/"
        return self._try(search, f"{place}{search.soname}") or (some[0] if some else None)

    def _by_musl(self, search: Search) -> Object | None:
        interpreter = self._interpreter(search.program) or ""
        if search.soname == interpreter:
            return self._at(search, interpreter)
        itself = self._parse(interpreter)
        if interpreters.is_itself(search.soname) and isinstance(itself, ElfFile):
            return self._object(search, interpreter, itself)
        if "/" in search.soname:
            return self._at(search, search.soname)
        lists = [tokens.entries_of_musl(self._library_path)]
        for one in search.by.up() if search.by else ():
            text = one.elf.rpath if one.elf.runpath is None else one.elf.runpath
            if text is not None:
                lists.append(tokens.entries_of_musl(tokens.expanded_by_musl(text, one.origin)))
        lists.append(list(self._defaults(search.program)))
        for directory in dict.fromkeys(one for directories in lists for one in directories):
            search.searched[directory] = None
            if not directory.startswith("/"):
                continue
            found = self._try(search, f"{directory}/{search.soname}", passes=False)
            if found is None:
                continue
            is_itself = found.final_path == self._resolve(interpreter).final_path
            return self._object(search, interpreter, found.elf) if is_itself else found
        return None

    def _try(self, search: Search, path: str, *, passes: bool = True) -> Object | None:
        """Return the library at `path`, or None if the loader goes on to the next directory.

        Args:
            passes: a library for another machine is passed over; False: it ends the search.
        """
        self._lookups += 1
        if len(path) > PATH_LIMIT:
            return None  # no program can open it
        resolved = self._resolve(path)
        if resolved.final is None:
            if resolved.file is not None:
                search.rejected.append((path, resolved.problem or "leads nowhere"))
                if resolved.problem == _LOOP:
                    raise _ListEnds
            return None
        parsed = self._parse(path)
        what = parsed.what if isinstance(parsed, Unreadable) else parsed.refused
        like = search.like
        if isinstance(parsed, ElfFile) and like and _is_other(parsed, like):
            what = f"is for {parsed.bits}-bit {parsed.machine}, not {like.bits}-bit {like.machine}"
            same_order = parsed.little_endian == like.little_endian
            if passes and (parsed.bits != like.bits or same_order):
                search.rejected.append((path, what))
                return None
        if what or isinstance(parsed, Unreadable):
            search.rejected.append((path, f"{what}; the loader ends its search here"))
            raise _Ends
        return self._object(search, path, parsed)

    def _object(self, search: Search, path: str, parsed: ElfFile) -> Object:
        return Object(path, self._resolve(path).final_path, parsed, search.by)

    def _expand(self, text: str, owner: Object | None) -> str:
        """Replace the tokens in a path of `owner`, or of LD_LIBRARY_PATH for None."""
        if "$" not in text:
            return text
        program = owner.program.elf if owner else None
        values = {
            "ORIGIN": owner.origin if owner else "$ORIGIN",
            "LIB": self._defaults(program)[0].lstrip("/"),
            "PLATFORM": program.machine.lower() if program else "$PLATFORM",
        }
        return tokens.expanded(text, values)

    def _interpreter(self, program: ElfFile | None) -> str | None:
        """Return the loader of a program; of what names none, that of the image's programs."""
        if program is not None and program.interpreter is not None:
            return program.interpreter
        native = self.native()
        return None if native is None else native.interpreter

    def _is_musl(self, program: ElfFile | None) -> bool:
        interpreter = self._interpreter(program) or ""
        if interpreter not in self._musl:
            self._musl[interpreter] = interpreters.is_musl(self._rootfs, interpreter)
        return self._musl[interpreter]

    def _defaults(self, program: ElfFile | None) -> tuple[str, ...]:
        """Return the directories in which the program's loader looks last."""
        interpreter = self._interpreter(program) or ""
        if interpreter not in self._directories:
            musl = self._is_musl(program)
            read = interpreters.directories_of_musl if musl else interpreters.directories_of_glibc
            self._directories[interpreter] = read(self._rootfs, interpreter)
        return self._directories[interpreter]

    def _resolve(self, path: str) -> ResolvedFile:
        if path not in self._resolved:
            self._resolved[path] = self._rootfs.resolve(path)
        return self._resolved[path]

    def _parse(self, path: str) -> ElfFile | Unreadable:
        final_path = self._resolve(path).final_path
        if final_path not in self._parsed:
            try:
                known = self._known.get(final_path)
                self._parsed[final_path] = known or elf.read(self._rootfs, final_path)
            except Unreadable as unreadable:
                self._parsed[final_path] = unreadable
        return self._parsed[final_path]


def _asked(file: ElfFile) -> Iterator[tuple[str, bool]]:
    """Yield the libraries that a file names, and whether they must be there."""
    yield from ((name, True) for name in (*file.filters, *file.needed))
    yield from ((name, False) for name in file.auxiliaries)


def _is_other(file: ElfFile, like: ElfFile) -> bool:
    return (file.bits, file.machine) != (like.bits, like.machine)
