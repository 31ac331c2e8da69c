"""Which program runs the images of apptainer or singularity on this machine, and whether it can."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlcheck import environ
from mlcheck.engines import janitor
from mlcheck.engines.apptainer_container import last_words

_VERSION = re.compile(r"(apptainer|singularity)(?:-[a-z]+)? version (\d+)\.(\d+)\S*")

_OLDEST = {"apptainer": (1, 2), "singularity": (3, 11)}
"""The first with `--no-mount bind-paths`: before, the administrator's paths cannot be kept out."""

PASSED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR")
"""Variables of this process that the program needs itself."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is installed.

    Args:
        path: of the program.
        version: as it tells it ("apptainer version 1.4.5").
        prefix: how the variables begin by which it is told what to do.
        userns: the option for user namespaces; () where the machine has none and apptainer
            helps itself as set-uid root.
    """

    path: str
    version: str
    prefix: str
    userns: tuple[str, ...]


@functools.cache
def find_program(name: str) -> Program | str:
    """What runs images here as `name`; or the reason why nothing does, and what helps."""
    path = shutil.which(name)
    other = "singularity" if name == "apptainer" else "apptainer"
    if path is None:
        remedy = f"Install {name} (EPEL: `dnf install {name}`)"
        remedy += f", or use --engine {other}." if shutil.which(other) else "."
        return f"{name} is not installed.\n{remedy}"
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
        return f"{path} does not start: {error}\nInstall {name} again."
    version = _VERSION.search(said.stdout)
    if version is None:
        words = (said.stderr or said.stdout).strip()[:200]
        return f"`{path} --version` does not tell a version: {words!r}\nInstall {name} again."
    if version[1] != name:
        return f"{path} is {version[1]}'s program of that name.\nUse --engine {version[1]}."
    if (int(version[2]), int(version[3])) < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        return (
            f"{version[0]} is too old: paths that the administrator binds into containers cannot "
            f"be kept out before {oldest}.\nInstall {name} {oldest} or newer."
        )
    return _tried(name, path, version[0])


def _tried(name: str, path: str, version: str) -> Program | str:
    """Start a container in an empty image: that its program is missing is as far as it gets."""
    said = []
    directory = Path(tempfile.gettempdir(), f"mlcheck-trial-{os.urandom(8).hex()}")
    with janitor.undone(janitor.remove(directory)):
        directory.mkdir(mode=0o700)
        for needed in ("dev", "proc", "sys", "tmp", "etc", "var/tmp"):
            (directory / needed).mkdir(parents=True)
        for userns in (("--userns",), ()):
            argv = [path, "exec", *userns, "--containall", "--no-home", str(directory)]
            argv.append("/mlcheck-none")
            env = {key: os.environ[key] for key in PASSED if key in os.environ}
            try:
                done = subprocess.run(argv, capture_output=True, env=env, timeout=60, check=False)
            except subprocess.TimeoutExpired:
                return f"{path} does not start a container within a minute.\nStart one by hand."
            words = done.stderr.decode("utf-8", "replace")
            if "/mlcheck-none" in words:
                return Program(path, version, name.upper(), userns)
            said.append(last_words(words) or words.strip()[-200:])
    remedy = (
        "Allow user namespaces (`sysctl user.max_user_namespaces=15000 "
        "kernel.unprivileged_userns_clone=1` as root; in a container, its security profile must "
        f"allow them), or install {name} set-uid root (`dnf install {name}-suid`)."
    )
    return f"{name} cannot start a container on this machine: {said[0][:300]}\n{remedy}"
