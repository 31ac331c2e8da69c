"""The servers of docker and podman that are installed on this machine: its own, and those that
`scripts/set_up_modern_engines.sh` puts beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

_BESIDE = Path("/opt/mlcheck-engines/servers")


@dataclass(frozen=True)
class Server:
    """One server.

    Args:
        name: "docker" or "podman" for the machine's own, else with the version: "docker-28".
        programs: the directory of its commands, if that is not in PATH.
        variables: what its commands, and mlcheck, need to find it.
    """

    name: str
    programs: Path | None = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return self.name.partition("-")[0]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have this process and those that it starts use it."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            if self.programs is not None:
                patch.setenv("PATH", str(self.programs), prepend=os.pathsep)
            yield


def installed() -> dict[str, Server]:
    """The servers by their names; the machine's own are named whether they work or not."""
    found = {name: Server(name) for name in ("docker", "podman")}
    # They are root's: an ordinary user may not open their sockets and stores.
    if _BESIDE.is_dir() and os.geteuid() == 0:
        for directory in sorted(_BESIDE.iterdir()):
            lines = (directory / "environment").read_text().split()
            variables = dict(line.split("=", 1) for line in lines)
            found[directory.name] = Server(directory.name, directory / "bin", variables)
    return found


def each_server() -> list[ParameterSet]:
    """Parameters for a test that runs on each of them: their names."""
    return [
        pytest.param(name, marks=pytest.mark.engine(server.engine), id=name)
        for name, server in installed().items()
    ]
