"""Packages that a Python finds, as `importlib.metadata` looks for them.

It goes through sys.path and takes the first metadata of a name; the name is that of the file
`NAME-VERSION.dist-info` or `.egg-info`, and what the file says of itself comes after
(https://docs.python.org/3/library/importlib.metadata.html). What is on sys.path: the standard
library, then each directory for packages, followed by what its `.pth` files name
(https://docs.python.org/3/library/site.html). Enterprise Linux has lib64 before lib.
"""

from __future__ import annotations

import dataclasses
import email.message
import email.parser
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.version import Version

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.packages.facts import HiddenPackage
from mlcheck.inspect.packages.zipped import Files, Zipped
from mlcheck.model.files import Problem

RECORD_LIMIT = 32 * 1024 * 1024
"""Bytes of one record; conda's largest, with tens of thousands of files, have a few MB."""

PTH_LIMIT = 1024 * 1024
"""Bytes of a `.pth` file."""

PLACES_LIMIT = 1000
"""Places that `.pth` files may add."""

ZIPS_LIMIT = 100
"""Zip files among them."""

REQUIRES_LIMIT = 10_000
"""Requirements of one package; the longest known list has 400."""

_HEADER_LIMIT = 1024 * 1024
_ENDS = (".dist-info", ".egg-info")
_IN_DIRECTORY = ("METADATA", "PKG-INFO")
_VERSION_OF_PYTHON = re.compile(r"(?:python|pypy)([23](?:\.\d+t?)?)")


@dataclass(frozen=True, slots=True)
class PythonPackage:
    """The metadata of one package.

    Args:
        key: the name under which Python finds it.
        path: of the metadata, a file; or of the zip file that has it.
        root: root of its environment.
    """

    key: str
    name: str
    version: str
    requires: tuple[str, ...]
    path: str
    root: str


@dataclass(frozen=True, slots=True)
class PythonPackages:
    """The packages that Python finds in an environment, and what it does not find.

    Args:
        hidden: packages that are there, and that Python does not find.
        doubled: packages of which one directory has several versions, so that it is left to chance
            which of them Python finds.
        problems: metadata that is broken.
    """

    found: tuple[PythonPackage, ...]
    hidden: tuple[HiddenPackage, ...]
    doubled: tuple[Problem, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory of sys.path, or a zip file.

    Args:
        python: version of the Python that looks there ("3.11"), "3" for all, "" if it is not known.
        hidden: why no Python looks there.
    """

    path: str
    python: str
    root: str
    hidden: str = ""
    zipped: bool = False


def find(rootfs: RootFS, roots: Sequence[tuple[str, Sequence[str]]]) -> PythonPackages:
    """Find the packages in directories for packages.

    Args:
        roots: roots of environments that one Python has on its path, in its order, and the
            directories for packages of each.

    Raises:
        ProbeError: this machine forbids reading.
    """
    found: list[PythonPackage] = []
    hidden: list[HiddenPackage] = []
    doubled: list[Problem] = []
    problems: list[Problem] = []
    first: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for place in _places(rootfs, roots):
        here: defaultdict[str, list[PythonPackage]] = defaultdict(list)
        try:
            files: Files = Zipped(rootfs, place.path) if place.zipped else rootfs
        except Unreadable as unreadable:
            problems.append(Problem(unreadable.path, unreadable.what))
            continue
        for key, path in _metadata(files, place.path):
            try:
                package = _package(files, key, path, place)
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
            else:
                problems += _contradictions(path, package)
                if not key.startswith("~"):
                    here[key].append(package)
        for key, packages in here.items():
            before = next((path for one, path in first[key] if _same(one, place.python)), "")
            if why := place.hidden or (f"Python finds {before} first" if before else ""):
                hidden += [HiddenPackage(p.name, p.version, p.path, why) for p in packages]
                continue
            first[key].append((place.python, packages[0].path))
            found += packages
            if len({_comparable(p.version) for p in packages}) > 1:
                doubled.append(_doubled(packages))
    return PythonPackages(tuple(found), tuple(hidden), tuple(doubled), tuple(problems))


def _same(one: str, other: str) -> bool:
    """Return whether a Python looks into both, by the versions of their places."""
    return one.startswith(other) if len(other) < 2 else one in ("", other[0], other)


def _places(rootfs: RootFS, roots: Sequence[tuple[str, Sequence[str]]]) -> Iterator[_Place]:
    """Yield the directories of sys.path in order, each real one once."""
    seen: set[tuple[str, str]] = set()
    zips = 0
    for root, packages in roots:
        for place in _own_places(rootfs, root, packages):
            more = _added(rootfs, place) if posixpath.basename(place.path) in _SITES else ()
            for one in (place, *more):
                real = (rootfs.resolve(one.path).final_path, one.python)
                if real in seen or len(seen) >= PLACES_LIMIT:
                    continue
                seen.add(real)
                zips += one.zipped
                if zips <= ZIPS_LIMIT or not one.zipped:
                    yield one


_SITES = ("site-packages", "dist-packages")


def _own_places(rootfs: RootFS, root: str, packages: Sequence[str]) -> list[_Place]:
    """Return the standard library of each Python of an environment, and its packages' places."""
    own = _interpreter(rootfs, root)
    first: list[_Place] = []
    then: list[_Place] = []
    for path in packages:
        library, _, _ = path.rpartition("/")
        match = _VERSION_OF_PYTHON.fullmatch(posixpath.basename(library))
        python = match[1] if match else ""
        why = ""
        if own and "." in python and python != own and not _program(rootfs, root, python):
            why = f"it is of Python {python}, and bin/python3 is Python {own}"
        if "." in python:
            name = posixpath.basename(library)
            lib, lib64 = (f"{root.rstrip('/')}/{one}/{name}" for one in ("lib", "lib64"))
            is_64 = _is_there(rootfs, f"{lib64}/os.py")
            if library == lib64 and not is_64 and _is_there(rootfs, f"{lib}/os.py"):
                why = why or f"Python {python} looks in {lib} alone"
            if is_64 or _is_there(rootfs, f"{lib}/os.py"):
                first.append(_Place(lib64 if is_64 else lib, python, root, why))
        then.append(_Place(path, python, root, why))
    # Enterprise Linux looks into lib64 first; elsewhere it is lib, or nothing looks there.
    then.sort(key=lambda place: not place.path.startswith(f"{root.rstrip('/')}/lib64/"))
    return [*first, *then]


def _interpreter(rootfs: RootFS, root: str) -> str:
    """Return the version of the environment's Python, as far as the name of its file tells; of the
    system, which may have several, ""."""
    if root in ("/usr", "/usr/local", "/"):
        return ""
    for name in ("python3", "python"):
        resolved = rootfs.resolve(f"{root}/bin/{name}")
        match = _VERSION_OF_PYTHON.fullmatch(posixpath.basename(resolved.final_path))
        if resolved.final is not None and match and "." in match[1]:
            return match[1]
    return ""


def _program(rootfs: RootFS, root: str, python: str) -> bool:
    return any(_is_there(rootfs, f"{root}/bin/{kind}{python}") for kind in ("python", "pypy"))


def _is_there(rootfs: RootFS, path: str) -> bool:
    return rootfs.resolve(path).final is not None


def _added(rootfs: RootFS, place: _Place) -> Iterator[_Place]:
    """Yield the places that `.pth` files add; a line that begins with `import` is a program."""
    for name in rootfs.listdir(place.path):
        if not name.endswith(".pth") or name.startswith("."):
            continue
        try:
            content = rootfs.read(f"{place.path}/{name}", PTH_LIMIT).decode("utf-8-sig")
        except (Unreadable, UnicodeDecodeError):
            continue
        for line in content.splitlines()[:PLACES_LIMIT]:
            text = line.rstrip()
            if not text or text.startswith(("#", "import ", "import\t")) or "\0" in text:
                continue
            path = posixpath.normpath(posixpath.join(place.path, text))
            final = rootfs.resolve(path).final
            if final is not None and final.type in ("directory", "file"):
                yield dataclasses.replace(place, path=path, zipped=final.type == "file")


def _metadata(rootfs: Files, directory: str) -> Iterator[tuple[str, str]]:
    """Yield the name under which Python finds a package in a directory, and its metadata."""
    base = posixpath.basename(directory).lower()
    for name in rootfs.listdir(directory):
        path, low = f"{directory}/{name}", name.lower()
        if low.endswith(_ENDS):
            key = normalized(low.rpartition(".")[0].partition("-")[0])
        elif low == "egg-info" and base.endswith(".egg"):
            key = normalized(base.rpartition(".")[0].partition("-")[0])
        else:
            continue
        yield key, _metadata_file(rootfs, path)


def _metadata_file(rootfs: Files, path: str) -> str:
    """Return the file with the metadata in a directory, or `path` itself if it is a file."""
    final = rootfs.resolve(path).final
    if final is not None and final.type == "file":
        return path  # of distutils
    names = _IN_DIRECTORY if path.lower().endswith(".dist-info") else _IN_DIRECTORY[::-1]
    for name in _IN_DIRECTORY:
        file = rootfs.resolve(f"{path}/{name}").final
        if file is not None and file.size:
            return f"{path}/{name}"
    return f"{path}/{names[0]}"


def key_of(path: str) -> str:
    """Return the name under which Python finds the package whose metadata is at a path."""
    named = next((p for p in path.split("/")[::-1] if p.lower().endswith((*_ENDS, ".egg"))), "")
    return normalized(named.lower().rpartition(".")[0].partition("-")[0])


def metadata_files(rootfs: RootFS, directory: str) -> Iterator[str]:
    """Yield the metadata of each package in the directory, found by Python or not."""
    for _, path in _metadata(rootfs, directory):
        yield path


def metadata_header(rootfs: Files, path: str) -> email.message.Message:
    """Read the header of a Python package's metadata.

    Raises:
        Unreadable: there is no such file, or its header is too large.
        ProbeError: this machine forbids reading it.
    """
    content = rootfs.read(path, RECORD_LIMIT)
    # Only the header: the long description after the first empty line is not parsed.
    header = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0]
    if len(header) > _HEADER_LIMIT:
        raise Unreadable(path, f"has a header of more than {_HEADER_LIMIT} bytes")
    return email.parser.BytesHeaderParser().parsebytes(header)


def _package(files: Files, key: str, path: str, place: _Place) -> PythonPackage:
    header = metadata_header(files, path)
    name, version = (str(header.get(one, "")).strip() for one in ("Name", "Version"))
    if not name or not version:
        raise Unreadable(path, "has no Name and Version of a Python package")
    requires = [str(line) for line in header.get_all("Requires-Dist") or []]
    if len(requires) > REQUIRES_LIMIT:
        raise Unreadable(path, f"has more than {REQUIRES_LIMIT} requirements")
    there = place.path if place.zipped else path
    return PythonPackage(key, name, version, tuple(requires), there, place.root)


def _contradictions(path: str, package: PythonPackage) -> Iterator[Problem]:
    """Yield in what the file's name contradicts its content."""
    said = f"{package.name} {package.version}"
    if package.key.startswith("~"):
        # pip renames so what it is about to remove, and ignores what is left.
        yield Problem(path, f"is left of an interrupted pip, which was about to remove {said}")
        return
    if package.key != normalized(package.name):
        what = f"is found by Python as {package.key}, and says that it is {said}"
        yield Problem(path, what)
    version = _named_version(path)
    if version and _comparable(version) != _comparable(package.version):
        yield Problem(path, f"says that it is {said}, in a directory of the version {version}")


def _named_version(path: str) -> str:
    """Return the version in the name `NAME-VERSION.dist-info`, or "" without one of PEP 440."""
    named = next((part for part in path.split("/")[::-1] if part.lower().endswith(_ENDS)), "")
    version = named.rpartition(".")[0].split("-")[1:2]
    return version[0] if version and isinstance(_comparable(version[0]), Version) else ""


def _comparable(version: str) -> Version | str:
    try:
        return Version(version)
    except ValueError:  # no version of PEP 440, or one with a number of thousands of digits
        return version


def _doubled(packages: Sequence[PythonPackage]) -> Problem:
    records = [_record(package.path) for package in packages]
    return Problem(
        packages[0].path,
        f"is one of {len(records)} versions of {packages[0].name} in one directory: "
        f"{' and '.join(posixpath.basename(record) for record in records)}",
    )


def _record(path: str) -> str:
    """Return the directory `NAME.dist-info` of some metadata, or the file that is all of it."""
    return path if path.lower().endswith(_ENDS) else posixpath.dirname(path)


def normalized(name: str) -> str:
    """Return a name as importlib.metadata compares it."""
    return re.sub(r"[-_.]+", "-", name).lower().replace("-", "_")
