"""The keys of an `image.toml` about how an image is started and used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mlcheck.profile.schema.table import AbsolutePath, Table


class Environment(Table):
    """Variables of the image's configuration."""

    equals: dict[str, str] = {}
    """Variable = value."""
    starts: dict[str, tuple[str, ...]] = {}
    """Variable = first entries of its colon-separated list; an engine may append others."""


class Entrypoint(Table):
    """The default command of the image."""

    argv: tuple[str, ...]
    """ENTRYPOINT."""
    cmd: tuple[str, ...] | None = None
    """CMD."""
    activates: bool | None = None
    """Whether it activates the conda environment. If omitted: not checked."""


class Banner(Table):
    """The message that the image prints when it starts."""

    script: AbsolutePath
    """The script that prints it, sourced by the entrypoint."""
    says: tuple[str, ...] = ()
    """Words that it must print."""
    writable: tuple[str, ...] = ()
    """Words that it must print if the prefix is writable, and only then."""
    read_only: tuple[str, ...] = ()
    """Words that it must print if the prefix is not writable, and only then."""
    silenced_by: str
    """A variable that silences it, with any value."""


class Configuration(Table):
    """The rest of the image's configuration. Omitted keys are not checked."""

    labels: tuple[str, ...] = ()
    """Names of labels; their values are free."""
    user: str | None = None
    """USER; empty: not set."""
    workdir: str | None = None
    """WORKDIR; empty: not set, which is the root directory."""
    exposed: tuple[str, ...] | None = None
    """EXPOSE, such as "8888/tcp"; empty: none."""


class NewEnv(Table):
    """A user's own environments on top of the image's."""

    script: AbsolutePath
    """The script that makes one when sourced with -p DIR."""
    reuse: str
    """Name of the script, in the environment, that enters it in a new session."""
    entries: tuple[str, ...] = ()
    """Names at the top of the environment, besides the script above."""
    archive: AbsolutePath | None = None
    """A .tgz of links from which environments are made."""


class OnHost(Table):
    """The unpacked image, used as a virtual environment on the host without a container."""

    script: AbsolutePath
    """The script that enters the image's environment when sourced there."""
    commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Name = argv of a command that must run there."""
    modules: tuple[str, ...] = ()
    """Python modules that must be importable there."""
    programs: tuple[AbsolutePath, ...] = ()
    """Programs, besides python3, that must load the image's own libraries."""
