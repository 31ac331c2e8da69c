"""An environment of the user's own on top of the image's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem


@dataclass(frozen=True, slots=True)
class EnvPython:
    """The answer of `python3`, as found on the PATH of a session.

    Args:
        executable, prefix, version: `sys.executable`, `sys.prefix`, "3.11.9".
        path: `sys.path`, the working directory left out.
        package: version of the package that is used as an example, by its metadata, or None if not
            found.
        module: file of its module, or None if it cannot be imported.
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
        code: exit status of the sourced script, or None if the session did not get that far.
        conda_prefix: CONDA_PREFIX afterwards.
        pythons: answers of `python3` afterwards, and again at each later step; None where it did
            not answer.
    """

    result: CommandResult
    code: int | None
    conda_prefix: str
    pythons: tuple[EnvPython | None, ...]


@dataclass(frozen=True, slots=True)
class EnvAttempt:
    """A use of the script that should create nothing.

    Args:
        code: exit status of the script, or None if it did not return (`result` says why).
        output: the script's own output, on both streams.
        made: names that exist afterwards.
        limit_s: its time limit in seconds.
    """

    result: CommandResult
    code: int | None
    output: str
    made: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True, slots=True)
class NewEnv:
    """`source SCRIPT -p DIR`, and uses of the environment that it makes.

    Args:
        directory: the environment.
        base: the image's own prefix.
        package: the package of which another version was installed.
        installed: the version that was installed.
        create: the session that made it; its Pythons are those before and after the installation.
        reuse: a later session, which sourced the environment's own script.
        entries: name at its top to "directory", "file", or "link TARGET".
        pyvenv: pyvenv.cfg, keys in small letters, or None if it is missing or unreadable.
        pip: the answer of pip's installation, or None if it was not reached.
        seconds: duration of the script.
        python_start_s: duration of one start of the image's Python in the same session.
        absolute: a session, begun elsewhere, that made one in `absolute_directory`.
        again: a session that sourced the environment's own script twice, by a relative path.
        leaving: path of each script for deactivation to what bash complained of in it, or "".
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
    absolute: EnvSession
    absolute_directory: str
    again: EnvSession
    leaving: Mapping[str, str]
    help: EnvAttempt
    missing: EnvAttempt
    executed: EnvAttempt


@dataclass(frozen=True, slots=True)
class ArchiveLink:
    """A symbolic link in an archive from which environments are made.

    Args:
        name: of the member.
        target: its target, as written.
        within: its target below the environment, as text, or None if it is outside or absolute.
        found: True if the target exists, with `baseEnv_dir` as the image's prefix.
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
        directories: number of directories.
        scripts: shell scripts and their text, as far as it was read.
        unread: why no shell here could read some of them.
    """

    path: str
    files: Mapping[str, int]
    links: tuple[ArchiveLink, ...]
    directories: int
    problems: tuple[Problem, ...] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
