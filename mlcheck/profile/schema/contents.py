"""The keys of an `image.toml` about the contents of an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mlcheck.profile.schema.table import AbsolutePath, ByteSize, Glob, Reason, Table

CPU_LEVEL = "_x86_64-microarch-level"
"""conda's package whose version is the microarchitecture level that the others were built for."""


class Os(Table):
    """The operating system, as /etc/os-release states it."""

    id: str
    """ID ("almalinux")."""
    version: str
    """VERSION_ID, or its leading parts ("9" for 9.5)."""


class Python(Table):
    """The Python that is first on the image's PATH."""

    version: str
    """Leading parts of its version ("3.11")."""


class Micromamba(Table):
    """The package manager micromamba: one statically linked ELF file."""

    path: AbsolutePath
    """Path of the program."""
    link: AbsolutePath | None = None
    """A second name of the same file."""


class Package(Table):
    """One promised package."""

    version: str = "*"
    """Its version; `*` matches any text ("2.15.*")."""
    module: str | Literal[False] | None = Field(default=None, alias="import")
    """Name of the module to import; false if it has none. If omitted: the package's name with `_`
    for `-`."""


class Packages(Table):
    """The package list and the packages in it."""

    list: AbsolutePath | None = None
    """Path of the list in the image."""
    sorted: bool = False
    """Whether its lines are sorted regardless of case, as `LC_ALL=C sort -f` does it."""
    checked_in: str | None = None
    """Its checked-in copy, as a path relative to the image.toml."""
    system: tuple[str, ...] = ()
    """rpm or dpkg packages that the list names (with their architecture)."""
    required: dict[str, Package] = {}
    """The promised packages of conda or pip."""
    requested: dict[str, str | Literal[False]] | None = None
    """Package that was requested by name (`conda env export --from-history`; `*` matches any text)
    = the name by which Python imports it or R's library() loads it, or false if there is nothing to
    load. Packages not named here are loaded by their own names (`r-NAME` in R). If omitted:
    requested packages are not loaded."""
    contains_base: bool = False
    """Whether the image must have every package of the image that it extends, in any version."""

    @property
    def cpu_level(self) -> int | None:
        """The microarchitecture level of x86-64 that is promised, where conda's package tells."""
        package = self.required.get(CPU_LEVEL)
        return int(package.version) if package is not None and package.version.isdigit() else None

    def modules(self) -> dict[str, str]:
        """Map each package to the module that must be importable."""
        return {
            name: package.module or name.replace("-", "_")
            for name, package in self.required.items()
            if package.module is not False
        }


class PromisedFile(Table):
    """One promised path."""

    type: Literal["file", "directory", "symlink"] = "file"
    """The type of file. A symlink is followed unless the type is "symlink"."""
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3,4}$")] | None = None
    """Permission bits in octal; a symlink is followed. If omitted: everybody can read the file, and
    only its owner and group can write it."""
    target: Glob | None = None
    """Target of a symlink, as written; `*` matches any text. A path, or `*` and a path such as
    `*/opt/conda/bin/zsh`, is also the place to which it must lead in the image."""


class Size(Table):
    """Maximum size of the image, with a unit ("1.2 GB" is 1.2 * 10^9 bytes)."""

    file: ByteSize | None = None
    """As a SIF file, which is compressed."""
    unpacked: ByteSize | None = None
    """All its files unpacked; a file with several names counts once."""


class Rpath(Table):
    """RPATH and RUNPATH of every ELF file in the prefix."""

    forbidden: tuple[AbsolutePath, ...] = ()
    """No entry may be one of these directories or below one."""
    required: dict[AbsolutePath, tuple[str, ...]] = {}
    """ELF file = entries that it must have."""


class Libraries(Table):
    """Shared libraries that the loader must find."""

    system: tuple[str, ...] = ()
    """Sonames that must be found in the system, not in the prefix."""


class Framework(Table):
    """The framework of a machine-learning image."""

    module: Literal["tensorflow", "torch"]
    """The Python package."""
    cuda: str | Literal[False]
    """The CUDA version that it was built for, or its leading parts; false if it was built without
    CUDA and needs no GPU."""
    opens: tuple[str, ...] = ()
    """Sonames of CUDA libraries that it opens by name at run time: no ELF file names them."""
    script: AbsolutePath | None = None
    """The image's own test of it: a Python program that exits with 0 and prints the version."""
    hints: tuple[AbsolutePath, ...] = ()
    """Scripts that warn a user, when a shell starts, that the image lacks the GPU's driver."""


class RootConfig(Table):
    """The output of `root-config`."""

    libs: tuple[str, ...]
    """Words that `root-config --libs` must print."""


class Scripts(Table):
    """Scripts in the prefix's bin/."""

    portable: tuple[Glob, ...] = ()
    """Names whose first line must not contain the prefix, so that they work in a moved copy."""
    installed: tuple[Glob, ...] = ()
    """Paths of programs that everybody can execute. Those that are wrappers (shell scripts that
    pass "$@" on) must find the program they call."""
    speaking: tuple[Glob, ...] = ()
    """Names of programs that must print something when asked for their version or for help."""


class Replaced(Table):
    """A file of a conda package in whose place the image has another."""

    why: Reason
    """Why it must not be the package's own."""
    by: AbsolutePath | None = None
    """File that it must equal, or the directory with that file under the same name. If omitted: a
    library must be a library, anything else any other file."""


class Integrity(Table):
    """Files of conda packages that the image changes on purpose."""

    replaced: dict[Glob, Reason | Replaced | Literal[False]] = {}
    """File (with `*`) = why it must not be the package's own, or a table; false cancels this in a
    parent."""
    edited: dict[Glob, Reason] = {}
    """File (with `*`) = why it may differ from the package's own."""
    removed: dict[Glob, Reason] = {}
    """File (with `*`) = why it may be missing."""

    def replacements(self) -> dict[str, Replaced]:
        """Return the replaced files, without those that are cancelled."""
        return {
            glob: Replaced(why=one) if isinstance(one, str) else one
            for glob, one in self.replaced.items()
            if one
        }


class Deployed(Table):
    """An image that is deployed as a directory for many users: /.singularity.d must be complete,
    and everything must be readable by others."""

    private: tuple[Glob, ...] = ()
    """Files and directories that others need not read (with `*`)."""


class Parity(Table):
    """Allowed differences from the image that this one is compared with. Each entry is a name (with
    `*`) = the reason."""

    os: Reason | None = None
    """Why the version of the operating system may differ, and with it the versions of its packages.
    A package that is missing on one side is still a difference."""
    packages: dict[Glob, Reason] = {}
    """Packages whose versions may differ, or that only one image has, as NAME or MANAGER:NAME
    ("conda:cudatoolkit", "pip:*", "dpkg:lib*", "R:*")."""
    kernels: dict[Glob, Reason] = {}
    """Jupyter kernels."""
    tools: dict[Glob, Reason] = {}
    """Programs on PATH, by name or by path."""
    environment: dict[Glob, Reason] = {}
    """Variables, "label NAME", "entrypoint", "cmd", "user", "workdir" and "exposed"."""
    files: dict[Glob, Reason] = {}
    """Files by path, or by package ("conda:pytorch", for another build of the same version)."""


class Layers(Table):
    """Limits on the layers of images of docker and podman, and of archives."""

    max_size: ByteSize | None = None
    """Bytes of all files in all layers ("8 GB")."""
    max_waste: ByteSize | None = None
    """Bytes that may be wasted ("100 MB"). Three kinds count, and each may reach the limit: second
    copies of files of which a layer changes only owner or mode; files that a later layer deletes or
    replaces; caches of package managers."""
    allowed: dict[Glob, Annotated[str, Field(min_length=1)]] = {}
    """File (with `*`) = why it is no secret although it looks so, or why a cache is wanted."""
