"""An environment of the user's own on top of the image's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.facts.commands import CommandResult
from mlcheck.facts.files import Problem


@dataclass(frozen=True, slots=True)
class EnvPython:
    """What `python3` says of itself, as it is found on the PATH of a session.

    Args:
        executable, prefix, version: `sys.executable`, `sys.prefix`, "3.11.9".
        path: `sys.path`, the working directory left out.
        package: version of the package that stands for all, by its metadata; None: not found.
        module: file of its module; None: it cannot be imported.
    """

    executable: str
    prefix: str
    version: str
    path: tuple[str, ...]
    package: str | None
    module: str | None


@dataclass(frozen=True, slots=True)
class EnvSession:
    """One bash in which a script was sourced.

    Args:
        result: of the whole session.
        code: what the sourced script returned; None when the session did not come so far.
        conda_prefix: CONDA_PREFIX afterwards.
        pythons: what `python3` said afterwards, and again at each later step; None where it did
            not answer.
    """

    result: CommandResult
    code: int | None
    conda_prefix: str
    pythons: tuple[EnvPython | None, ...]


@dataclass(frozen=True, slots=True)
class EnvAttempt:
    """A use of the script that is to make nothing.

    Args:
        code: what it returned; None when it did not come back (`result` says why).
        output: what it printed itself, on both streams.
        made: names that were there afterwards.
        limit_s: seconds that it had.
    """

    result: CommandResult
    code: int | None
    output: str
    made: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True, slots=True)
class NewEnv:
    """`source SCRIPT -p DIR`, and what can be done with the environment.

    Args:
        directory: the environment.
        base: the image's own prefix.
        package: the package of which another version was installed.
        installed: the version that was.
        create: the session that made it; its Pythons are those before and after the installation.
        reuse: a later session, which sourced the environment's own script.
        entries: name at its top to "directory", "file", or "link TARGET".
        pyvenv: pyvenv.cfg, keys in small letters; None: not there or not readable.
        pip: the answer of pip when it installed; None when it was not reached.
        seconds: what the script took.
        python_start_s: what one start of the image's Python took in the same session.
        help, missing: sourced with -h, and with no directory.
        executed: run as a program with -h, instead of sourced.
    """

    script: str
    directory: str
    base: str
    package: str
    installed: str
    create: EnvSession
    reuse: EnvSession
    entries: Mapping[str, str]
    pyvenv: Mapping[str, str] | None
    pip: CommandResult | None
    seconds: float | None
    python_start_s: float | None
    help: EnvAttempt
    missing: EnvAttempt
    executed: EnvAttempt


@dataclass(frozen=True, slots=True)
class ArchiveLink:
    """A symbolic link in an archive from which environments are made.

    Args:
        name: of the member.
        target: as it is written.
        within: where it leads below the environment, as text; None: out of it, or absolute.
        found: whether something is there, `baseEnv_dir` being the image's prefix.
    """

    name: str
    target: str
    within: str | None
    found: bool


@dataclass(frozen=True, slots=True)
class EnvArchive:
    """`newEnv-base.tgz`, read but not unpacked.

    Args:
        files: regular files and their sizes in bytes.
        directories: how many directories it has.
    """

    path: str
    files: Mapping[str, int]
    links: tuple[ArchiveLink, ...]
    directories: int
    problems: tuple[Problem, ...] = ()
