"""The server that an image starts by itself, found by the address that it prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import time
from urllib.parse import urlsplit

from mlcheck.probes.inside.common import Json, in_words, last_words, write
from mlcheck.probes.inside.server import Client

_KEPT = 1024 * 1024
"""Bytes of what the server says that are looked at."""


async def printed(request: Json, top: str) -> Json:
    """Start what the image starts, read the address that it prints, and ask there.

    The port is the server's choice: where its first one is taken, Jupyter takes another.

    Takes: argv, url (regular expression with a group "token"), limit_s.
    """
    home = top + "/home"
    # Whoever an engine runs commands as: Jupyter wants to be asked before it serves as root.
    for name, section in (("server", "ServerApp"), ("notebook", "NotebookApp")):
        text = json.dumps({section: {"allow_root": True, "open_browser": False}})
        write(f"{home}/.jupyter/jupyter_{name}_config.json", text)
    log = top + "/printed.log"
    began = time.monotonic()
    with open(log, "wb") as stream:
        try:
            process = subprocess.Popen(
                request["argv"],
                cwd=home,
                env=dict(os.environ, HOME=home, SHELL="/bin/sh"),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        except OSError as error:
            return {"error": in_words(error)}
    limit_s = request["limit_s"]
    found: Json = {"error": f"printed no such address in {limit_s:.0f} s"}
    while time.monotonic() - began < limit_s:
        ended = process.poll()
        with open(log, "rb") as stream:
            address = re.search(request["url"], stream.read(_KEPT).decode(errors="replace"))
        if address is not None:
            found["error"] = None
            try:
                asking = ask(address.group(), address.group("token"), request, found)
                await asyncio.wait_for(asking, limit_s)
            except asyncio.TimeoutError:
                found["error"] = f"did not answer all questions in {limit_s:.0f} s"
            except ValueError as error:
                found["error"] = "printed what is no address: " + in_words(error)
            break
        if ended is not None:
            found["error"] = f"ended with exit code {ended} and printed no such address"
            break
        await asyncio.sleep(0.05)
    found["seconds"] = time.monotonic() - began
    if found["error"] is not None and last_words(log):
        found["error"] += "; it said: " + last_words(log)
    return found


async def ask(address: str, token: str, request: Json, found: Json) -> None:
    """Ask with the token, without one and with another one, when somebody listens there."""
    parts = urlsplit(address)
    port = parts.port or 80
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            break
        await asyncio.sleep(0.05)
    base = re.sub("(lab|tree)/?$", "", parts.path) or "/"
    client = Client(port, dict(request, base=base, secret=token))
    status = found["status"] = {}
    status["address"], _ = await client.http(f"{parts.path}?{parts.query}")
    for path in ("lab", "api/kernels"):
        status[path], _ = await client.own(path)
        status[path + " without a token"], _ = await client.http(base + path)
        status[path + " with a wrong token"], _ = await client.http(base + path, "x" + token)
