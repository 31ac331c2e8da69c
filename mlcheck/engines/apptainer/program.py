"""The program that runs images of apptainer or singularity on this machine."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from mlcheck.engines.apptainer.container import last_words
from mlcheck.machine import environ, janitor
from mlcheck.model.errors import Trouble

_VERSION = re.compile(r"(apptainer|singularity)(?:-[a-z]+)? version (\d+)\.(\d+)\S*")

_OLDEST = {"apptainer": (1, 2), "singularity": (3, 11)}
"""The first with `--no-mount bind-paths`: older ones always bind the administrator's paths."""

PASSED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR")
"""Variables of this process that the program needs itself."""


@dataclass(frozen=True, slots=True)
class Program:
    """An installed program.

    Args:
        path: path of the program.
        version: its version as it prints it ("apptainer version 1.4.5").
        prefix: prefix of the variables that control it.
        userns: the option for user namespaces; () if the machine has none and apptainer does
            without them, as set-uid root.
    """

    path: str
    version: str
    prefix: str
    userns: tuple[str, ...]


@functools.cache
def find_program(name: str) -> Program | Trouble:
    """Return the program that runs images here as `name`, or the reason why there is none."""
    path = shutil.which(name)
    other = "singularity" if name == "apptainer" else "apptainer"
    if path is None:
        remedy = f"Install {name} (EPEL: `dnf install {name}`)"
        remedy += f", or use --engine {other}." if shutil.which(other) else "."
        return Trouble(f"{name} is not installed.", remedy)
    try:
        said = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            env=environ.own(),
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Trouble(f"{path} does not start: {error}", f"Install {name} again.")
    version = _VERSION.search(said.stdout)
    if version is None:
        words = (said.stderr or said.stdout).strip()[:200]
        return Trouble(
            f"`{path} --version` does not tell a version: {words!r}", f"Install {name} again."
        )
    if version[1] != name:
        return Trouble(
            f"{path} is {version[1]}'s program of that name.", f"Use --engine {version[1]}."
        )
    if (int(version[2]), int(version[3])) < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        return Trouble(
            f"{version[0]} is too old: paths that the administrator binds into containers cannot "
            f"be kept out before {oldest}.",
            f"Install {name} {oldest} or newer.",
        )
    return _tried(name, path, version[0])


def _tried(name: str, path: str, version: str) -> Program | Trouble:
    """Start a container in an empty image. It should get as far as failing to find its program."""
    said = []
    with janitor.temporary_directory("mlcheck-trial-") as directory:
        for needed in ("dev", "proc", "sys", "tmp", "etc", "var/tmp"):
            (directory / needed).mkdir(parents=True)
        for userns in (("--userns",), ()):
            argv = [path, "exec", *userns, "--containall", "--no-home", str(directory)]
            argv.append("/mlcheck-none")
            env = {key: os.environ[key] for key in PASSED if key in os.environ}
            try:
                done = subprocess.run(argv, capture_output=True, env=env, timeout=60, check=False)
            except subprocess.TimeoutExpired:
                return Trouble(
                    f"{path} does not start a container within a minute.", "Start one by hand."
                )
            words = done.stderr.decode("utf-8", "replace")
            if "/mlcheck-none" in words:
                return Program(path, version, name.upper(), userns)
            said.append(last_words(words) or words.strip()[-200:])
    remedy = (
        "Allow user namespaces (`sysctl user.max_user_namespaces=15000 "
        "kernel.unprivileged_userns_clone=1` as root; in a container, its security profile must "
        f"allow them), or install {name} set-uid root (`dnf install {name}-suid`)."
    )
    what = f"{name} cannot start a container on this machine: {said[0][:300]}"
    return Trouble(what, remedy)


def usable_program(name: str) -> Program:
    """Return the program that runs images here as `name`.

    Raises:
        EngineError: there is none.
    """
    found = find_program(name)
    if isinstance(found, Trouble):
        raise found.error()
    return found
