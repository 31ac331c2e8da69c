"""Asks lief, which works in a process of its own: see `lief_server`."""

from __future__ import annotations

import atexit
import contextlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from mlcheck import environ
from mlcheck.errors import ProbeError


class Lief:
    """The process in which lief works. It is started once, and ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def get_ready(self) -> None:
        """Start it: what this process does next passes while lief is imported there."""
        with self._lock:
            self._started()

    def describe(self, content: bytes) -> dict[str, Any]:
        """What `lief_server.described` says of a file.

        Raises:
            ProbeError: lief cannot be imported.
        """
        with self._lock:
            # What makes it crash does so in a new process too, or it was not this file.
            for _ in range(2):
                process = self._started()
                answer = _ask(process, content)
                if answer:
                    found: dict[str, Any] = json.loads(answer)
                    return found
                self._process = None
                code = _end(process)
        if code == -signal.SIGKILL:
            raise ProbeError(
                "The process that parses ELF files was killed: this machine has too little memory?"
            )
        if code < 0:
            return {"problem": f"makes the ELF parser crash (signal {-code})"}
        raise ProbeError(
            f"lief, which parses ELF files, cannot be used: it ended with exit code {code}.",
            f"Try `{sys.executable} -c 'import lief'`.",
        )

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            program = str(Path(__file__).with_name("lief_server.py"))
            self._process = subprocess.Popen(
                [sys.executable, "-P", program],  # without its own directory among the modules'
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environ.own(),
                start_new_session=True,  # Ctrl-C is for the process that asks
            )
            atexit.register(_end, self._process)
        return self._process


LIEF = Lief()


def _ask(process: subprocess.Popen[bytes], content: bytes) -> bytes:
    """The line that answers; empty when the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(len(content).to_bytes(4, "big") + content)
        process.stdin.flush()
    line = process.stdout.readline()
    return line if line.endswith(b"\n") else b""


def _end(process: subprocess.Popen[bytes]) -> int:
    """End the process, if it has not ended; its exit code."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    return process.wait()
