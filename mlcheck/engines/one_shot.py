"""A program of one command: its input, its output, its limits; for containers without a shell."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

from mlcheck.engines.base import Command
from mlcheck.engines.shell import STEP_S, Stream, StreamEnded


class ProgramStream(Stream, Protocol):
    """The input and output of a program that reads its input to the end."""

    def end_input(self) -> None:
        """Let the program see the end of its input."""


class Printed(NamedTuple):
    """The output of a program until it ended, or until a limit was reached."""

    ended: Literal["exited", "timeout", "output-limit"]
    stdout: bytes
    stderr: bytes


@contextmanager
def feeding(stream: ProgramStream, stdin: bytes) -> Iterator[None]:
    """Send a program its input while it runs; close the stream on leaving."""

    def feed() -> None:
        with contextlib.suppress(StreamEnded):
            stream.send(stdin)
        stream.end_input()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield
    finally:
        # The rest of the input is discarded, and the feeder ends.
        stream.close()
        feeder.join()


def printed(stream: Stream, command: Command, begun: float) -> Printed:
    """Collect the output of a program until it ends, or reaches a limit of its command.

    Args:
        begun: the time of `time.monotonic` from which its time counts.
    """
    output = {1: bytearray(), 2: bytearray()}
    ended: Literal["exited", "timeout", "output-limit"] = "exited"
    with contextlib.suppress(StreamEnded):
        while ended == "exited":
            left = begun + command.limit_s - time.monotonic()
            if left <= 0:
                ended = "timeout"
            for number, data in stream.receive(min(max(left, 0.0), STEP_S)):
                kept = output[number]
                room = command.output_limit - len(kept)
                kept += data[:room]
                if len(data) > room:
                    ended = "output-limit"
    return Printed(ended, bytes(output[1]), bytes(output[2]))
