"""An image that serves, started by real engines: as its own user, and as another one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.inspect.rules import promised
from mlcheck.profile.catalog import SUITE as SUITE_DIRECTORY
from mlcheck.profile.catalog import Catalog
from mlcheck.reference.export import export_docker_archive
from mlcheck.reference.python import PREFIX, SITE
from selftests.images import each_engine
from selftests.judging import by_outcome, judge

NAME = "jupyterlab-cpu"
NO_OTHER_USER = {"server-any-user", "user-installs"}
FILES = ("general/test_serving.py", "general/test_work.py")
SUITE = [f"tests/{file}" for file in FILES]
SERVING = {
    name
    for name, rule in promised(Catalog([SUITE_DIRECTORY]).load(NAME), compared=False).items()
    if f"general/{rule.file.name}" in FILES
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "image.tar"
    export_docker_archive(reference.build(NAME), file)
    return file


@pytest.fixture
def loaded(engine: str, archive: Path) -> Iterator[str]:
    """The image in the store of docker or podman, under a name of its own."""
    done = subprocess.run([engine, "load", "-q", "-i", archive], capture_output=True, check=True)
    there = done.stdout.decode().strip().rpartition("Loaded image: ")[2]
    own = f"selftests.invalid/{NAME}:v1"
    subprocess.run([engine, "tag", there, own], check=True)
    yield own
    subprocess.run([engine, "rmi", "-f", own, there], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("engine", each_engine("docker", "podman"))
def test_its_own_user_starts_the_server_and_installs_packages(
    engine: str, loaded: str, tmp_path: Path
) -> None:
    arguments = [f"--image={loaded}", f"--engine={engine}", "--pull=never", *SUITE]
    outcomes = by_outcome(judge(tmp_path / "report.json", *arguments))
    assert outcomes == {"passed": SERVING}


@pytest.mark.engine("apptainer")
def test_apptainer_starts_the_server_as_whoever_runs_it(tmp_path: Path) -> None:
    image = reference.build(NAME)
    arguments = [f"--image={image}", "--engine=apptainer", *SUITE]
    outcomes = by_outcome(judge(tmp_path / "report.json", *arguments))
    assert outcomes == {"passed": SERVING - NO_OTHER_USER, "skipped": NO_OTHER_USER}


CHANGES = {
    "packages-of-root": (
        f"chown root:root {SITE} {PREFIX}/bin && chmod 755 {SITE} {PREFIX}/bin",
        [],
        {"user-installs", "user-writable"},
    ),
    "home-of-one-user": (
        "mkdir -p /home/jovyan/.local/share && chown -R jovyan /home/jovyan/.local "
        "&& chmod 700 /home/jovyan",
        [],
        {"server-any-user", "user-writable"},
    ),
    "root": ("true", ["USER root"], {"user", "server-starts"}),
}
"""What is changed in the good image, of its files and its configuration, and who sees it."""


@pytest.mark.engine("docker")
@pytest.mark.parametrize("engine", ["docker"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_only_an_engine_with_users_shows(
    engine: str, change: str, loaded: str, tmp_path: Path
) -> None:
    command, changes, caught_by = CHANGES[change]
    base = ["docker", "run", "--user=0", "--network=none", "--entrypoint=/bin/sh"]
    started = subprocess.run(
        [*base, "--detach", loaded, "-c", command], capture_output=True, text=True, check=True
    )
    container = started.stdout.strip()
    image = f"selftests.invalid/{NAME}:{change}"
    options = ["USER jovyan", 'ENTRYPOINT ["tini", "--"]', 'CMD ["start-custom.sh"]', *changes]
    words = [word for option in options for word in ("--change", option)]
    try:
        subprocess.run(["docker", "wait", container], capture_output=True, check=True)
        done = subprocess.run(
            ["docker", "commit", *words, container, image], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=True)
    arguments = [f"--image={image}", "--engine=docker", "--pull=never"]
    arguments += ["tests/general/test_serving.py"]
    try:
        report = judge(tmp_path / "report.json", *arguments)
    finally:
        subprocess.run(["docker", "rmi", "-f", image], capture_output=True, check=True)
    assert by_outcome(report).get("failed", set()) == caught_by, json.dumps(report["results"])
