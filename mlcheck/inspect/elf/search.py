"""One search for a library, and the objects of a process that it is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mlcheck.inspect.elf.facts import ElfFile, LibraryNeed


@dataclass(frozen=True, slots=True)
class Object:
    """A loaded file: `path` as found, and the object that loaded it, or None for the program
    itself."""

    path: str
    final_path: str
    elf: ElfFile
    loader: Object | None

    @property
    def origin(self) -> str:
        """The directory that $ORIGIN stands for."""
        return self.path.rpartition("/")[0] or "/"

    @property
    def program(self) -> Object:
        """The program of the process."""
        *_, program = self.up()
        return program

    def up(self) -> Iterator[Object]:
        """Yield this object and those that led to it."""
        one: Object | None = self
        while one is not None:
            yield one
            one = one.loader


@dataclass(slots=True)
class Search:
    """A search for one library.

    Args:
        by: the object that needs it, or None for a plain search.
        like: a file whose class and machine the library must have, or None for any.
        searched, rejected: as in `LibraryNeed`; the loader adds to them, to the first as keys.
    """

    soname: str
    by: Object | None
    like: ElfFile | None
    searched: dict[str, None] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    @property
    def program(self) -> ElfFile | None:
        """The program of the process, or a file like it."""
        return self.by.program.elf if self.by else self.like

    def need(self, found: Object | None) -> LibraryNeed:
        """Return the fact about it."""
        by = self.by.elf.path if self.by else ""
        return need(self.soname, by, found, (*self.searched,), self.rejected)


class Names:
    """The names by which the objects of a process are known.

    Args:
        musl: True: by those of their files; False: by those that asked for them, and by sonames.
    """

    def __init__(self, *, musl: bool) -> None:
        self.musl = musl
        self._by_name: dict[str, Object] = {}
        self._by_file: dict[str, Object] = {}

    def add(self, name: str, found: Object) -> Object:
        """Add an object under the name that led to it; return the one that has its file."""
        known = self._by_file.setdefault(found.final_path, found)
        if not self.musl:
            self._by_name[name] = self._by_name[known.elf.soname or name] = known
        elif "/" not in name:
            self._by_name[found.path.rpartition("/")[2]] = known
        return known

    def of(self, name: str) -> Object | None:
        """Return the object of a name that was loaded before."""
        return self._by_name.get(name)

    def lacking_versions(self) -> Iterator[LibraryNeed]:
        """Yield the needs for a symbol version that the library of that name does not define."""
        for one in self._by_file.values():
            for name, version in one.elf.versions_needed:
                found = self._by_name.get(name)
                if found is None or found.elf.versions is None:
                    continue
                if version not in found.elf.versions:
                    why = f"does not define version {version}"
                    yield need(name, one.elf.path, None, (), [(found.path, why)])


def need(
    soname: str,
    by: str,
    found: Object | None,
    searched: list[str] | tuple[str, ...] = (),
    rejected: list[tuple[str, str]] | tuple[tuple[str, str], ...] = (),
) -> LibraryNeed:
    """Return the fact about one need."""
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
