"""Programs of this machine that never outlive mlcheck: the janitor knows them before they start."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlcheck.engines.apptainer import session_end
from mlcheck.machine import janitor, keyring, seccomp
from mlcheck.machine.janitor_process import start_time

# Only this small shell runs before the janitor knows it; if its standard input ends before the line
# arrives, it ends too.
_GATE = ("/bin/sh", "-c", 'read -r _ && exec "$@"', "sh")


@contextmanager
def started(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stderr: int = subprocess.PIPE,
    confined: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a session of its own, which ends with all its processes on leaving, and
    with a session keyring of its own.

    Its standard input and output are pipes.

    Args:
        confined: True if it, and what it starts, gets no new privileges (set-uid programs) and not
            what `mlcheck.machine.seccomp` refuses.

    Raises:
        EngineError: it could not be confined.
    """
    with ExitStack() as stack:
        process = keyring.with_own(
            lambda: subprocess.Popen(
                [*_GATE, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                cwd="/",
                bufsize=0,
                start_new_session=True,
            ),
            seccomp.confine if confined else lambda: None,
        )
        stack.callback(_close, process)
        birth = start_time(process.pid) or ""
        end = [sys.executable, "-I", "-S", session_end.__file__, str(process.pid), birth]
        stack.enter_context(janitor.promised(janitor.run(end)))
        stack.callback(session_end.end_session, process.pid, birth)
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(b"\n")
        yield process


def _close(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def in_container(leader: int, pid: int) -> int | None:
    """Return the ID on this machine of the process that is `pid` in the container of a session."""
    for member in session_end.session(leader):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/status").read_text(errors="replace").splitlines():
                name, _, numbers = line.partition(":")
                if name == "NSpid" and len(numbers.split()) > 1 and numbers.split()[-1] == str(pid):
                    return member
    return None
