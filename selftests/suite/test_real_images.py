"""What people do with images that are not ours, as an ordinary user: snapshot, check, packages,
diff. The command is the installed one, the images are of real parts, the engines are all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selftests.real_images import KINDS, NUMPY, OLDER_NUMPY, WAYS, RealImages, output

pytestmark = [pytest.mark.user_only, pytest.mark.engine("docker", "podman", "apptainer")]

MLCHECK = Path(sys.executable).with_name("mlcheck")


@pytest.fixture(scope="session")
def real(of_all_workers: Path) -> Iterator[RealImages]:
    """The images, which the last worker removes."""
    run = hashlib.sha256(str(of_all_workers).encode()).hexdigest()[:12]
    with (of_all_workers / "real-images.users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        images = RealImages(of_all_workers / "real-images", f"mlcheck-real-{run}")
        yield images
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        images.remove()


def mlcheck(*words: str, cwd: Path, code: int = 0) -> str:
    """What the command says, which must end with this exit code."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [MLCHECK, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, f"exit code {done.returncode}, not {code}:\n{said}"
    assert "Traceback" not in said
    return done.stdout if code in (0, 1) else said


@pytest.fixture(scope="session")
def profiles(real: RealImages) -> Path:
    return real.place / "profiles"


@pytest.fixture
def good(real: RealImages, kind: str) -> str:
    """The name of the good image in docker's store, which takes a minute to build."""
    return real.image(kind)


@pytest.fixture
def broken(real: RealImages) -> str:
    return real.broken()


def promised(real: RealImages, profiles: Path, kind: str) -> str:
    """Have a snapshot of the good image in `profiles`; the option that names it."""
    image = real.image(kind)
    with real.once(f"{kind}-profile") as missing:
        if missing:
            file = profiles / kind / "image.toml"
            file.parent.mkdir(parents=True)
            mlcheck("snapshot", image, "--engine=docker", "-o", str(file), cwd=real.place)
    return f"--profile={kind}:v1"


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_promises_what_is_there(
    real: RealImages, profiles: Path, kind: str, good: str
) -> None:
    promised(real, profiles, kind)
    written = (profiles / kind / "image.toml").read_text()
    assert ("numpy" in written) == (kind != "small")
    assert ("jupyterlab" in written) == (kind in ("venv", "usr-local"))


WHOLE = {("venv", "podman")} | {(kind, way) for kind in ("no-shell", "small") for way in WAYS}
"""Judged by the whole suite. What is slow in a large image, starting Jupyter above all, docker has
done for the snapshot, which is judged by the whole suite too, and podman does once more."""

TOLD_BY_SERVERS = ("docker", "podman")
"""Large images are tried in these alone: of an ordinary user's, both give files in ways of their
own. The others read files of this user's, as of the small images."""

ON = {"venv": TOLD_BY_SERVERS, "usr-local": ("docker",), "no-shell": WAYS, "small": WAYS}

GOOD = [(kind, way) for kind in KINDS for way in ON[kind]]


@pytest.mark.parametrize(("kind", "way"), GOOD)
def test_a_good_image_keeps_to_its_snapshot(
    real: RealImages, profiles: Path, kind: str, way: str, good: str, tmp_path: Path
) -> None:
    profile = promised(real, profiles, kind)
    image = real.stored(good, way)
    whole = (kind, way) in WHOLE
    words = ["check", *image, f"--profiles={profiles}", profile]
    said = mlcheck(*words, *([] if whole else ["-m", "not slow"]), cwd=tmp_path)
    verdict = "CONFORMS" if whole else "WHAT WAS SELECTED HOLDS"
    if way == "archive":  # what needs a process is promised, and nothing is started
        verdict = "WHAT WAS JUDGED HOLDS"
    assert f"  {verdict}  (" in said


@pytest.mark.parametrize("way", TOLD_BY_SERVERS)
def test_faults_are_named(
    real: RealImages, profiles: Path, way: str, broken: str, tmp_path: Path
) -> None:
    profile = promised(real, profiles, "venv")
    image = real.stored(broken, way)
    words = ("check", *image, f"--profiles={profiles}", profile, "-m", "not slow")
    said = mlcheck(*words, cwd=tmp_path, code=1)
    assert "DOES NOT CONFORM" in said
    for rule in ("kernelspecs-argv", "packages-promised", "rpath-hard-coded", "script-shebangs"):
        assert f"FAILED  {rule}: " in said, rule
    assert OLDER_NUMPY in said


@pytest.mark.parametrize(("kind", "way"), [one for one in GOOD if one[0] != "small"])
def test_packages_are_those_of_pip(
    real: RealImages, kind: str, way: str, good: str, tmp_path: Path
) -> None:
    python = "python3" if kind == "usr-local" else "/opt/venv/bin/python"
    pip = ["docker", "run", "--rm", "--network=none", good, python, "-m", "pip"]
    wanted = {
        (package["name"].lower().replace("_", "-"), package["version"])
        for package in json.loads(output(*pip, "list", "--format=json"))
    }
    assert len(wanted) >= (2 if kind == "no-shell" else 80)
    listed = json.loads(mlcheck("packages", "--json", *real.stored(good, way), cwd=tmp_path))
    found = {
        (package["name"].lower().replace("_", "-"), package["version"])
        for package in listed["packages"]
    }
    assert wanted <= found


@pytest.mark.parametrize("way", TOLD_BY_SERVERS)
def test_another_numpy_is_a_difference(
    real: RealImages, way: str, broken: str, tmp_path: Path
) -> None:
    engine, one = real.stored(real.image("venv"), way)
    _, other = real.stored(broken, way)
    said = mlcheck("diff", engine, one, other, cwd=tmp_path, code=1)
    assert "numpy" in said
    assert NUMPY in said
    assert OLDER_NUMPY in said


@pytest.mark.parametrize("way", WAYS)
def test_an_image_is_no_different_from_itself(real: RealImages, way: str, tmp_path: Path) -> None:
    engine, image = real.stored(real.image("no-shell"), way)
    assert "no difference" in mlcheck("diff", engine, image, image, cwd=tmp_path)
