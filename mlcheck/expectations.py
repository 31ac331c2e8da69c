"""What an `image.toml` may say: the one definition behind validation and the editors' schema.

Every key is optional: a rule about which a profile says nothing does not apply to its image.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AbsolutePath = Annotated[str, Field(pattern=r"^/")]
Glob = Annotated[str, Field(min_length=1)]


class Table(BaseModel):
    """A TOML table: unknown keys are errors, and values are not converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Tags(Table):
    """Which tags the image has."""

    pattern: str
    """A regular expression for the whole tag. `{tag.NAME}` in any string of the profile stands
    for its group NAME."""
    examples: tuple[str, ...] = ()
    """Published tags, named in messages."""


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


class Environment(Table):
    """Variables of the image's configuration."""

    equals: dict[str, str] = {}
    """Variable = value."""
    starts: dict[str, tuple[str, ...]] = {}
    """Variable = first entries of its colon-separated list; an engine may append others."""


class Entrypoint(Table):
    """How the image is started by default."""

    argv: tuple[str, ...]
    """ENTRYPOINT."""
    cmd: tuple[str, ...] | None = None
    """CMD."""


class Kernelspec(Table):
    """One promised kernel."""

    argv: tuple[str, ...]
    display_name: str
    language: str = "python"
    metadata: dict[str, bool | int | str] = {}
    """Entries that its metadata must have."""


class Kernelspecs(Table):
    """The Jupyter kernels: exactly these, none from the host or the user."""

    generation: str
    """Which of the generations this image follows."""
    generations: dict[str, dict[str, Kernelspec]]
    """By generation, by name of the kernel."""


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


class RootConfig(Table):
    """What `root-config` answers."""

    libs: tuple[str, ...]
    """Words that `root-config --libs` must print."""


class Scripts(Table):
    """Scripts in the prefix's bin/."""

    portable: tuple[Glob, ...] = ()
    """Names whose first line must not hold the prefix, so that they work in a moved copy."""


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


class Waiver(Table):
    """A known deviation: reported as waived until its end date, failing again after it."""

    check: str
    """Name of the check, as its failures begin with it."""
    match: Glob = "*"
    """Which of its findings: compared with the finding's subject; `*` stands for any text."""
    reason: Annotated[str, Field(min_length=1)]
    """Why this is accepted, with a link where there is one."""
    until: datetime.date
    """Last day on which it is accepted."""


class Expectations(Table):
    """What one image is expected to be."""

    prefix: AbsolutePath | None = None
    """Root of the conda environment."""
    os: Os | None = None
    python: Python | None = None
    micromamba: Micromamba | None = None
    packages: Packages = Packages()
    commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Name = argv of a command that must exit with 0 and print something."""
    shells: tuple[AbsolutePath, ...] = ()
    """Shells that must run a command given by -c."""
    files: dict[AbsolutePath, PromisedFile] = {}
    environment: Environment = Environment()
    entrypoint: Entrypoint | None = None
    kernelspecs: Kernelspecs | None = None
    rpath: Rpath | None = None
    libraries: Libraries = Libraries()
    root_config: RootConfig | None = None
    scripts: Scripts | None = None
    integrity: Integrity = Integrity()
    deployed: Deployed | None = None
    waivers: tuple[Waiver, ...] = ()


class ImageToml(Expectations):
    """The whole of an `image.toml`."""

    description: str = ""
    """What the image is for, one sentence."""
    extends: str | None = None
    """Name of the profile whose expectations and tests this one takes over."""
    tags: Tags | None = None
    variants: dict[Glob, Expectations] = {}
    """Tag (with `*`) = expectations of the images with that tag, over those above."""
