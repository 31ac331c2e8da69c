"""Images whose commands run in one container that stays open, through shells in it.

In an image without a usable shell, each command gets a container of its own.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from mlcheck.engines.base import Command, Completed, OpenImage, Prepared, Start
from mlcheck.engines.shell import Channels, NoShell, Stream, StreamEnded
from mlcheck.model.errors import EngineError

_KILLED = 137
_END_S = 1.0
"""Seconds to wait for the end of a container after that of its shell."""


class Container(Protocol):
    """A running container in which shells can be started.

    Attributes:
        exceeded: the message about the limit because of which it was ended; "" if none was.
    """

    exceeded: str

    def has_ended(self, patience_s: float = 0.0) -> bool:
        """Return whether it has ended, or ends within `patience_s`."""

    def connect(self) -> Stream:
        """Start one more shell.

        Raises:
            StreamEnded: the container has ended.
        """

    def kill(self, group: int, since: int | None) -> None:
        """Send SIGKILL to a process group, by its ID in the container, and to what left it,
        without waiting for their end; see `mlcheck.engines.shell_kill.line`.

        Raises:
            EngineError: it cannot be done.
        """

    def close(self) -> None:
        """End all processes in the container."""


C = TypeVar("C", bound=Container)


class ContainerImage(OpenImage, Generic[C]):
    """An open image whose container is started for the first command, and again if it ended."""

    def __init__(self, engine: str, prepared: Prepared, start: Start) -> None:
        super().__init__(engine, prepared, start)
        self._running: tuple[C, Channels] | None = None
        self._has_shell = True

    @abstractmethod
    def _new_container(self) -> C:
        """Start a container.

        Raises:
            NoShell: the image has no usable shell.
            EngineError: the engine failed.
        """

    @abstractmethod
    def _run_alone(self, command: Command) -> Completed:
        """Run a command in a container of its own, for images without a usable shell."""

    def _exceeded(self, channels: Channels) -> str:
        """Return which limit of the container's ended a command since the last call, or ""."""
        return ""

    @abstractmethod
    def _lost(self, command: Command, *, container_ended: bool) -> EngineError:
        """Make the error for a command without a result: its shell ended, alone or with
        the container."""

    def _run(self, command: Command) -> Completed:
        running = self._in_container()
        if running is not None:
            container, channels = running
            try:
                completed = channels.run(self._in_shell(command))
                if completed.exit_code == _KILLED and (why := self._exceeded(channels)):
                    completed = completed.because(why)
                return completed
            except (NoShell, StreamEnded) as event:
                ended = container.has_ended(_END_S)
                with self._lock:
                    if ended and self._running is running:
                        self._end_container()
                if ended and container.exceeded:
                    return Completed(command.argv, _KILLED, b"", b"", "exited", 0.0).because(
                        container.exceeded
                    )
                if ended or isinstance(event, StreamEnded):
                    raise self._lost(command, container_ended=ended) from None
                with self._lock:
                    self._give_up_shell()
        return self._run_alone(command)

    def _in_shell(self, command: Command) -> Command:
        """Return the command with the variables that a shell in the container lacks."""
        return command.over(self._of_container)

    def _in_container(self) -> tuple[C, Channels] | None:
        """Return a running container and the shells in it, or None if the image has no
        usable shell."""
        with self._lock:
            self._check_in_use()
            if self._running is not None and self._running[0].has_ended():
                self._end_container()
            if self._running is None and self._has_shell:
                try:
                    container = self._new_container()
                except NoShell:
                    self._give_up_shell()
                    return None
                end = functools.partial(self._end_alone, container)
                self._running = container, Channels(container.connect, container.kill, end)
            return self._running

    def _end_alone(self, container: C) -> None:
        """End a container in which a command cannot be ended; a later command gets another."""
        with self._lock:
            if self._running is not None and self._running[0] is container:
                self._end_container()

    def _give_up_shell(self) -> None:
        self._has_shell = False
        self._end_container()

    def _end_container(self) -> None:
        if self._running is not None:
            container, channels = self._running
            self._running = None
            channels.close()
            container.close()
