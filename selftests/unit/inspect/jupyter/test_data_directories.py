"""The directories of Jupyter, put beside those of jupyter_core itself."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from pathlib import Path

import pytest

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.jupyter.data_directories import data_directories
from mlcheck.model.environment import Environment
from mlcheck.model.files import ResolvedFile
from selftests.images import opened, write
from selftests.reference_fixtures import reference_image  # noqa: F401

VALUES = {
    "JUPYTER_PATH": ["/one", "/one:/two/", ""],
    "JUPYTER_DATA_DIR": ["/data", ""],
    "XDG_DATA_HOME": ["/xdg", ""],
    "JUPYTER_PREFER_ENV_PATH": ["1", "0", "0.0", "off", ""],
    "JUPYTER_PLATFORM_DIRS": ["1", "no"],
    "XDG_DATA_DIRS": ["/a:/b/", "", " "],
    "PYTHONUSERBASE": ["/base", ""],
    "PYTHONNOUSERSITE": ["1", ""],
    "CONDA_DEFAULT_ENV": ["base", "mine"],
    "CONDA_PREFIX": ["/opt/conda", "/opt", "/elsewhere"],
}
"""Values of variables, each of which may also be unset."""

ENVIRONMENTS = {"/opt/conda": None, "/tmp/plain": "false", "/tmp/open": "true", "/usr": None}
"""Prefixes of a Python, with `include-system-site-packages` where it is a virtual environment's."""

_ASKED = """\
import json, os, subprocess, sys
import jupyter_core, platformdirs
places = {os.path.dirname(os.path.dirname(one.__file__)) for one in (jupyter_core, platformdirs)}
for name, options in (("plain", []), ("open", ["--system-site-packages"])):
    argv = [sys.executable, "-m", "venv", "--without-pip", *options, "/tmp/" + name]
    subprocess.run(argv, check=True)
say = "import json, jupyter_core.paths as p; print(json.dumps(p.jupyter_path()))"
AS_IN_USR = "import sys; sys.prefix = sys.base_prefix = '/usr'\\n"
answers = []
for prefix, env in json.load(sys.stdin):
    env = {**env, "PYTHONPATH": ":".join(places)}
    # The image has no Python there.
    argv = [sys.executable, "-c", AS_IN_USR + say] if prefix == "/usr" else [
        prefix + "/bin/python3", "-c", say]
    answers.append(json.loads(subprocess.run(argv, env=env, stdout=-1, check=True).stdout))
print("\\n" + json.dumps(answers))
"""


def cases() -> list[tuple[str, dict[str, str]]]:
    chosen = random.Random(11)
    found = []
    for prefix in ENVIRONMENTS:
        found.append((prefix, {"HOME": "/root"}))
        for _ in range(20):
            names = chosen.sample(sorted(VALUES), chosen.randint(1, 6))
            env = {name: chosen.choice(VALUES[name]) for name in names}
            found.append((prefix, {"HOME": "/root", **env}))
    return found


@pytest.mark.slow
def test_the_order_is_that_of_jupyter_core_compared(
    reference_image: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    for prefix, site in ENVIRONMENTS.items():
        (tmp_path / prefix.lstrip("/")).mkdir(parents=True)
        if site is not None:
            write(tmp_path, f"{prefix}/pyvenv.cfg", f"include-system-site-packages = {site}\n")
    with opened(reference_image) as image:
        asked = json.dumps(cases()).encode()
        done = image.run(["python3", "-c", _ASKED], stdin=asked, limit_s=120)
    assert done.exit_code == 0, done.stderr.decode()
    answers = json.loads(done.stdout.decode().strip().splitlines()[-1])
    for (prefix, env), said in zip(cases(), answers, strict=True):
        environment = Environment(env, None, None, str(os.getuid()), None, None, None, "")
        found = data_directories(DirectoryRootFS(tmp_path), environment, prefix)
        paths = [one.path for one in found if not one.path.endswith(".ipython")]
        assert unique(paths) == unique(said), (prefix, env)
    assert len({*map(tuple, answers)}) > 20


def unique(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(path.rstrip("/") for path in paths))


@pytest.mark.parametrize(
    ("user", "owner", "first"),
    [
        ("", 0, True),
        ("0", 0, True),
        ("1000:100", 1000, True),
        ("jovyan", 1000, True),
        ("jovyan", 0, False),
        ("nobody-there", 0, False),
        (None, 0, False),
    ],
)
def test_an_environment_of_ones_own_goes_first(
    user: str | None, owner: int, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `_do_i_own` of jupyter_core; an image without a record starts as whoever runs it."""
    write(tmp_path, "etc/passwd", "root:x:0:0::/root:/bin/sh\njovyan:x:1000:100::/home/j:/bin/sh\n")
    write(tmp_path, "opt/venv/pyvenv.cfg", "home = /usr/bin\n")
    rootfs = DirectoryRootFS(tmp_path)
    real = rootfs.resolve

    def owned(path: str) -> ResolvedFile:
        found = real(path)
        assert found.final is not None
        return dataclasses.replace(found, final=found.final._replace(uid=owner))

    monkeypatch.setattr(
        rootfs, "resolve", lambda path: (owned if path == "/opt/venv" else real)(path)
    )
    environment = Environment({"HOME": "/root"}, None, None, user, None, None, None, "")
    found = [one.path for one in data_directories(rootfs, environment, "/opt/venv")]
    own = found.index("/opt/venv/share/jupyter")
    assert (own < found.index("/root/.local/share/jupyter")) == first
