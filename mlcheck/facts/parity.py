"""What two images are compared in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mlcheck.facts.files import FileType
from mlcheck.facts.jupyter import Kernelspecs
from mlcheck.facts.packages import InstalledPackages
from mlcheck.facts.prefixes import Prefixes
from mlcheck.facts.system import Environment, OsRelease


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs on the image's PATH: name to the path of the one that is started."""

    paths: Mapping[str, str]


class FileContent(NamedTuple):
    """One file of the image with its content; a tuple, as `File` is.

    Args:
        digest: BLAKE2b of the content in hex; "" for what is no regular file or was not read.
        package: "conda:NAME", "pip:NAME" or "dpkg:NAME", who installed it; "" for nobody.
        prefix: root of the environment in which that package is; "": the system.
    """

    path: str
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    target: str | None
    digest: str
    package: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """All files that an image was given by its build.

    Args:
        unread: how many were too large, or too many together, to read their content.
    """

    files: tuple[FileContent, ...]
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """One of two images that are compared.

    Args:
        name: what people call it.
        environments: of conda and Python, whose packages are among `packages`.
        owns: whether the engine shows the image's own owners of files; a directory that a user
            unpacked has that user's.
    """

    name: str
    system: OsRelease
    packages: InstalledPackages
    kernels: Kernelspecs
    tools: Tools
    environment: Environment
    environments: Prefixes
    owns: bool = True
