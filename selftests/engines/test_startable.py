"""What the rule `startable` says of a configuration, put beside a start by docker and podman."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mlcheck.engines.base import PLAINLY, OpenImage
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.server import users
from mlcheck.inspect.startup import promised
from mlcheck.model.environment import Environment
from mlcheck.profile.catalog import Profile
from selftests.images import each_engine, script, write
from selftests.rules import judge

pytestmark = [pytest.mark.slow, pytest.mark.root_only]  # files have owners

PATH = "/opt/bin:/usr/bin:/bin"
STARTS = {
    "a program": (["/bin/sh"], "", ""),
    "on PATH": (["sh"], "", ""),
    "on no PATH": (["nothing"], "", ""),
    "missing": (["/opt/nothing"], "", ""),
    "relative": (["./start"], "", "/opt/bin"),
    "relative to another directory": (["./start"], "", "/opt"),
    "a directory": (["/opt/bin"], "", ""),
    "a script": (["/opt/bin/start"], "", ""),
    "by a link": (["/opt/link"], "", ""),
    "by a link that leads nowhere": (["/opt/dangling"], "", ""),
    "not executable": (["/opt/plain"], "", ""),
    "of Windows": (["/opt/crlf"], "", ""),
    "interpreter missing": (["/opt/elsewhere"], "", ""),
    "no first line": (["/opt/no-line"], "", ""),
    "no interpreter": (["/opt/no-name"], "", ""),
    "empty": (["/opt/empty"], "", ""),
    "a user": (["/opt/bin/start"], "jo", ""),
    "a number": (["/opt/bin/start"], "7", ""),
    "a number without a line": (["/opt/bin/start"], "12345:6", ""),
    "no such user": (["/opt/bin/start"], "jane", ""),
    "no such group": (["/opt/bin/start"], "jo:users", ""),
    "a group": (["/opt/bin/start"], "jo:staff", ""),
    "root's own": (["/opt/private"], "", ""),
    "closed": (["/opt/private"], "jo", ""),
    "the group's": (["/opt/of-staff"], "jo", ""),
    "the group's, by number": (["/opt/of-staff"], "7", ""),
    "the group's, in another group": (["/opt/of-staff"], "7:6", ""),
    "in a closed directory": (["/closed/start"], "jo", ""),
    "in a closed directory, for root": (["/closed/start"], "root", ""),
}
"""The entrypoint, the user and the working directory of images."""


@pytest.fixture(scope="module")
def tree(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("startable") / "root"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    for name in ("opt/bin/start", "opt/private", "opt/of-staff", "closed/start"):
        script(root, name, "exit 0")
    for name, text in (
        ("crlf", "#!/bin/sh\r\nexit 0\r\n"),
        ("elsewhere", "#!/usr/bin/no-python\n"),
        ("no-line", "exit 0\n"),
        ("no-name", "#!\nexit 0\n"),
        ("empty", ""),
    ):
        write(root, f"opt/{name}", text, 0o755)
    write(root, "opt/plain", "#!/bin/sh\n", 0o644)
    (root / "opt/link").symlink_to("bin/start")
    (root / "opt/dangling").symlink_to("nothing")
    write(root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\njo:x:7:7::/home/jo:/bin/sh\n")
    write(root, "etc/group", "root:x:0:\njo:x:7:\nstaff:x:50:jo\n")
    (root / "opt/private").chmod(0o700)
    (root / "opt/of-staff").chmod(0o750)
    os.chown(root / "opt/of-staff", 0, 50)
    (root / "closed").chmod(0o700)
    return root


@pytest.fixture(scope="module", params=each_engine("docker", "podman"))
def image(request: pytest.FixtureRequest, tree: Path) -> Iterator[tuple[str, str]]:
    """An engine, and the image in its store."""
    engine: str = request.param
    name = f"mlcheck-test-{uuid.uuid4().hex[:12]}:v1"
    with subprocess.Popen(["tar", "-C", tree, "-c", "."], stdout=subprocess.PIPE) as tar:
        command = [engine, "import", "--change", f"ENV PATH={PATH}", "-", name]
        subprocess.run(command, stdin=tar.stdout, check=True, capture_output=True)
    yield engine, name
    subprocess.run([engine, "rmi", "-f", name], check=True, capture_output=True)


@pytest.mark.parametrize(("argv", "user", "workdir"), STARTS.values(), ids=STARTS)
def test_starts_compared(
    argv: list[str], user: str, workdir: str, image: tuple[str, str], tree: Path
) -> None:
    engine, name = image
    words = [*(["--user", user] if user else []), *(["--workdir", workdir] if workdir else [])]
    command = [engine, "run", "--rm", "--network=none", *words, "--entrypoint", argv[0], name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    config = Environment({"PATH": PATH}, (*argv,), None, user, workdir, None, None, "image")
    rootfs = DirectoryRootFS(tree)
    opened = cast(OpenImage, SimpleNamespace(rootfs=rootfs, environment=config))
    program = promised.start_program(opened, PLAINLY)
    accounts = users.accounts(rootfs)
    verdict = judge("startable", config, program, accounts, Profile.of({"startable": True}))
    # Each program ends with 0, if it is started.
    assert (verdict.outcome == "passed") == (done.returncode == 0), done.stderr
