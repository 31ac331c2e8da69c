"""Every mistake of docs/errors.md, made for real."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftests import mistakes
from selftests.checkout import CHECKOUT
from selftests.mistakes import Mistake
from selftests.waiting import eventually

ROWS = list(mistakes.mistakes())
MARK = "MLCHECK_SELFTEST"

_PRELUDE = """\
listen() {  # a server that is not docker's, with this mode on its socket
    "$PYTHON" -c '
import os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.bind(sys.argv[1])
    os.chmod(sys.argv[1], int(sys.argv[2], 8))
    server.listen()
    os.symlink("x", "listening")
    while True:
        client, _ = server.accept()
        with client:
            try:
                client.recv(100)
                client.sendall(b"220 mail.example.org ESMTP\\r\\n")
            except OSError:
                pass
' "${DOCKER_HOST#unix://}" "$1" & server=$!
    trap 'kill $server' EXIT
    until [ -L listening ]; do sleep 0.02; done
}
"""


def python_for_all() -> str:
    """A Python that everybody may run; ours may lie in somebody's home."""
    ours = Path(sys.executable).resolve()
    closed = any(not directory.stat().st_mode & stat.S_IXOTH for directory in ours.parents)
    return "/usr/bin/python3" if closed else sys.executable


@pytest.fixture
def place(tiny_rootfs: Path) -> Iterator[Path]:
    """A directory that everybody may enter, with an image and its profile."""
    directory = Path(tempfile.mkdtemp(prefix="mistake-"))
    try:
        directory.chmod(0o755)
        shutil.copytree(tiny_rootfs, directory / "good", symlinks=True, copy_function=os.link)
        release = directory / "good/etc/os-release"
        release.unlink()
        release.write_text("ID=tiny\n")
        (directory / "profiles/good").mkdir(parents=True)
        (directory / "profiles/good/image.toml").write_text(
            'shells = ["/bin/sh"]\n[files]\n"/usr/bin/sh" = { mode = "0755" }\n'
        )
        (directory / "home").mkdir()
        (directory / "tmp").mkdir()
        yield directory
    finally:
        (directory / "good").chmod(0o755)  # a row may have closed it
        shutil.rmtree(directory)


def processes_of(mark: str) -> list[str]:
    """The commands of all processes that a row has started, directly or not."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            pass  # it has ended, or is somebody else's
    return found


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row.what).strip("-"))
def test_mistake(row: Mistake, place: Path) -> None:
    script = f"{_PRELUDE}\n{row.given}\n{row.run}\n"
    launcher = ["/bin/sh", "-c", script]
    binaries = Path(sys.executable).parent
    mark = uuid.uuid4().hex
    env = {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "BIN": str(binaries),
        "PYTHON": sys.executable,
        "CHECKOUT": str(CHECKOUT),
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "DOCKER_HOST": f"unix://{place}/engine.sock",
        "CONTAINER_HOST": f"unix://{place}/engine.sock",
        "PYTEST_ADDOPTS": "-p no:hypothesispytest",
        MARK: mark,
    }
    if row.who == "root":
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        launcher = ["unshare", *own, "--mount", *launcher]
    elif row.who == "no namespaces":
        # Without any capability, even root is an ordinary user.
        lowered = 'exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
        script = f"echo 0 > /proc/sys/user/max_user_namespaces; {lowered}"
        launcher = ["unshare", "--user", "--map-root-user", "/bin/sh", "-c", script, "-", *launcher]
    elif row.who == "nobody" and os.geteuid() == 0:
        python = python_for_all()
        env |= {"PYTHON": python, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
        command = 'exec setpriv --reuid 65534 --regid 65534 --clear-groups "$PYTHON" -m mlcheck.cli'
        script = f'{_PRELUDE}\nmlcheck() {{ ({command} "$@"); }}\n{row.given}\n{row.run}\n'
        launcher = ["/bin/sh", "-c", script]
    done = subprocess.run(
        launcher, cwd=place, env=env, capture_output=True, check=False, timeout=120
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == row.exit, said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    rest = said
    for words in row.says:
        _, found, rest = rest.partition(words)
        assert found, f"{words!r} is not said, or not in this order:\n{said}"
    assert eventually(lambda: not processes_of(mark))
    assert not list((place / "tmp").iterdir())


def test_the_page_is_what_is_tried() -> None:
    assert mistakes.PAGE.read_text(encoding="utf-8") == mistakes.page(), (
        "docs/errors.md is old: python -m selftests.mistakes"
    )


def test_there_are_enough_and_each_once() -> None:
    assert len({(row.what, row.run) for row in ROWS}) == len(ROWS) >= 50
