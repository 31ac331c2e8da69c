"""The environments of an image: of conda, virtual ones, and of each Python that is installed.

They are known by the marks that their own tools go by: `conda-meta` (conda), `pyvenv.cfg` (PEP
405), and `lib*/pythonX.Y` with the standard library or site-packages, which Debian calls
dist-packages (`site` in Python's documentation). Packages may also lie in a directory without any
Python, as `pip install --target`, `--user` and `--prefix` put them.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Collection, Iterator

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.prefix.facts import Prefix, Prefixes, PrefixKind
from mlcheck.model.errors import ProbeError
from mlcheck.model.files import Problem

LIMIT = 1000
"""Maximum number of environments that are reported."""

_LOCAL, _USR = SYSTEM = ("/usr/local", "/usr")

_CFG_LIMIT = 64 * 1024
_KERNELS = ("/proc", "/sys", "/dev")
_LIBRARIES = ("lib", "lib64")
_PACKAGES = ("site-packages", "dist-packages")
_PYTHON = re.compile(r"(?:python|pypy)[23](?:\.\d+t?)?")
_INTERPRETER = re.compile(r"(?:python|pypy)[23]?(?:\.\d+t?)?")
_CACHE = "CACHEDIR.TAG"  # https://bford.info/cachedir/: the contents can be made anew


def find(rootfs: RootFS) -> Prefixes:
    """Find every environment, each under its path without symlinks.

    A directory that this machine forbids to look into is a problem of the answer.
    """
    search = _Search(rootfs)
    search.run()
    roots = sorted(search.roots)
    environments = [_prefix(rootfs, path) for path in roots]
    known = {rootfs.resolve(path).final_path for one in environments for path in one.packages}
    environments += [Prefix(path, "packages", (path,)) for path in search.bare if path not in known]
    used = [one for one in environments if _is_used(rootfs, one)]
    problems = search.problems
    if len(used) > LIMIT:
        problems = [*problems, Problem("/", f"has {len(used)} environments: {LIMIT} are told of")]
    found = sorted(used, key=lambda one: one.path)[:LIMIT]
    return Prefixes(tuple(found), search.looked_in, tuple(problems))


def at(rootfs: RootFS, path: str | None) -> Prefixes:
    """Return the environment at the given `path`, whatever is there, or the system's for None; and
    behind a virtual environment what its Python has on its path besides. The system's Python has
    /usr/local before /usr.

    Raises:
        ProbeError: this machine forbids looking.
    """
    if path is None:
        return Prefixes(tuple(_prefix(rootfs, one) for one in SYSTEM))
    first = _prefix(rootfs, path)
    if path == _USR:
        local = _prefix(rootfs, _LOCAL)
        return Prefixes((*_of_pythons(local, _pythons(rootfs, path)), first))
    return Prefixes((first, *_below(rootfs, first)))


def _below(rootfs: RootFS, virtual: Prefix) -> list[Prefix]:
    """Return the environments whose packages a virtual one has as well, those of its own Python's
    version: `include-system-site-packages`, which `site` takes for true where it is not said."""
    try:
        text = rootfs.read(f"{virtual.path}/pyvenv.cfg", _CFG_LIMIT).decode("utf-8", "replace")
    except Unreadable:
        return []
    said = {
        key.strip().lower(): value.strip()
        for key, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }
    home = said.get("home", "")
    if said.get("include-system-site-packages", "true").lower() != "true" or not home.startswith(
        "/"
    ):
        return []
    base = posixpath.dirname(rootfs.resolve(home).final_path)
    own = {posixpath.basename(posixpath.dirname(one)) for one in virtual.packages} | {"python3"}
    found: list[Prefix] = []
    for path in SYSTEM if base in SYSTEM else (base,):
        if path != virtual.path:
            found += _of_pythons(_prefix(rootfs, path), own)
    return found


def _of_pythons(environment: Prefix, names: Collection[str]) -> list[Prefix]:
    """Return an environment with the packages of Pythons alone that have these names; none without
    such packages."""
    fitting = [
        path
        for path in environment.packages
        if posixpath.basename(posixpath.dirname(path)) in names
    ]
    return [dataclasses.replace(environment, packages=tuple(fitting))] if fitting else []


def _pythons(rootfs: RootFS, path: str) -> set[str]:
    """Return the names of the directories of an environment's Pythons."""
    return {
        name
        for library in _LIBRARIES
        for name in rootfs.listdir(_join(path, library))
        if _PYTHON.fullmatch(name)
    }


def package_directories(rootfs: RootFS, path: str) -> Iterator[str]:
    """Yield the directories with Python packages of the environment at `path`, each real one once.

    Raises:
        ProbeError: this machine forbids looking.
    """
    seen: set[str] = set()
    for library in _LIBRARIES:
        top = _join(path, library)
        # A plain directory first: conda adds lib/python3.1 as a symlink to lib/python3.11.
        names = [name for name in rootfs.listdir(top) if _PYTHON.fullmatch(name)]
        names.sort(key=lambda name: _type(rootfs, f"{top}/{name}") == "symlink")
        for directory in (f"{top}/{name}/{packages}" for name in names for packages in _PACKAGES):
            resolved = rootfs.resolve(directory)
            if resolved.final is None or resolved.final.type != "directory":
                continue
            if resolved.final_path not in seen:
                seen.add(resolved.final_path)
                yield directory
    if not seen and any(name.endswith(".dist-info") for name in rootfs.listdir(path)):
        yield path


class _Search:
    """A search through the directories of an image, with no symlink followed."""

    def __init__(self, rootfs: RootFS) -> None:
        self._rootfs = rootfs
        self.roots: set[str] = set()
        self.bare: list[str] = []
        self.problems: list[Problem] = []
        self.looked_in = 0

    def run(self) -> None:
        pending = [("/", True)]
        while pending:
            path, loose = pending.pop()
            try:
                names = self._rootfs.listdir(path)
                below = self._look(path, names, loose)
            except ProbeError:
                what = "cannot be looked into here: environments in it are not known"
                self.problems.append(Problem(path, what))
                continue
            self.looked_in += 1
            pending += reversed(below)

    def _look(self, path: str, names: list[str], loose: bool) -> list[tuple[str, bool]]:
        """Add a directory, and return those in it that are to be searched.

        Args:
            loose: True if packages directly in a directory below are installed there. Packages that
                such packages bring along, or that a cache keeps, are not.
        """
        there = set(names)
        parent, _, name = path.rpartition("/")
        if name in _PACKAGES and (root := _root_of(parent)) is not None:
            self.roots.add(root)
            return []
        if (root := _root_of(path)) is not None:
            loose = False  # the standard library has some for its own tests
            if "os.py" in there:
                self.roots.add(root)
        conda = "conda-meta" in there and _is_conda(self._rootfs, path)
        virtual = "pyvenv.cfg" in there and not there.isdisjoint(("bin", *_LIBRARIES))
        if conda or (virtual and _is_virtual(self._rootfs, path)):
            self.roots.add(path)
        elif parent.endswith("/pkgs") and "info" in there and self._is_unpacked(path):
            return []  # conda's cache
        if loose and any(one.endswith(".dist-info") for one in names):
            self.bare.append(path)
            loose = False
        if _CACHE in there and path not in self.roots and path != "/":
            loose = False
        paths = [_join(path, one) for one in names if one != "conda-meta" or not conda]
        return [
            (one, loose)
            for one in paths
            if one not in _KERNELS and _type(self._rootfs, one) == "directory"
        ]

    def _is_unpacked(self, path: str) -> bool:
        return self._rootfs.lstat(f"{path}/info/index.json") is not None


def _root_of(python: str) -> str | None:
    """Return the prefix of `PREFIX/lib/python3.X`, or None if `python` is no such path."""
    rest, _, name = python.rpartition("/")
    root, _, library = rest.rpartition("/")
    return (root or "/") if _PYTHON.fullmatch(name) and library in _LIBRARIES else None


def _prefix(rootfs: RootFS, path: str) -> Prefix:
    kind: PrefixKind = "packages"
    if _is_conda(rootfs, path):
        kind = "conda"
    elif _is_virtual(rootfs, path):
        kind = "venv"
    elif path in (*SYSTEM, "/"):
        kind = "system"
    elif _has_interpreter(rootfs, path):
        kind = "python"
    return Prefix(path, kind, tuple(package_directories(rootfs, path)))


def _is_conda(rootfs: RootFS, path: str) -> bool:
    names = rootfs.listdir(_join(path, "conda-meta"))
    return any(name == "history" or name.endswith(".json") for name in names)


def _is_virtual(rootfs: RootFS, path: str) -> bool:
    final = rootfs.resolve(_join(path, "pyvenv.cfg")).final
    return final is not None and final.type == "file"


def _has_interpreter(rootfs: RootFS, path: str) -> bool:
    return any(_INTERPRETER.fullmatch(name) for name in rootfs.listdir(_join(path, "bin")))


def _is_used(rootfs: RootFS, prefix: Prefix) -> bool:
    """Return whether there is an interpreter or a package: Debian makes empty directories for
    both."""
    if prefix.kind in ("conda", "venv", "python") or _has_interpreter(rootfs, prefix.path):
        return True
    ends = (".dist-info", ".egg-info", ".egg")
    return any(name.endswith(ends) for path in prefix.packages for name in rootfs.listdir(path))


def _join(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}"


def _type(rootfs: RootFS, path: str) -> str | None:
    file = rootfs.lstat(path)
    return None if file is None else file.type
