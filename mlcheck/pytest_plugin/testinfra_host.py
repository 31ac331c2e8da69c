"""testinfra's `host` for an open image: the same on every engine.

testinfra has backends of its own for docker and podman, which start a command through the
engine each time, and none for apptainer. This one sends commands through the image's open
channel. https://testinfra.readthedocs.io/en/latest/modules.html
"""

from __future__ import annotations

from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from mlcheck.engines.base import DEFAULT_LIMIT_S, OpenImage

TIMED_OUT = 124
"""Exit status of a command that was ended by a time limit, as for timeout(1)."""


class ImageBackend(BaseBackend):  # type: ignore[misc]  # testinfra has no types
    """Backend that runs testinfra's commands in an open image, without a network of its own.

    Args:
        image: stays open as long as this is used.
    """

    NAME = "mlcheck"

    def __init__(self, image: OpenImage) -> None:
        super().__init__(image.ref.label)
        self._image = image

    def get_pytest_id(self) -> str:
        return f"{self.hostname}@{self._image.engine}"

    def run(
        self, command: str, *args: str, limit_s: float = DEFAULT_LIMIT_S, **_: Any
    ) -> CommandResult:
        """Run a shell command in the image.

        Args:
            command: with a %s for each of `args`, which are quoted.
            limit_s: wall-clock seconds after which it is ended, with exit status 124.

        Raises:
            EngineError: the engine could not do its part.
        """
        line = self.get_command(command, *args)
        done = self._image.run(["/bin/sh", "-c", line], limit_s=limit_s)
        stderr = done.stderr
        if done.exit_code is None:
            stderr += f"mlcheck: ended by a limit ({done.ended}): {line}\n".encode()
        code = TIMED_OUT if done.exit_code is None else done.exit_code
        return self.result(code, self.encode(line), done.stdout, stderr)

    def run_local(self, command: str, *args: str) -> CommandResult:
        """Refuse: nothing that an image says may run on this machine."""
        raise RuntimeError(f"a command of this machine was asked for: {command}")

    def decode(self, data: bytes) -> str:
        """Decode any bytes as text: those that are not UTF-8 become surrogates."""
        return data.decode("utf-8", "surrogateescape")

    def encode(self, data: str) -> bytes:
        return data.encode("utf-8", "surrogateescape")


def connect(image: OpenImage) -> Host:
    """Return testinfra's host for an open image."""
    backend = ImageBackend(image)
    host = Host(backend)
    backend.set_host(host)
    return host
