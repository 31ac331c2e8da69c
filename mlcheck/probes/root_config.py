"""`root-config`: what it says, and what is written in it."""

from __future__ import annotations

from mlcheck.engines.base import OpenImage, Unreadable
from mlcheck.facts import CommandResult, Problem, RootConfig
from mlcheck.probes.reading import command_result, on_path, path_of

SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of the script; the real one has 20 KB."""

COMMAND_LIMIT_S = 60.0
OUTPUT_LIMIT = 1024 * 1024
"""Bytes of its answer."""


def probe(image: OpenImage) -> RootConfig:
    """Run `root-config --libs`, and read the script.

    Raises:
        EngineError: the engine could not run it.
        ProbeError: this machine forbids reading it.
    """
    path = on_path(image.rootfs, "root-config", path_of(image.environment.env))
    if path is None:
        return RootConfig(None, None, None)
    text: str | None = None
    problems: tuple[Problem, ...] = ()
    try:
        text = image.rootfs.read(path, SIZE_LIMIT).decode("utf-8")
    except Unreadable as unreadable:
        problems = (Problem(unreadable.path, unreadable.what),)
    except UnicodeDecodeError as error:
        problems = (Problem(path, f"is no script: not UTF-8 at byte {error.start}"),)
    run: CommandResult = command_result(
        image.run([path, "--libs"], limit_s=COMMAND_LIMIT_S, output_limit=OUTPUT_LIMIT)
    )
    return RootConfig(path, run, text, problems)
