"""JupyterLab, started as the image's user starts it: with that user's home and the image's own
variables, and without a token from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import time

from mlcheck.inspect.inside.common import Json, in_words, last_words, started
from mlcheck.inspect.inside.server import Client

_MADE = re.compile("[0-9a-f]{48}")
"""A token that Jupyter makes."""


async def as_user(request: Json, top: str) -> Json:
    """Start the server, send it requests without a token, and see where its token comes from.

    Takes: argv, environ (of the container), home (of the user), limit_s.
    """
    home, runtime = request["home"], top + "/users-runtime"
    env = dict(request["environ"], HOME=home, JUPYTER_RUNTIME_DIR=runtime, SHELL="/bin/sh")
    if os.path.isdir(home) and not os.access(home, os.R_OK | os.X_OK):
        return {"error": None, "untried": f"{home} is closed to the user of this engine"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Only what lets it run here: an engine may run commands as root.
    argv = [
        *request["argv"],
        *("--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0"),
    ]
    log = top + "/users-server.log"
    began = time.monotonic()
    try:
        process = started(argv, home if os.path.isdir(home) else top, env, log)
    except OSError as error:
        return {"error": in_words(error)}
    found: Json = {"error": f"did not answer in {request['limit_s']:.0f} s"}
    while time.monotonic() - began < request["limit_s"]:
        if process.poll() is not None:
            found["error"] = f"ended with exit code {process.returncode} before it answered"
            break
        told = of_server(runtime, process.pid)
        if told is not None:
            found["error"] = None
            found["token"] = origin(told, env)
            client = Client(port, dict(request, base=str(told.get("base_url") or "/"), secret=""))
            found["status"] = await doors(client, str(told.get("token") or ""))
            break
        await asyncio.sleep(0.05)
    if found["error"] is not None and last_words(log):
        found["error"] += "; it said: " + last_words(log)
    with contextlib.suppress(OSError):
        process.terminate()
    return found


async def doors(client: Client, token: str) -> Json:
    """Return the status of requests with the token and without one."""
    status: Json = {}
    for path in ("lab", "api/kernels", "api/contents", "api/terminals"):
        status[path], _ = await client.http(client.base + path, token or None)
        status[path + " without a token"], _ = await client.http(client.base + path)
    return status


def of_server(runtime: str, number: int) -> Json | None:
    """Return what a server that listens tells of itself, in a file, or None."""
    for name in ("jpserver", "nbserver"):
        with contextlib.suppress(OSError, ValueError):
            with open(f"{runtime}/{name}-{number}.json") as file:
                told = json.load(file)
            if isinstance(told, dict):
                return told
    return None


def origin(told: Json, env: dict[str, str]) -> str:
    """Return where the server's token comes from: "made", "JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE",
    "a configuration", "password" (there is no token), or "nowhere"."""
    token = told.get("token")
    if not token:
        return "password" if told.get("password") else "nowhere"
    if token == env.get("JUPYTER_TOKEN"):
        return "JUPYTER_TOKEN"
    with contextlib.suppress(OSError), open(env.get("JUPYTER_TOKEN_FILE", "")) as file:
        if file.read() == token:
            return "JUPYTER_TOKEN_FILE"
    return "made" if _MADE.fullmatch(token) else "a configuration"
