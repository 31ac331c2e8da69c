"""The start of an image: its entrypoint and its banner."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.inspect.answers import TOKEN_BYTES, as_configured, command_result
from mlcheck.inspect.registry import fact
from mlcheck.inspect.startup import behind
from mlcheck.inspect.startup.facts import LINE, Banner, EntrypointRuns
from mlcheck.inspect.startup.launcher import is_launcher
from mlcheck.inspect.system import probe as system
from mlcheck.model.command import CommandResult

LIMIT_S = 60.0
"""Seconds for one start."""

STOP_LIMIT_S = 20.0
"""Seconds after SIGTERM; `docker stop` waits for ten."""

CODES = (1, 7, 139)
"""Exit codes; the last is that of a shell whose command was killed by SIGSEGV."""

OUTPUT_LIMIT = 1024 * 1024


@fact(runs=True)
def entrypoint(image: OpenImage) -> EntrypointRuns | None:
    """Start the image with commands for its entrypoint, or return None if it states none.

    Raises:
        EngineError: the engine could not run it.
    """
    config = image.environment
    if not config.entrypoint:
        return None
    speaker = behind.speaker(image.rootfs, config)
    launcher = is_launcher(image.rootfs, config)
    token = secrets.token_hex(TOKEN_BYTES)

    def answer(
        command: Sequence[str], stdin: bytes = b"", limit_s: float = LIMIT_S
    ) -> CommandResult:
        return command_result(
            image.start(command, stdin=stdin, limit_s=limit_s, output_limit=OUTPUT_LIMIT)
        )

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # A program may take the words for the start of a server, which does not end.
        limit_s = LIMIT_S if launcher else STOP_LIMIT_S
        told = pool.submit(answer, speaker.tell(token), f"{LINE}\n".encode(), limit_s)
        if not launcher and behind.heard(told.result(), token).words is None:
            return EntrypointRuns(False, behind.heard(told.result(), token), {}, None, None, None)
        codes = {code: pool.submit(answer, speaker.end(code)) for code in CODES}
        killed = pool.submit(answer, speaker.kill())
        stopped = pool.submit(answer, speaker.stop(token), limit_s=STOP_LIMIT_S)
        env = pool.submit(answer, ("env",))
        return EntrypointRuns(
            launcher,
            behind.heard(told.result(), token),
            {code: done.result() for code, done in codes.items()},
            killed.result(),
            behind.stopped(stopped.result(), token),
            env.result(),
        )


def banner(image: OpenImage, static: Ask, path: str, silenced_by: str, prefix: str) -> Banner:
    """Source the banner's script, as it is and with `silenced_by` set, and start the image.

    The banner's advice on adding packages depends on write permissions, which differ between
    a start and other commands.

    Args:
        path: path of the script.
        silenced_by: name of a variable.
        prefix: prefix to which the banner may describe additions.

    Raises:
        EngineError: the engine could not run it.
    """
    if static(system.files, image.rootfs, [path]).files[path].final is None:
        return Banner(path, None, None, None, None, "", None)

    def answer(**env: str) -> CommandResult:
        argv = [*as_configured(image, env), "/bin/sh", "-c", '. "$0"', path]
        return command_result(image.run(argv, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))

    quiet = {silenced_by: "yes"}
    said, silenced = answer(), answer(**quiet)
    if not image.environment.entrypoint:
        return Banner(path, said, silenced, None, None, "", None)
    argv = ["/bin/sh", "-c", _CAN_WRITE, prefix]
    started, still = (
        command_result(image.start(argv, env=env, limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT))
        for env in ({}, quiet)
    )
    last = "".join(started.stdout.splitlines()[-1:])
    writable = {f"{prefix} can be written": True, f"{prefix} cannot be written": False}.get(last)
    return Banner(path, said, silenced, started, still, last, writable)


_CAN_WRITE = 'test -w "$0" && echo "$0 can be written" || echo "$0 cannot be written"'
