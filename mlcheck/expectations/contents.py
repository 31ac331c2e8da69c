"""What an `image.toml` may say of what is in an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mlcheck.expectations.table import AbsolutePath, ByteSize, Glob, Reason, Table


class Os(Table):
    """The operating system, as /etc/os-release tells it."""

    id: str
    """ID ("almalinux")."""
    version: str
    """VERSION_ID, or its leading parts ("9" for 9.5)."""


class Python(Table):
    """The Python that the image's PATH starts."""

    version: str
    """Leading parts of its version ("3.11")."""


class Micromamba(Table):
    """The package manager: one statically linked ELF file."""

    path: AbsolutePath
    """The program."""
    link: AbsolutePath | None = None
    """A second name of the same file."""


class Package(Table):
    """One promised package."""

    version: str = "*"
    """Its version; `*` stands for any text ("2.15.*")."""
    module: str | Literal[False] | None = Field(default=None, alias="import")
    """Name of the module to import; false: it has none. Left out: the package's name with `_`
    for `-`."""


class Packages(Table):
    """The package list and the packages in it."""

    list: AbsolutePath | None = None
    """The list inside the image."""
    checked_in: str | None = None
    """Its copy outside, a path relative to the image.toml."""
    system: tuple[str, ...] = ()
    """Packages of rpm or dpkg that the list names (with their architecture)."""
    required: dict[str, Package] = {}
    """The promised packages of conda or pip."""
    requested: dict[str, str | Literal[False]] | None = None
    """Package that somebody asked for by name (`conda env export --from-history`; `*` stands for
    any text) = the name by which Python imports it or R's library() loads it; false: there is
    nothing to load. What is not here is loaded by its own name (`r-NAME` in R). Left out: what was
    asked for is not tried."""
    contains_base: bool = False
    """Whether every package of the image that this one extends is in it too, with any version."""

    def modules(self) -> dict[str, str]:
        """Package name to the module that it must let import."""
        return {
            name: package.module or name.replace("-", "_")
            for name, package in self.required.items()
            if package.module is not False
        }


class PromisedFile(Table):
    """One promised path."""

    type: Literal["file", "directory", "symlink"] = "file"
    """What is there; a symlink is not followed if "symlink" is asked, else it may lead there."""
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3,4}$")] | None = None
    """Permission bits in octal, of what a symlink leads to. Left out: everybody can read it, and
    only its owner and group can write."""
    target: Glob | None = None
    """Where a symlink points, as it is written; `*` stands for any text."""


class Size(Table):
    """How large the image may be, with its unit ("1.2 GB" is 1.2 * 10^9 bytes)."""

    file: ByteSize | None = None
    """As a SIF file, which is compressed."""
    unpacked: ByteSize | None = None
    """All its files, each counted once however many names it has."""


class Rpath(Table):
    """RPATH and RUNPATH of every ELF file of the prefix."""

    forbidden: tuple[AbsolutePath, ...] = ()
    """No entry may be one of these directories or lie under it."""
    required: dict[AbsolutePath, tuple[str, ...]] = {}
    """ELF file = entries that it must have."""


class Libraries(Table):
    """Shared libraries that the loader must find."""

    system: tuple[str, ...] = ()
    """Sonames that must come from the system, not from the prefix."""


class Framework(Table):
    """The framework of a machine-learning image."""

    module: Literal["tensorflow", "torch"]
    """The Python package."""
    cuda: str | Literal[False]
    """The CUDA version that it was built for, or its leading parts; false: it was built for none,
    and asks nothing of a GPU."""
    opens: tuple[str, ...] = ()
    """Sonames of CUDA's libraries that it opens by name when it is used, so that no ELF file tells
    of them."""
    script: AbsolutePath | None = None
    """The image's own check of it, a Python program that ends with 0 and prints the version."""
    hints: tuple[AbsolutePath, ...] = ()
    """Scripts that tell a user, when a shell starts, that the GPU's driver is not in there."""


class RootConfig(Table):
    """What `root-config` answers."""

    libs: tuple[str, ...]
    """Words that `root-config --libs` must print."""


class Scripts(Table):
    """Scripts in the prefix's bin/."""

    portable: tuple[Glob, ...] = ()
    """Names whose first line must not hold the prefix, so that they work in a moved copy."""
    installed: tuple[Glob, ...] = ()
    """Paths of programs that everybody can execute; those of them that are wrappers (shell scripts
    that hand "$@" on) must find what they call."""
    speaking: tuple[Glob, ...] = ()
    """Names of programs that must print something when asked for their version or for help."""


class Integrity(Table):
    """Files of conda packages that the image changes on purpose."""

    replaced: dict[Glob, Annotated[str, Field(min_length=1)] | Literal[False]] = {}
    """File (with `*`) = why it must not be the package's own; false: it must be, whatever a
    parent says."""
    edited: dict[Glob, Annotated[str, Field(min_length=1)]] = {}
    """File (with `*`) = why it may differ from the package's own."""


class Deployed(Table):
    """An image that is deployed as a directory for many users: with all of /.singularity.d, and
    readable by others."""

    private: tuple[Glob, ...] = ()
    """Files and directories that others need not read (with `*`)."""


class Parity(Table):
    """What may differ between this image and the one that it is compared with. Each entry is a
    name (with `*`) = the reason."""

    os: Reason | None = None
    """Why the version of the operating system may differ, and with it the versions of its
    packages; that one is missing on one side is not allowed by this."""
    packages: dict[Glob, Reason] = {}
    """Packages, as NAME or MANAGER:NAME ("conda:cudatoolkit", "pip:*", "dpkg:lib*", "R:*"): with
    other versions, or on one side alone."""
    kernels: dict[Glob, Reason] = {}
    """Jupyter kernels."""
    tools: dict[Glob, Reason] = {}
    """Programs on PATH, by name or by path."""
    environment: dict[Glob, Reason] = {}
    """Variables, "label NAME", "entrypoint", "cmd", "user", "workdir" and "exposed"."""
    files: dict[Glob, Reason] = {}
    """Files by path, or all of a package ("conda:pytorch", for another build of one version)."""


class Layers(Table):
    """What the layers of the image may hold: of docker's and podman's images, and of archives."""

    max_size: ByteSize | None = None
    """Bytes of all files in all layers ("8 GB")."""
    max_waste: ByteSize | None = None
    """Bytes that may be stored in vain ("100 MB"): second copies of files of which a layer changes
    only owner or mode; files that a later layer deletes or replaces; caches of package managers.
    Each of these three may have as much."""
    allowed: dict[Glob, Annotated[str, Field(min_length=1)]] = {}
    """File (with `*`) = why it is no secret although it looks like one, or why this cache is
    wanted."""
