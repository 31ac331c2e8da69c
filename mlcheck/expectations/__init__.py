"""What an `image.toml` may say: the one definition behind validation and the editors' schema.

Every key is optional: a rule about which a profile says nothing does not apply to its image.
"""

from __future__ import annotations

import datetime
import posixpath
from typing import Annotated

from pydantic import AfterValidator, Field

from mlcheck.expectations.contents import (
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
from mlcheck.expectations.jupyter import (
    JupyterLab,
    Kernelspec,
    Kernelspecs,
    Notebook,
    RunServer,
    Server,
    Task,
    User,
)
from mlcheck.expectations.starting import (
    Banner,
    Configuration,
    Entrypoint,
    Environment,
    NewEnv,
    OnHost,
)
from mlcheck.expectations.table import AbsolutePath, Glob, Table


def _plain(path: str) -> str:
    """A path as it begins the paths of what is below it."""
    return "/" + posixpath.normpath(path).lstrip("/")


class Tags(Table):
    """Which tags the image has."""

    pattern: str
    """A regular expression for the whole tag. `{tag.NAME}` in any string of the profile stands
    for its group NAME."""
    examples: tuple[str, ...] = ()
    """Published tags, named in messages and listed by `mlcheck images`."""


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

    prefix: Annotated[AbsolutePath, AfterValidator(_plain)] | None = None
    """Root of the environment: conda's, a virtual one, or where a Python lies (/usr/local)."""
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
    banner: Banner | None = None
    configuration: Configuration | None = None
    kernelspecs: Kernelspecs | None = None
    jupyterlab: JupyterLab | None = None
    user: User | None = None
    server: Server | None = None
    tasks: dict[str, Task] = {}
    """Name = a program that must work, such as one that draws."""
    notebooks: dict[str, Notebook] = {}
    """Kernel = a notebook that `jupyter nbconvert --execute` must execute."""
    agreements: dict[str, dict[AbsolutePath, str]] = {}
    """What several files tell (a version) = by file (with `*`), a regular expression whose group 1
    is what it tells there; all must tell the same."""
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
    waivers: tuple[Waiver, ...] = ()

    def kernels(self) -> dict[str, Kernelspec]:
        """The kernels of the generation that the image follows, by name."""
        specs = self.kernelspecs
        return specs.generations.get(specs.generation, {}) if specs else {}


class Published(Table):
    """Where an image is published. `{name}` stands for the profile's name, `{tag}` for each of
    `tags.examples`."""

    registry: Annotated[str, Field(pattern=r"^(localhost|[^/{}]*[.:][^/{}]*)/.*\{tag\}$")]
    """Its reference in a registry, with the registry's host ("docker.io/me/{name}:{tag}")."""
    cvmfs: tuple[Annotated[str, Field(pattern=r"^/.*\{tag\}")], ...] = ()
    """Directories that hold it unpacked, on CVMFS or whatever else many machines share."""


class ImageToml(Expectations):
    """The whole of an `image.toml`."""

    description: str = ""
    """What the image is for, one sentence."""
    extends: str | None = None
    """Name of the profile whose expectations and tests this one takes over."""
    aliases: tuple[str, ...] = ()
    """Other names by which the image is known."""
    tags: Tags | None = None
    published: Published | None = None
    """Left out: as in the profile that this one extends, if both are in one directory of
    profiles."""
    variants: dict[Glob, Expectations] = {}
    """Tag (with `*`) = expectations of the images with that tag, over those above."""
