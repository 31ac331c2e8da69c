"""Helpers for the programs that run inside an image.

They are sent to the image's own Python (3.8 or later) by stdin, and use nothing but the standard
library, jupyter_client and tornado of the image. A request and an answer are JSON objects.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import Any, Dict, Mapping, Sequence

Json = Dict[str, Any]
"""A request, an answer, or a part of one."""

_LISTEN = "0A"
"""State of a socket that waits for connections (the kernel's include/net/tcp_states.h)."""

# pkgutil has found modules since Python 2, until 3.13.
_PYTHON_SAYS = """\
import json as _j, os as _o, sys as _s
try:
    from importlib.util import find_spec as _find
except ImportError:
    from pkgutil import find_loader as _find
def _there(name):
    spec = _find(name)
    return getattr(spec, "origin", name) if spec else None
print("TOKEN" + _j.dumps({
    "answer": A * B, "executable": _s.executable, "prefix": _s.prefix,
    "usersite": _there("mlcheck_marker_user"), "pythonpath": _there("mlcheck_marker_path"),
}))
"""
_CPP_SAYS = """\
#include <iostream>
std::cout << "TOKEN{\\"answer\\": " << ALL * BLL << "}" << std::endl;
"""


def write(path: str, text: str, mode: int = 0o644) -> str:
    """Write a file, and the directories above it, and return its path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def last_words(path: str, lines: int = 3) -> str:
    """Return the last lines of a log."""
    with contextlib.suppress(OSError), open(path, errors="replace") as file:
        said = [line.strip() for line in file.read()[-6000:].splitlines() if line.strip()]
        return "; ".join(said[-lines:])[-600:]
    return ""


def in_words(error: BaseException) -> str:
    """Describe an exception in one line."""
    said = str(error).strip().splitlines()
    return type(error).__name__ + (": " + said[0] if said else "")


def question(request: Json, language: str = "python") -> str:
    """Return code for a kernel, whose output `understood` reads."""
    code = _CPP_SAYS if language.lower() == "c++" else _PYTHON_SAYS
    code = code.replace("TOKEN", request["token"])
    left, right = (f"{request[key]:d}" for key in "ab")
    return code.replace("ALL * BLL", f"{left}LL * {right}LL").replace("A * B", f"{left} * {right}")


def understood(said: str, request: Json) -> Json:
    """Parse a kernel's answer to the question."""
    line = said.rpartition(request["token"])[2].partition("\n")[0]
    answer: Json = json.loads(line)
    if answer.pop("answer") != request["a"] * request["b"]:
        raise RuntimeError("it computed wrongly: " + line[:100])
    return answer


def plant_kernels(directory: str, where: str, names: Sequence[str]) -> None:
    """Make kernels of a user or a host; their display names say whose they are."""
    for name in names:
        spec = {"argv": ["false"], "display_name": "mlcheck: " + where, "language": "python"}
        write(f"{directory}/{name}/kernel.json", json.dumps(spec))


def with_kernels(place: str, how: str, shadowed: Sequence[str]) -> dict[str, str]:
    """Put kernels at the places of users and hosts, and return the variables that lead there."""
    user = place + "/home/.local/share/jupyter"
    env: dict[str, str] = {}
    if how == "XDG_DATA_HOME":
        env[how] = place + "/data"
        user = place + "/data/jupyter"
    elif how == "JUPYTER_DATA_DIR":
        env[how] = user = place + "/data"
    where = "~/.local/share/jupyter" if how == "HOME" else how
    plant_kernels(user + "/kernels", where, ["mlcheck-user", *shadowed])
    plant_kernels(place + "/home/.ipython/kernels", "~/.ipython", ["mlcheck-ipython", *shadowed])
    host = place + "/host/jupyter"
    where = "an entry that the host added to JUPYTER_PATH"
    plant_kernels(host + "/kernels", where, ["mlcheck-host", *shadowed])
    own = os.environ.get("JUPYTER_PATH")
    env["JUPYTER_PATH"] = own + ":" + host if own else host
    return env


def started(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], log: str
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, with its output in a log.

    Raises:
        OSError: it cannot be started.
    """
    with open(log, "wb") as stream:
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def http_answer(code: int | None, body: bytes) -> str:
    """Describe an answer by HTTP in words."""
    text = body.decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        text = str(json.loads(text).get("message", text))
    text = " ".join(text.split())[:300]
    return f"no answer: {text}" if code is None else f"HTTP {code} {text}"


def listens(session: int) -> bool:
    """Return whether a process of a session waits for connections by TCP."""
    waiting = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}") as file:
            rows = [line.split() for line in list(file)[1:]]
            waiting |= {f"socket:[{row[9]}]" for row in rows if row[3] == _LISTEN}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[3]) != session:
                    continue
            for number in os.listdir(f"/proc/{name}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/fd/{number}") in waiting:
                        return True
    return False


def with_argument(ending: str) -> set[int]:
    """Find processes that have an argument with this ending."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if (ending + "\0").encode() in file.read():
                found.add(int(name))
    return found


def end_children() -> None:
    """Kill every process that this one started, directly or not (it is their subreaper)."""
    # A blocked signal waits until a process fetches it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
        own = {os.getpid()}
        while not own >= (more := {child for child, parent in parents.items() if parent in own}):
            own |= more
        own.discard(os.getpid())
        for number in own:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not own:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.1)
