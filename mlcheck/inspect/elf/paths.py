"""Paths that ELF files name for the kernel and the loader, and where these make them lead."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

from mlcheck.engines.base import Ask
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.image.budget import NOT_JUDGED
from mlcheck.image.paths import LINK_LIMIT
from mlcheck.image.scan import PATH_LIMIT
from mlcheck.inspect.elf import interpreters, tokens
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import ElfFile, ElfFiles, LoaderPath, LoaderPaths, RequiredPaths
from mlcheck.inspect.elf.loader import Loader
from mlcheck.inspect.registry import fact
from mlcheck.model.errors import ProbeError
from mlcheck.profile.catalog import Profile

STEP_LIMIT = 2_000_000
"""Components of the paths that are looked up, for all different paths of an image; large images
take 100,000."""


@fact()
def loader_paths(rootfs: RootFS, ask: Ask, files: ElfFiles, profile: Profile) -> LoaderPaths:
    """Find where the paths in the prefix's ELF files lead."""
    rpath = profile.expect.rpath
    forbidden = rpath.forbidden if rpath else ()
    required = rpath.required if rpath else {}
    return ask(probe, rootfs, files, forbidden, required)


def probe(
    rootfs: RootFS,
    files: ElfFiles,
    forbidden: Sequence[str],
    required: Mapping[str, Sequence[str]],
) -> LoaderPaths:
    """Find where the paths in ELF files lead.

    Args:
        forbidden: directories of which the real places are told.
        required: search paths that are promised, by file.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    places = _Places(rootfs)
    found = {path: tuple(places.of(file)) for path, file in files.files.items()}
    return LoaderPaths(
        {path: paths for path, paths in found.items() if paths},
        {directory: rootfs.resolve(directory).final_path for directory in forbidden},
        {
            path: _required(rootfs, places, files, path, entries)
            for path, entries in required.items()
        },
    )


def _required(
    rootfs: RootFS, places: _Places, files: ElfFiles, path: str, entries: Sequence[str]
) -> RequiredPaths:
    """Compare one file, under the name by which it is promised."""
    try:
        file = files.files.get(path) or elf.read(rootfs, path)
    except Unreadable as unreadable:
        return RequiredPaths((), (), unreadable.what)
    tag = "RPATH" if file.runpath is None else "RUNPATH"
    wanted = [places.path(file, tag, entry, origin=places.origin(file, path)) for entry in entries]
    return RequiredPaths(tuple(wanted), tuple(places.search_path(file, path)))


class _Places:
    def __init__(self, rootfs: RootFS) -> None:
        self._rootfs = rootfs
        self._real: dict[str, str] = {}
        native = Loader(rootfs, "").native()
        self._native = native.interpreter or "" if native else ""
        self._led = functools.cache(self._follow)
        self._steps = 0
        self._musl: dict[str, bool] = {}
        self._lib: dict[str, str] = {}

    def of(self, file: ElfFile) -> Iterator[LoaderPath]:
        """Yield every path in a file, and the entries of its search path."""
        yield from self.search_path(file, file.path)
        named = [("NEEDED", name) for name in file.needed]
        named += [("FILTER", name) for name in file.filters]
        named += [("AUXILIARY", name) for name in file.auxiliaries]
        named += [("AUDIT", name) for text in file.audits for name in text.split(":")]
        named += [("SONAME", file.soname)] if file.soname else []
        for tag, name in named:
            if "/" in name:
                yield self.path(file, tag, name, origin=self.origin(file, file.path))
        if file.interpreter is not None:
            text = file.interpreter
            absolute = text.startswith("/")
            final = self._led("/", text[:PATH_LIMIT])[0] if absolute else ""
            yield LoaderPath("INTERP", text, text, final, is_fixed=absolute)

    def search_path(self, file: ElfFile, path: str) -> Iterator[LoaderPath]:
        """Yield the entries of DT_RUNPATH, or else of DT_RPATH, which it hides."""
        tag, text = ("RPATH", file.rpath) if file.runpath is None else ("RUNPATH", file.runpath)
        if text is None:
            return
        musl = self._is_musl(file)
        origin = self.origin(file, path)
        if musl and not tokens.expanded_by_musl(text, origin):
            return
        for entry in tokens.entries_of_musl(text) if musl else tokens.entries(text):
            yield self.path(file, tag, entry, origin=origin)

    def origin(self, file: ElfFile, path: str) -> str:
        """Return what $ORIGIN stands for: of a program the real place."""
        directory = path.rpartition("/")[0] or "/"
        if file.interpreter is None:
            return directory
        return self._rootfs.resolve(path).final_path.rpartition("/")[0] or "/"

    def path(self, file: ElfFile, tag: str, text: str, *, origin: str) -> LoaderPath:
        """Return where a path leads.

        Args:
            origin: what $ORIGIN stands for.
        """
        # No program can open a longer one, and what it would lead to is told by its beginning.
        expanded = self._expanded(file, tag, text[:PATH_LIMIT], origin)[:PATH_LIMIT]
        if not expanded.startswith("/"):
            return LoaderPath(tag, text, expanded, "", is_fixed=False)
        if text.startswith("/"):
            return LoaderPath(tag, text, expanded, self._led("/", expanded)[0], is_fixed=True)
        # Where the image lies elsewhere, so does the file: what leads back to / is fixed.
        if expanded == origin or expanded.startswith(f"{origin.rstrip('/')}/"):
            if origin not in self._real:
                self._real[origin] = self._rootfs.resolve(origin).final_path
            start, rest = self._real[origin], expanded[len(origin) :]
        else:
            start, rest = "/", expanded
        final, fixed = self._led(start, rest)
        return LoaderPath(tag, text, expanded, final, is_fixed=fixed)

    def _expanded(self, file: ElfFile, tag: str, text: str, origin: str) -> str:
        if "$" not in text or tag == "SONAME":
            return text
        if self._is_musl(file):
            return text if "PATH" not in tag else tokens.expanded_by_musl(text, origin)
        interpreter = file.interpreter or self._native
        if interpreter not in self._lib:
            defaults = interpreters.directories_of_glibc(self._rootfs, interpreter)
            self._lib[interpreter] = defaults[0].lstrip("/")
        values = {"ORIGIN": origin, "LIB": self._lib[interpreter]}
        return tokens.expanded(text, {**values, "PLATFORM": file.machine.lower()})

    def _is_musl(self, file: ElfFile) -> bool:
        interpreter = file.interpreter or self._native
        if interpreter not in self._musl:
            self._musl[interpreter] = interpreters.is_musl(self._rootfs, interpreter)
        return self._musl[interpreter]

    def _follow(self, start: str, path: str) -> tuple[str, bool]:
        """Follow a path from a directory without links in it, as path_resolution(7) says.

        Returns the place, and whether it was reached by a link to an absolute path, or by more
        `..` than there are directories. What is not there is followed by its names.
        """
        there = [part for part in start.split("/") if part]
        pending = path.split("/")[::-1]
        fixed = False
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                fixed = fixed or not there
                del there[-1:]
            elif part not in ("", "."):
                there.append(part)
                self._steps += len(there)
                if self._steps > STEP_LIMIT:
                    raise ProbeError(
                        f"The ELF files of the image name paths of more than {STEP_LIMIT} steps.",
                        NOT_JUDGED,
                    )
                file = self._rootfs.lstat("/" + "/".join(there))
                if file is not None and file.target is not None and links < LINK_LIMIT:
                    links += 1
                    pending += file.target.split("/")[::-1]
                    del there[-1:]
                    if file.target.startswith("/"):
                        there, fixed = [], True
        return "/" + "/".join(there), fixed
