"""Undo what a process left behind when it ended without cleaning up.

`mlcheck.machine.janitor` starts this process in a session of its own. Its standard input carries
JSON lines: `{"add": N, "action": {...}}`, `{"drop": N}`, and `{"now": {...}}` for what an earlier
process left, which is done meanwhile. When that input ends, or the process ends whose PID file
descriptor is the argument, the remaining actions are done, the last one first.

Only the standard library is used: this process must start fast and stay small.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

_LIMIT_S = 30.0
_SILENCE_S = 120.0
_GRACE_S = 10.0
_IN_WORK_S = 30.0
"""As long as a server may take to create something that was asked for before the end: podman on a
slow disk takes seconds."""

UNDO_ERRORS = (OSError, http.client.HTTPException, subprocess.SubprocessError)
"""Errors of `undo` to ignore: the thing is already gone, or is not ours to deal with."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_LIMIT_S)
        self.sock.connect(self._path)


def start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None if there is no such process.

    Field 22 of /proc/PID/stat, proc(5). It distinguishes a process from a later one with the
    same number.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _connection(host: str, tls: Sequence[Any] | None) -> http.client.HTTPConnection:
    url = urllib.parse.urlsplit(host)
    if url.scheme in ("unix", "http+unix"):
        return _UnixConnection(url.path)
    if tls is None:
        return http.client.HTTPConnection(url.netloc, timeout=_LIMIT_S)
    import ssl  # takes long, and few need it

    authority, certificate, key, verify = tls
    context = ssl.create_default_context(cafile=authority)
    if certificate:
        context.load_cert_chain(certificate, key)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(url.netloc, timeout=_LIMIT_S, context=context)


def _http_delete(host: str, path: str, in_work: bool, tls: Sequence[Any] | None) -> None:
    """Send DELETE over a unix socket or TCP.

    Repeat it while the server holds a lock or is too busy: a later action may end the server. If
    the server may still create it (`in_work`), repeat it also while it does not exist.
    """
    late = time.monotonic() + _SILENCE_S
    created = time.monotonic() + (_IN_WORK_S if in_work else 0)
    refused = 0
    while refused < 20:
        with contextlib.closing(_connection(host, tls)) as connection:
            try:
                connection.request("DELETE", path)
                status = connection.getresponse().status
                if status in (200, 204) or (status == 404 and time.monotonic() > created):
                    return
                refused += status != 404
            except TimeoutError:
                refused += 1
                if time.monotonic() > late:
                    raise
        # No engine notifies clients when it releases a lock.
        time.sleep(0.2)


def _kill(pid: int, started: str, group: bool) -> None:
    if start_time(pid) != started:
        return
    with contextlib.suppress(ProcessLookupError):
        if not group:
            os.kill(pid, signal.SIGKILL)
            return
        # Killing a server while it creates or removes something leaves half of it behind.
        os.killpg(pid, signal.SIGTERM)
        late = time.monotonic() + _GRACE_S
        while _alive(pid) and time.monotonic() < late:
            time.sleep(0.01)  # the end of a process group cannot be waited for
        os.killpg(pid, signal.SIGKILL)


def _alive(group: int) -> bool:
    """Return whether a process group has a process that has not ended."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError), open(f"{entry.path}/stat", "rb") as file:  # noqa: PTH123
                state, _, number = file.read().rpartition(b")")[2].split()[:3]
                if int(number) == group and state not in b"ZX":
                    return True
    return False


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path) and os.geteuid() != 0:
        # A SIF file that is still mounted, directories that their owner cannot change.
        for argv in (["fusermount3", "-u", "-z"], ["chmod", "-R", "u+rwX"]):
            with contextlib.suppress(*UNDO_ERRORS):
                subprocess.run([*argv, path], capture_output=True, timeout=_LIMIT_S, check=False)
        shutil.rmtree(path, ignore_errors=True)


def undo(action: dict[str, Any]) -> None:
    """Do one action; `mlcheck.machine.janitor` has the functions that make them."""
    match action["kind"]:
        case "http-delete":
            _http_delete(action["host"], action["path"], action["in_work"], action.get("tls"))
        case "kill":
            _kill(action["pid"], action["started"], action["group"])
        case "remove":
            _remove(action["path"])
        case "run":
            subprocess.run(
                action["argv"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_LIMIT_S,
                check=False,
            )


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    for pidfd in map(int, sys.argv[1:]):
        selector.register(pidfd, selectors.EVENT_READ)
    actions: dict[int, dict[str, Any]] = {}
    received = b""
    over = False
    while not over:
        ready = {key.fd for key, _ in selector.select()}
        # Empty the pipe first: lines written before the end count.
        if 0 in ready:
            data = os.read(0, 65536)
            over = not data
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "add" in message:
                    actions[message["add"]] = message["action"]
                elif "now" in message:
                    threading.Thread(target=undo, args=[message["now"]], daemon=True).start()
                else:
                    actions.pop(message["drop"], None)
        else:
            over = True
    for _, action in sorted(actions.items(), reverse=True):
        with contextlib.suppress(*UNDO_ERRORS):
            undo(action)


if __name__ == "__main__":
    main()
