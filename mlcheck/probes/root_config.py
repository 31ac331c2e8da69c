"""`root-config`: what it says, and what is written in it."""

from __future__ import annotations

import dataclasses

from mlcheck.engines.base import Ask, OpenImage, RootFS, Unreadable
from mlcheck.facts import Environment, Problem, RootConfig
from mlcheck.probes.reading import command_result, on_path, path_of

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of the script; the real one has 20 KB."""

COMMAND_LIMIT_S = 60.0
OUTPUT_LIMIT = 1024 * 1024
"""Bytes of its answer."""


def probe(image: OpenImage, static: Ask) -> RootConfig:
    """Run `root-config --libs`, and read the script.

    Raises:
        EngineError: the engine could not run it.
        ProbeError: this machine forbids reading it.
    """
    found = static(from_files, image.rootfs, image.environment)
    if found.path is None:
        return found
    completed = image.run(
        [found.path, "--libs"], limit_s=COMMAND_LIMIT_S, output_limit=OUTPUT_LIMIT
    )
    return dataclasses.replace(found, run=command_result(completed))


def from_files(rootfs: RootFS, environment: Environment) -> RootConfig:
    """What is written in the script.

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
