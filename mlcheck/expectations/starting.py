"""What an `image.toml` may say of how an image is started, and used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mlcheck.expectations.table import AbsolutePath, Table


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
    activates: bool | None = None
    """Whether it activates the conda environment. Left out: not checked."""


class Banner(Table):
    """What the image says when it starts."""

    script: AbsolutePath
    """The script that says it, which the entrypoint sources."""
    says: tuple[str, ...] = ()
    """Words that it must print."""
    writable: tuple[str, ...] = ()
    """Words that it must print where the prefix can be written, and nowhere else."""
    read_only: tuple[str, ...] = ()
    """Words that it must print where the prefix cannot be written, and nowhere else."""
    silenced_by: str
    """Variable that silences it, set to anything."""


class Configuration(Table):
    """The rest of the image's configuration. What is left out is not checked."""

    labels: tuple[str, ...] = ()
    """Names of labels; their values are free."""
    user: str | None = None
    """USER; empty: not set."""
    workdir: str | None = None
    """WORKDIR; empty: not set, which is the root directory."""
    exposed: tuple[str, ...] | None = None
    """EXPOSE, such as "8888/tcp"; empty: none."""


class NewEnv(Table):
    """Environments of the user's own on top of the image's."""

    script: AbsolutePath
    """Sourced with -p DIR, it makes one."""
    reuse: str
    """Name of the script, in the environment, by which a new session enters it."""
    entries: tuple[str, ...] = ()
    """Names at the top of the environment, besides the script above."""
    archive: AbsolutePath | None = None
    """A .tgz of links from which environments are made."""


class OnHost(Table):
    """The unpacked image as a virtual environment on the host, without a container."""

    script: AbsolutePath
    """Sourced there, it enters the image's environment."""
    commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Name = argv of a command that must run there."""
    modules: tuple[str, ...] = ()
    """Python modules that must import there."""
    programs: tuple[AbsolutePath, ...] = ()
    """Programs, besides python3, whose libraries must be the image's own."""
