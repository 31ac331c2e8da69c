"""The server that an image starts by itself, found by the address that it prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import time
from urllib.parse import urlsplit

from mlcheck.inspect.inside.as_user import origin
from mlcheck.inspect.inside.common import Json, in_words, last_words, listens, started, write
from mlcheck.inspect.inside.server import Client

_KEPT = 1024 * 1024
"""Bytes of the server's output that are searched."""
_SILENCE_S = 30.0
"""Seconds for which a listening server may print nothing; more if it took longer to listen, as on a
slow machine. Jupyter prints its address at once, but a proxy may listen before it."""


async def printed(request: Json, top: str) -> Json:
    """Start the image's server, read the address that it prints, and send requests there.

    The port is the server's choice: if its first one is taken, Jupyter takes another.

    Takes: argv, url (regular expression with a group "token"), user_home, limit_s.
    """
    home, config = top + "/home", top + "/config"
    os.makedirs(home)
    # The settings of the image's user, in a home that can be written.
    for settings in (".jupyter", ".local/etc/jupyter"):
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(f"{request['user_home']}/{settings}", f"{home}/{settings}")
    # An engine may run commands as root, and Jupyter serves as root only with this option.
    for name, section in (("server", "ServerApp"), ("notebook", "NotebookApp")):
        text = json.dumps({section: {"allow_root": True, "open_browser": False}})
        write(f"{config}/jupyter_{name}_config.json", text)
    own = os.environ.get("JUPYTER_CONFIG_PATH")
    env = dict(os.environ, HOME=home, SHELL="/bin/sh")
    env["JUPYTER_CONFIG_PATH"] = f"{config}:{own}" if own else config
    log = top + "/printed.log"
    began = time.monotonic()
    try:
        process = started(request["argv"], home, env, log)
    except OSError as error:
        return {"error": in_words(error)}
    limit_s = request["limit_s"]
    silent_until = None
    found: Json = {"error": f"printed no such address in {limit_s:.0f} s"}
    while time.monotonic() - began < limit_s:
        ended = process.poll()
        with open(log, "rb") as stream:
            address = re.search(request["url"], stream.read(_KEPT).decode(errors="replace"))
        if address is not None:
            found["error"] = None
            found["token"] = origin({"token": address.group("token")}, env)
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
        now = time.monotonic()
        if silent_until is None and listens(process.pid):
            silent_until = now + max(_SILENCE_S, now - began)
        if silent_until is not None and now > silent_until:
            found["error"] = f"listens, and printed no such address in {now - began:.0f} s"
            break
        await asyncio.sleep(0.05)
    found["seconds"] = time.monotonic() - began
    if found["error"] is not None and last_words(log):
        found["error"] += "; it said: " + last_words(log)
    return found


async def ask(address: str, token: str, request: Json, found: Json) -> None:
    """Send requests with the token, without one and with another one, if there is a listener."""
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
