"""Aspects for a comparison of two images: packages, kernels, tools, configuration, every file."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import posixpath
import threading
from collections.abc import Iterator
from typing import BinaryIO, TypedDict

from packaging.utils import canonicalize_name

from mlcheck.engines import installed as installed_engines
from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import path_of
from mlcheck.inspect.conda import records as conda_records
from mlcheck.inspect.facts import Session
from mlcheck.inspect.jupyter import kernelspecs
from mlcheck.inspect.packages import installed, python_packages, r_packages
from mlcheck.inspect.parity.facts import (
    FileContent,
    ImageFiles,
    OtherFiles,
    OtherImage,
    OtherSide,
    Side,
    Tools,
)
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.facts import Prefix, Prefixes
from mlcheck.inspect.registry import fact
from mlcheck.inspect.system import probe as system
from mlcheck.model.environment import Environment
from mlcheck.model.errors import needed
from mlcheck.model.files import File

FILE_LIMIT = 4 * 1024**3
"""Bytes of a file whose content is read; larger ones are compared by size."""

TOTAL_LIMIT = 64 * 1024**3
"""Bytes that are read of one image; later files are compared by size."""

_CHUNK = 1024 * 1024

_OF_ENGINES = (
    *("/proc", "/sys", "/dev", "/run", "/tmp"),  # noqa: S108 -- paths of an image
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv"),
    *("/.singularity.d", "/singularity", "/environment"),
    *("/.exec", "/.run", "/.shell", "/.test"),
)
"""Files that an engine puts into every image that it opens or converts, or that exist only at run
time."""

_NOTED = (
    *("/var/lib/dpkg", "/var/lib/apt", "/var/lib/rpm", "/usr/lib/sysimage/rpm"),
    *("/var/cache/apt", "/var/cache/dnf", "/var/cache/ldconfig", "/etc/ld.so.cache", "/var/log"),
)
"""Files in which package managers note their actions, with times: the packages are compared."""

_DPKG_LISTS = "/var/lib/dpkg/info"
_DPKG_LIMIT = 32 * 1024 * 1024


@fact()
def side(image: OpenImage, ask: Ask) -> Side:
    """Collect the aspects of the judged image."""
    return probe(image, ask, image.ref.text)


@fact()
def image_files(rootfs: RootFS, ask: Ask, side: Side) -> ImageFiles:
    """Read all files of the judged image."""
    return ask(files, rootfs, side.environments)


@fact()
def other_image(session: Session, stack: contextlib.ExitStack) -> OtherImage:
    """The image of --compare."""
    why = "no image to compare with was given (--compare IMAGE)"
    return OtherImage(needed(session.compared, why)(stack))


@fact()
def other_side(other: OtherImage) -> OtherSide:
    """The image of --compare, with its aspects."""
    return OtherSide(other[Side])


@fact()
def other_files(other: OtherImage) -> OtherFiles:
    """All files of the image of --compare."""
    return OtherFiles(other[ImageFiles])


def probe(image: OpenImage, static: Ask, name: str) -> Side:
    """Collect all aspects but the files, of every environment in the image.

    Args:
        name: name of the image for people.

    Raises:
        ProbeError: this machine forbids reading a file.
        EngineError: rpm or micromamba had to be run and the engine failed.
    """
    environments = static(prefixes.find, image.rootfs)
    packages = installed.probe(image, static, environments)
    of_r = static(r_packages.probe, image.rootfs, environments)
    return Side(
        name,
        static(system.os_release, image.rootfs),
        installed.with_more(packages, of_r),
        static(kernelspecs.from_files, image.rootfs, image.environment, environments),
        static(tools, image.rootfs, image.environment),
        image.environment,
        environments,
        # Files that a user unpacked without root, and files on CVMFS, all belong to one owner.
        owns=installed_engines.declaration(image.engine).keeps_owners,
    )


def tools(rootfs: RootFS, environment: Environment) -> Tools:
    """Find every executable file on PATH, by the name that starts it.

    Raises:
        ProbeError: this machine forbids looking.
    """
    found: dict[str, str] = {}
    for entry in path_of(environment.env).split(":"):
        directory = entry.rstrip("/")
        if not directory.startswith("/"):
            continue  # depends on the working directory
        for name in rootfs.listdir(directory):
            if name in found:
                continue
            final = rootfs.resolve(f"{directory}/{name}").final
            if final is not None and final.type == "file" and final.mode & 0o111:
                found[name] = f"{directory}/{name}"
    return Tools(found)


def files(rootfs: RootFS, environments: Prefixes) -> ImageFiles:
    """Read every file, except byte code, which holds the time of its source, and the notes of
    engines and package managers.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    records = (f"{one.path}/conda-meta" for one in environments.found if one.kind == "conda")
    noted = (*_OF_ENGINES, *_NOTED, *records)

    def wanted(path: str, _: bytes = b"") -> bool:
        return not path.endswith(".pyc") and not any(
            path == top or path.startswith(f"{top}/") for top in noted
        )

    # The walk comes first, since a complete listing saves listing by name.
    files = [file for file in rootfs.walk("/") if wanted(file.path) and not _for_byte_code(file)]
    reading = _Reading()
    digests: dict[str, str] = {}
    links: dict[tuple[int, int], str] = {}
    for file, digest in rootfs.each("/", wanted, reading.digest):
        if isinstance(digest, Unreadable):
            continue
        digests[file.path] = digest
        if file.inode != (0, 0):
            links[file.inode] = digest
    owners = dict(_owners(rootfs, environments))
    return ImageFiles(
        tuple(
            FileContent(
                path=file.path,
                type=file.type,
                mode=file.mode,
                uid=file.uid,
                gid=file.gid,
                # Of a directory it is what the file system needs for it.
                size=0 if file.type == "directory" else file.size,
                target=file.target,
                digest=(
                    digests.get(file.path) or links.get(file.inode, "")
                    if file.type == "file"
                    else ""
                ),
                **(owners.get(file.path, _NOBODY) if file.type != "directory" else _NOBODY),
            )
            for file in files
        ),
        reading.unread,
    )


def _for_byte_code(file: File) -> bool:
    return file.type == "directory" and file.path.endswith("/__pycache__")


class _Reading:
    """Digests of files' contents, computed by several threads within one limit."""

    def __init__(self) -> None:
        self._left = TOTAL_LIMIT
        self._lock = threading.Lock()
        self.unread = 0

    def digest(self, file: File, content: BinaryIO) -> str:
        with self._lock:
            # A file that grows while it is read is cut at the size it had.
            if file.size > FILE_LIMIT or file.size > self._left:
                self.unread += 1
                return ""
            self._left -= file.size
        digest, left = hashlib.blake2b(digest_size=16), file.size
        while left > 0 and (chunk := content.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return digest.hexdigest()


class _Owner(TypedDict):
    package: str
    prefix: str


_NOBODY = _Owner(package="", prefix="")


def _owners(rootfs: RootFS, environments: Prefixes) -> Iterator[tuple[str, _Owner]]:
    """Yield each path that a package's record lists, with the package. Of two, the later one
    counts."""
    for path, package in _of_dpkg(rootfs):
        yield path, _Owner(package=package, prefix="")
    for prefix in environments.found:
        for path, package in _of_pip(rootfs, prefix):
            yield path, _Owner(package=package, prefix=prefix.path)
        if prefix.kind == "conda":
            for file in conda_records.read(rootfs, prefix.path).files:
                package = f"conda:{canonicalize_name(file.package)}"
                yield file.path, _Owner(package=package, prefix=prefix.path)


def _of_pip(rootfs: RootFS, prefix: Prefix) -> Iterator[tuple[str, str]]:
    """Read RECORD:
    https://packaging.python.org/en/latest/specifications/recording-installed-packages/"""
    for directory in prefix.packages:
        real = rootfs.resolve(directory).final_path
        for path in python_packages.metadata_files(rootfs, directory):
            if not path.endswith("/METADATA"):
                continue
            try:
                name = str(python_packages.metadata_header(rootfs, path).get("Name", "")).strip()
                record = rootfs.read(f"{path.removesuffix('METADATA')}RECORD", _DPKG_LIMIT)
                rows = list(csv.reader(record.decode("utf-8", "surrogateescape").splitlines()))
            except (Unreadable, csv.Error):
                continue  # the installer of a file is then unknown
            package = f"pip:{canonicalize_name(name)}"
            for row in rows:
                if row and row[0]:
                    yield posixpath.normpath(posixpath.join(real, row[0])), package


def _of_dpkg(rootfs: RootFS) -> Iterator[tuple[str, str]]:
    real: dict[str, str] = {}
    for name in rootfs.listdir(_DPKG_LISTS):
        if not name.endswith(".list"):
            continue
        try:
            content = rootfs.read(f"{_DPKG_LISTS}/{name}", _DPKG_LIMIT)
        except Unreadable:
            continue
        package = f"dpkg:{canonicalize_name(name.removesuffix('.list').partition(':')[0])}"
        for path in content.decode("utf-8", "surrogateescape").splitlines():
            directory, _, last = path.rpartition("/")
            # Debian's lists say /bin/ls where /bin leads to /usr/bin.
            if directory not in real:
                real[directory] = rootfs.resolve(directory or "/").final_path.rstrip("/")
            yield f"{real[directory]}/{last}", package
