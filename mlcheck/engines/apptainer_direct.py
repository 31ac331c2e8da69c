"""A container for one command, for images without a shell."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from mlcheck.engines.apptainer_container import NO_NV, last_words
from mlcheck.engines.apptainer_process import started
from mlcheck.engines.base import Completed
from mlcheck.engines.channel import PipeStream, StreamEnded
from mlcheck.errors import EngineError

_FAILED = 255
"""apptainer's exit code when it failed itself."""

_NOT_FOUND = re.compile(r"no such file or directory|executable file not found")
_NOT_EXECUTABLE = re.compile(r"permission denied|exec format error|is a directory|argument list")


def run_directly(
    command: Sequence[str],
    image: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    variables: Mapping[str, str],
    variable_prefix: str,
    cwd: str,
    stdin: bytes,
    limit_s: float,
    output_limit: int,
    explain: Callable[[str], EngineError],
) -> Completed:
    """Run `argv` in a new container; see `mlcheck.engines.base.OpenImage.run`.

    Args:
        command: the program with its options.
        env: variables of the program itself.
        variables: variables for the command.
        explain: makes an EngineError of what apptainer said.
    """
    texts = (*argv, *variables, *variables.values(), cwd)
    if any("\0" in text for text in texts):
        message = f"mlcheck: {argv[0]!r}: embedded null byte\n".encode()
        return Completed(tuple(argv), 126, b"", message, "exited", 0.0)
    outside = dict(env) | {f"{variable_prefix}{name}": value for name, value in variables.items()}
    ended: Literal["exited", "timeout", "output-limit"] = "exited"
    output = {1: bytearray(), 2: bytearray()}
    begun = time.monotonic()
    with started([*command, "--pwd", cwd, image, *argv], outside) as process:
        stream = PipeStream(process)
        feed = threading.Thread(target=_feed, args=(stream, stdin), daemon=True)
        feed.start()
        try:
            while ended == "exited":
                left = begun + limit_s - time.monotonic()
                if left <= 0:
                    ended = "timeout"
                for number, data in stream.receive(left):
                    room = output_limit - len(output[number])
                    output[number] += data[:room]
                    if len(data) > room:
                        ended = "output-limit"
        except StreamEnded:
            pass
        seconds = time.monotonic() - begun
        code = None
        if ended == "exited":
            code = process.wait()
        stream.close()
        feed.join()
    if code is not None and code < 0:
        code = 128 - code
    stderr = bytes(output[2])
    if NO_NV.encode() in stderr and "--nv" in command:
        raise explain(NO_NV)
    words = last_words(stderr.decode("utf-8", "replace"))
    if code == _FAILED and words:
        if os.fsdecode(argv[0]) in words and _NOT_FOUND.search(words):
            code = 127
        elif _NOT_EXECUTABLE.search(words) or (cwd in words and _NOT_FOUND.search(words)):
            code = 126
        else:
            raise explain(stderr.decode("utf-8", "replace"))
        stderr = f"mlcheck: {argv[0]}: {words}\n".encode("utf-8", "surrogateescape")
    return Completed(tuple(argv), code, bytes(output[1]), stderr, ended, seconds)


def _feed(stream: PipeStream, data: bytes) -> None:
    try:
        stream.send(data)
    except StreamEnded:
        return
    finally:
        if stream.process.stdin is not None:
            with contextlib.suppress(OSError):
                stream.process.stdin.close()
