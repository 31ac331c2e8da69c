"""The contents of an `image.toml`: one definition for validation and for the editors' schema.

Every key is optional: a rule about which a profile says nothing does not apply to its image.
"""

from __future__ import annotations

import datetime
import fnmatch
import posixpath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mlcheck.profile.schema.contents import (
    Deployed,
    Framework,
    Integrity,
    Layers,
    Libraries,
    Micromamba,
    Os,
    Packages,
    Parity,
    PromisedFile,
    Python,
    RootConfig,
    Rpath,
    Scripts,
    Size,
)
from mlcheck.profile.schema.jupyter import (
    JupyterLab,
    Kernelspec,
    Kernelspecs,
    Notebook,
    RunServer,
    Server,
    Task,
    User,
)
from mlcheck.profile.schema.starting import (
    Banner,
    Configuration,
    Entrypoint,
    Environment,
    NewEnv,
    OnHost,
)
from mlcheck.profile.schema.table import AbsolutePath, Glob, Table


def _plain(path: str) -> str:
    """Normalise a path, so that it is a prefix of the paths below it."""
    return "/" + posixpath.normpath(path).lstrip("/")


class Tags(Table):
    """The tags of the image."""

    pattern: str
    """A regular expression for the whole tag. `{tag.NAME}` in any string of the profile is replaced
    by the group NAME."""
    examples: tuple[str, ...] = ()
    """Published tags, named in messages and listed by `mlcheck images`."""


class Waiver(Table):
    """A known deviation: reported as waived until its end date, and as a failure after it."""

    check: str
    """Id of the rule, as its failures print it."""
    match: Glob = "*"
    """The findings to waive, compared with the finding's subject; `*` matches any text."""
    reason: Annotated[str, Field(min_length=1)]
    """Why this is accepted, with a link if there is one."""
    until: datetime.date
    """Last day on which it is accepted."""


class Expectations(Table):
    """The expectations for one image."""

    prefix: Annotated[AbsolutePath, AfterValidator(_plain)] | None = None
    """Root of the environment: of conda, a virtual environment, or a Python (/usr/local)."""
    os: Os | None = None
    python: Python | None = None
    micromamba: Micromamba | None = None
    packages: Packages = Packages()
    commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Name = argv of a command that must exit with 0 and print something."""
    shells: tuple[AbsolutePath, ...] = ()
    """Shells that must run a command given with -c."""
    files: dict[AbsolutePath, PromisedFile] = {}
    environment: Environment = Environment()
    entrypoint: Entrypoint | None = None
    startable: bool = False
    """Whether the user and the program that the image's configuration names, whichever they are,
    must be in the image."""
    banner: Banner | None = None
    configuration: Configuration | None = None
    kernelspecs: Kernelspecs | None = None
    jupyterlab: JupyterLab | None = None
    user: User | None = None
    server: Server | None = None
    tasks: dict[str, Task] = {}
    """Name = a program that must work, for example one that draws."""
    notebooks: dict[str, Notebook] = {}
    """Kernel = a notebook that `jupyter nbconvert --execute` must execute."""
    agreements: dict[str, dict[AbsolutePath, str]] = {}
    """Something that several files state (a version) = by file (with `*`), a regular expression
    whose group 1 is what the file states. All files must agree."""
    run_server: RunServer | None = None
    size: Size | None = None
    rpath: Rpath | None = None
    libraries: Libraries = Libraries()
    framework: Framework | None = None
    root_config: RootConfig | None = None
    new_env: NewEnv | None = None
    on_host: OnHost | None = None
    scripts: Scripts | None = None
    integrity: Integrity = Integrity()
    deployed: Deployed | None = None
    parity: Parity = Parity()
    layers: Layers = Layers()
    severity: dict[Glob, Literal["error", "warning"]] = {}
    """Rule (with `*`) = error, or warning: what it finds is shown, and does not fail the image
    unless --fail-on says so."""
    waivers: tuple[Waiver, ...] = ()

    def severity_of(self, rule: str) -> Literal["error", "warning"]:
        """The severity of a rule: what its id says, or else the last pattern that fits."""
        fitting = [name for name in self.severity if fnmatch.fnmatchcase(rule, name)]
        key = rule if rule in self.severity else next(reversed(fitting), None)
        return "error" if key is None else self.severity[key]

    def kernels(self) -> dict[str, Kernelspec]:
        """The kernels of the generation that the image has, by name."""
        specs = self.kernelspecs
        return specs.generations.get(specs.generation, {}) if specs else {}


class Published(Table):
    """Places where an image is published. `{name}` is the profile's name, `{tag}` each of
    `tags.examples`, and `{tag.NAME}` a group of `tags.pattern`."""

    registry: Annotated[str, Field(pattern=r"^(localhost|[^/{}]*[.:][^/{}]*)/.*\{tag\}$")]
    """Its reference in a registry, with the registry's host ("docker.io/me/{name}:{tag}")."""
    cvmfs: tuple[Annotated[str, Field(pattern=r"^/.*\{tag[.}]")], ...] = ()
    """Directories that hold it unpacked, on CVMFS or any other file system that machines share."""


class ImageToml(Expectations):
    """The whole of an `image.toml`."""

    description: str = ""
    """The purpose of the image, in one sentence."""
    extends: str | None = None
    """Name of the profile whose expectations and tests this one inherits."""
    aliases: tuple[str, ...] = ()
    """Other names of the image."""
    tags: Tags | None = None
    published: Published | None = None
    """If omitted: inherited from the profile that this one extends, provided both are in one
    directory of profiles."""
    variants: dict[Glob, Expectations] = {}
    """Tag (with `*`) = expectations of the images with that tag, merged over those above."""
