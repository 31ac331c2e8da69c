"""The aspects in which two images are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, NewType

from mlcheck.inspect.facts import Facts
from mlcheck.inspect.jupyter.facts import Kernelspecs
from mlcheck.inspect.packages.facts import InstalledPackages
from mlcheck.inspect.prefix.facts import Prefixes
from mlcheck.inspect.system.facts import OsRelease
from mlcheck.model.environment import Environment
from mlcheck.model.files import FileType


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs on the image's PATH, by name: the path of the one that is started."""

    paths: Mapping[str, str]


class FileContent(NamedTuple):
    """One file of the image with its content; a tuple, as `File` is.

    Args:
        digest: BLAKE2b of the content in hex, or "" if it is no regular file or was not read.
        package: the package that installed it: "conda:NAME", "pip:NAME" or "dpkg:NAME"; "" if there
            is none.
        prefix: root of the package's environment, or "" for the system.
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
    """The files that an image has from its build.

    Args:
        unread: number of files that were too large, or too many together, to read their content.
    """

    files: tuple[FileContent, ...]
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """One of two images that are compared.

    Args:
        name: name of the image for people.
        environments: environments of conda and Python, whose packages are among `packages`.
        owns: True if the engine shows the image's own owners of files; a directory that a user
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


OtherImage = NewType("OtherImage", Facts)
"""The facts of the image that the judged one is compared with."""

OtherSide = NewType("OtherSide", Side)
"""That image, as it is compared."""

OtherFiles = NewType("OtherFiles", ImageFiles)
"""All files of that image."""
