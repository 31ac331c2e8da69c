"""The image's own server, started as the image starts it, and a package installed in its prefix."""

from __future__ import annotations

import contextlib
import html
import http.client
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from urllib.parse import urlsplit

from mlcheck.inspect.inside.common import Json, in_words, last_words, started, write

_PACKAGE = "mlcheck_probe"
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


async def start(request: Json, top: str) -> Json:
    """Start CMD, request pages, run the health check, install a package.

    Takes: argv (CMD), environ (of the container), variable and prefix (of the URLs), port, pages
    (paths), healthcheck (argv), site (the prefix of packages),
    own_user (true if the engine ignores the image's USER), limit_s.
    """
    env = dict(request["environ"])
    home = env.get("HOME") or "/"
    if request["own_user"] and not os.access(home, os.W_OK):
        home = env["HOME"] = top + "/home"
        os.makedirs(home)
    # A container that starts has none of these.
    for name in ("JUPYTER_RUNTIME_DIR", "TMPDIR"):
        env.pop(name, None)
    env[request["variable"]] = request["prefix"]
    if request["own_user"]:
        env["JUPYTER_RUNTIME_DIR"] = home + "/.local/share/jupyter/runtime"
        # The engine runs everything as root, which Jupyter refuses.
        env["JUPYTER_CONFIG_PATH"] = top + "/config"
        write(top + "/config/jupyter_server_config.json", '{"ServerApp": {"allow_root": true}}')
    found: Json = {"uid": os.getuid(), "gid": os.getgid(), "home": home}
    port = request["port"]
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
        found["busy"] = True
        return found
    log = top + "/server.log"
    began = time.monotonic()
    try:
        process = started(request["argv"], home, env, log)
    except OSError as error:
        found["error"] = in_words(error)
        return found
    found["error"] = f"does not answer at port {port} after {request['limit_s']:.0f} s"
    while time.monotonic() - began < request["limit_s"]:
        if process.poll() is not None:
            found["error"] = f"ended with exit code {process.returncode} before it answered"
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            found["error"] = None
            break
        # There is no sign when another program listens.
        time.sleep(0.05)
    if found["error"] is None:
        deadline = began + 2 * request["limit_s"]
        found["pages"] = [page(port, path, deadline) for path in request["pages"]]
        found["seconds"] = time.monotonic() - began
        # The home may be another than that of the image's user, in which docker-stacks' health
        # check looks for the server's address: /home/$NB_USER/.local/share/jupyter/runtime.
        looked_in = "/home/" + env.get("NB_USER", "")
        moved = request["own_user"] and "NB_USER" in env and home != looked_in
        its_own = {**env, "NB_USER": ".." + home} if moved else env
        found["healthcheck"] = healthy(request["healthcheck"], its_own, home, deadline)
    elif last_words(log):
        found["error"] += "; it said: " + last_words(log)
    found["installed"], found["read_only"] = install(request["site"], top, env)
    return found


def page(port: int, path: str, deadline: float) -> Json:
    """Return the answer at a path, after redirections; one that says 502 or 503 is still
    starting."""
    here, status, body = path, None, b""
    for _ in range(10):
        while True:
            status, location, body = get(port, here)
            if status not in (502, 503) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if status not in (301, 302, 303, 307, 308) or not location:
            break
        here = urlsplit(location).path or "/"
    text = body.decode("utf-8", "replace")
    title = _TITLE.search(text)
    return {
        "asked": path,
        "path": here,
        "status": status,
        "title": html.unescape(title.group(1)).strip() if title else "",
    }


def get(port: int, path: str) -> tuple[int | None, str, bytes]:
    """Return status, Location and up to 4 MB of the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location") or "", answer.read(4 * 1024 * 1024)
    except (OSError, http.client.HTTPException) as error:
        return None, "", in_words(error).encode()
    finally:
        connection.close()


def healthy(argv: list[str], env: dict[str, str], home: str, deadline: float) -> str | None:
    """Run the health check until it succeeds, as an engine does; return how it ended, or None."""
    if not argv:
        return None
    while True:
        try:
            done = subprocess.run(
                argv,
                cwd=home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=30,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return in_words(error)
        if done.returncode == 0:
            return None
        # A command that exists and fails may succeed later, when the server is ready.
        if time.monotonic() > deadline or done.returncode in (126, 127):
            lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
            said = ": " + lines[-1][:300] if lines else ""
            return f"ends with exit code {done.returncode}{said}"
        time.sleep(0.5)


def install(site: str, top: str, env: dict[str, str]) -> tuple[str | None, bool]:
    """Install a package with pip as this user; return what went wrong, and whether the prefix is
    read-only for everybody."""
    if os.statvfs(site).f_flag & os.ST_RDONLY:
        return None, True
    wheel = f"{top}/{_PACKAGE}-1.0-py3-none-any.whl"
    info = f"{_PACKAGE}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{_PACKAGE}.py", "WORKS = True\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {_PACKAGE}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: mlcheck\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", f"{_PACKAGE}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    steps = [
        [*pip, "install", "--no-index", "--no-deps", "--no-cache-dir", wheel],
        [sys.executable, "-c", f"import {_PACKAGE}; print({_PACKAGE}.__file__)"],
        [*pip, "uninstall", "--yes", _PACKAGE],
    ]
    said = ["", "", ""]
    for number, argv in enumerate(steps):
        done = subprocess.run(
            argv,
            cwd=top,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        said[number] = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode:
            what = " ".join(["pip", *argv[4:5]] if argv[1:3] == ["-m", "pip"] else ["import"])
            return f"{what}: {(said[number].splitlines() or ['failed'])[-1][:300]}", False
    if not said[1].splitlines()[-1].startswith(site + "/"):
        return "pip install puts it into " + os.path.dirname(said[1].splitlines()[-1]), False
    return None, False
