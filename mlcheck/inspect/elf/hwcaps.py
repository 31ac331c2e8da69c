"""Directories with libraries for some CPUs alone, which glibc's loader prefers there (ld.so(8))."""

from __future__ import annotations

from mlcheck.image.api import RootFS

_DIRECTORY = "glibc-hwcaps"
_CPUS = (
    *("x86-64-v4", "x86-64-v3", "x86-64-v2"),
    *("power10", "power9", "z16", "z15", "z14", "z13"),
)
_BEFORE = ("tls", "haswell", "xeon_phi", "avx512_1", "x86_64")
"""Names that glibc before 2.37 combines to directories, in this order."""


class Directories:
    """The directories for some CPUs, below those of an image in which the loader looks."""

    def __init__(self, rootfs: RootFS) -> None:
        self._rootfs = rootfs
        self._found: dict[str, tuple[str, ...]] = {}

    def below(self, directory: str) -> tuple[str, ...]:
        """Return those that `directory` has, the most demanding first."""
        if directory not in self._found:
            place = f"{directory.rstrip('/')}/{_DIRECTORY}"
            names = set(self._rootfs.listdir(place))
            self._found[directory] = tuple(f"{place}/{cpu}" for cpu in _CPUS if cpu in names)
        return self._found[directory]

    def all_below(self, directory: str) -> tuple[str, ...]:
        """Return the same with those in which only an older loader looks."""
        older: list[str] = []
        pending: list[tuple[str, tuple[str, ...]]] = [(directory.rstrip("/"), _BEFORE)]
        while pending:
            top, left = pending.pop()
            names = set(self._rootfs.listdir(top or "/"))
            for index, name in enumerate(left):
                if name in names:
                    older.append(f"{top}/{name}")
                    pending.append((older[-1], left[index + 1 :]))
        return (*self.below(directory), *older)
