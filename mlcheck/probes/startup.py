"""How an image starts: its entrypoint and its banner."""

from __future__ import annotations

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.facts import Banner, CommandResult, EntrypointRuns
from mlcheck.probes import system
from mlcheck.probes.reading import command_result

LIMIT_S = 60.0
"""Seconds for one start."""

OUTPUT_LIMIT = 1024 * 1024


def entrypoint(image: OpenImage) -> EntrypointRuns | None:
    """Start the image with commands behind its entrypoint; None when it tells of none.

    Raises:
        EngineError: the engine could not run it.
    """
    if not image.environment.entrypoint:
        return None

    def answer(*command: str) -> CommandResult:
        return command_result(image.start(command, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))

    return EntrypointRuns(
        answer("bash", "-c", "exit 7"), answer("bash", "-c", "echo two words"), answer("env")
    )


def banner(image: OpenImage, static: Ask, path: str, silenced_by: str, prefix: str) -> Banner:
    """Source the banner's script, as it is and with `silenced_by` set.

    Args:
        path: of the script.
        silenced_by: name of a variable.
        prefix: what the banner may say how to add to.

    Raises:
        EngineError: the engine could not run it.
    """
    if static(system.files, image.rootfs, [path]).files[path].final is None:
        return Banner(path, None, None, writable=False)

    def answer(**env: str) -> CommandResult:
        argv = ["/bin/sh", "-c", '. "$0"', path]
        completed = image.run(argv, env=env, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT)
        return command_result(completed)

    writable = image.run(["/bin/sh", "-c", 'test -w "$0"', prefix], limit_s=LIMIT_S)
    return Banner(path, answer(), answer(**{silenced_by: "yes"}), writable.exit_code == 0)
