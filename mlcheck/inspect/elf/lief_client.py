"""Client of `lief_server`, the process in which lief works."""

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

from mlcheck.machine import environ
from mlcheck.model.errors import ProbeError


class Lief:
    """The process in which lief works. It is started once, and ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def get_ready(self) -> None:
        """Start the process, so that importing lief there overlaps with this process' next work."""
        with self._lock:
            self._started()

    def describe(self, content: bytes) -> dict[str, Any]:
        """Return the result of `lief_server.described` for a file.

        Raises:
            ProbeError: lief cannot be imported.
        """
        with self._lock:
            # If this file caused the crash, it will do so again in a new process.
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
                start_new_session=True,  # Ctrl-C is for the parent process
            )
            atexit.register(_end, self._process)
        return self._process


LIEF = Lief()


def _ask(process: subprocess.Popen[bytes], content: bytes) -> bytes:
    """Return the answer's line, or an empty one if the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(len(content).to_bytes(4, "big") + content)
        process.stdin.flush()
    line = process.stdout.readline()
    return line if line.endswith(b"\n") else b""


def _end(process: subprocess.Popen[bytes]) -> int:
    """End the process, if it has not ended, and return its exit code."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    return process.wait()
