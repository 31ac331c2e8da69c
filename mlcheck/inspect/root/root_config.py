"""`root-config`: its output, and its text."""

from __future__ import annotations

import dataclasses
import secrets

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import command_result, on_path, path_of
from mlcheck.inspect.registry import fact
from mlcheck.inspect.root.facts import RootConfig
from mlcheck.model.environment import Environment
from mlcheck.model.files import Problem

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of the script; the real one has 20 KB."""

COMMAND_LIMIT_S = 60.0
OUTPUT_LIMIT = 1024 * 1024
"""Bytes of its answer."""


@fact(runs=True)
def probe(image: OpenImage, static: Ask) -> RootConfig:
    """Run `root-config --libs`, and read the script.

    Raises:
        EngineError: the engine could not run it.
        ProbeError: this machine forbids reading it.
    """
    found = static(from_files, image.rootfs, image.environment)
    if found.path is None:
        return found
    argv = [found.path, "--libs"]
    # Not the home that all commands here have, and one that no script can know.
    user = f"user{secrets.token_hex(4)}"
    home = {"HOME": f"/home/{user}", "USER": user, "LOGNAME": user}
    run, at_home = (
        command_result(image.run(argv, env=env, limit_s=COMMAND_LIMIT_S, output_limit=OUTPUT_LIMIT))
        for env in ({}, home)
    )
    return dataclasses.replace(found, run=run, at_home=at_home)


def from_files(rootfs: RootFS, environment: Environment) -> RootConfig:
    """Read the text of the script.

    Raises:
        ProbeError: this machine forbids reading it.
    """
    path = on_path(rootfs, "root-config", path_of(environment.env))
    if path is None:
        return RootConfig(None, None, None)
    try:
        return RootConfig(path, None, rootfs.read(path, SIZE_LIMIT).decode("utf-8"))
    except Unreadable as unreadable:
        problem = Problem(unreadable.path, unreadable.what)
    except UnicodeDecodeError as error:
        problem = Problem(path, f"is no script: not UTF-8 at byte {error.start}")
    return RootConfig(path, None, None, (problem,))
