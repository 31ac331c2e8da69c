"""The image atlas-jupyter on every engine, with a ROOT from outside; and what its kernels and its
server do that no planted fault shows."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.engines.base import Bind, OpenImage, Start
from mlcheck.engines.sandbox.engine import Sandbox
from mlcheck.inspect.jupyter import cells as kernel_cells
from mlcheck.inspect.jupyter import run_server
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import SUITE, Catalog
from mlcheck.reference.atlas import ROOT_STAND_IN
from selftests.images import build_sif, each_engine
from selftests.judging import by_outcome, good_in_a_directory, judge, with_surroundings

pytestmark = pytest.mark.slow

NAME = "atlas-jupyter"
PROFILE = Catalog([SUITE]).load(NAME)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as docker and podman load it."""
    file = tmp_path_factory.mktemp("archive") / f"{NAME}.tar"
    reference.export_docker_archive(reference.build(NAME), file)
    return file


@pytest.mark.parametrize("engine", each_engine("docker", "podman", "apptainer"))
def test_the_same_verdicts_on_every_engine(
    engine: str, tmp_path: Path, of_all_workers: Path, request: pytest.FixtureRequest
) -> None:
    image = str(reference.build(NAME))
    if engine != "apptainer":
        image = f"docker-archive:{request.getfixturevalue('archive')}"
    options = [f"--engine={engine}", f"--profile={NAME}", *with_surroundings(NAME)]
    found = judge(tmp_path / "report.json", f"--image={image}", *options)
    outcomes = by_outcome(found)
    assert outcomes.keys() == {"passed", "skipped"}, outcomes
    # Of layers, a profile without budgets lets secrets be judged alone.
    here = set() if engine == "apptainer" else {"layers-secrets"}
    in_a_directory = by_outcome(good_in_a_directory(NAME, of_all_workers))
    assert outcomes["passed"] == in_a_directory["passed"] | here


@pytest.mark.engine("apptainer")
def test_the_file_of_its_own_engine(tmp_path: Path) -> None:
    """A SIF file has a budget of its own; what needs no start is judged in it."""
    sif = tmp_path / f"{NAME}.sif"
    # The colon of the directory's name would be taken for the end of a scheme.
    (tmp_path / "image").symlink_to(reference.build(NAME))
    # Not compressed: that takes a minute.
    build_sif(tmp_path / "image", sif, "--mksquashfs-args=-noI -noD -noF -noX")
    found = judge(tmp_path / "report.json", f"--image={sif}", "-m", "not slow")
    outcomes = by_outcome(found)
    assert outcomes.keys() == {"passed", "skipped"}, outcomes
    judged = {
        "files",
        "image-size",
        "kernelspecs-argv",
        "kernelspecs-promised",
        "kernelspecs-valid",
    }
    assert outcomes["passed"] == judged
    assert isinstance(found["results"], list)
    (notes,) = [result["notes"] for result in found["results"] if result["check"] == "image-size"]
    assert any(note == f"file: {sif.stat().st_size / 1e6:.0f} MB of 1.2 GB" for note in notes)


def test_without_root_its_kernels_are_not_judged(tmp_path: Path) -> None:
    chosen = ["--rule=kernel-setup", "--rule=kernels-start"]
    image = f"--image={reference.build(NAME)}"
    found = judge(tmp_path / "report.json", image, *chosen)
    assert by_outcome(found) == {"passed": {"kernels-start"}, "skipped": {"kernel-setup"}}


@pytest.fixture
def image() -> Iterator[OpenImage]:
    ref = ImageRef.parse(str(reference.build(NAME)))
    start = Start(binds=(Bind(str(ROOT_STAND_IN), "/mycvmfs"),))
    with Sandbox().prepare(ref) as prepared, Sandbox().open(prepared, start=start) as opened:
        yield opened


def test_another_port_where_the_first_is_taken(image: OpenImage) -> None:
    """Jupyter takes the next ones; what it prints says which."""
    promised = PROFILE.expect.run_server
    assert promised is not None
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 8888)); print('taken', flush=True)"
    )
    code += "; s.settimeout(600); s.accept()"
    taking = threading.Thread(target=image.run, args=(["python3", "-c", code],))
    taking.start()
    # A connection would end it: only the list of those who listen is looked at.
    wait = "until grep -q ':22B8 .* 0A ' /proc/net/tcp; do sleep 0.1; done"
    assert image.run(["bash", "-c", wait], limit_s=60).exit_code == 0
    found = run_server.probe(image, "python3", promised.url, "/root")
    release = "exec 3<>/dev/tcp/127.0.0.1/8888"
    assert image.run(["bash", "-c", release]).exit_code == 0
    taking.join()
    assert found.error is None
    assert (found.status["lab"], found.status["lab without a token"]) == (200, 302)


def test_nothing_of_the_server_and_the_kernels_is_left(image: OpenImage) -> None:
    session = kernel_cells.Session("root", "setup", ("PYTHON_VER",), {"loop": "while (1) {}"})
    (found,) = kernel_cells.probe(image, "python3", [session]).sessions
    assert (found.error, found.setup) == (None, None)  # it looks for another file
    assert found.cells["loop"].error is not None
    assert image.run(["ls", "-A", "/tmp"]).stdout == b""
    processes = image.run(["bash", "-c", "cd /proc; echo [0-9]*"]).stdout.split()
    assert len(processes) <= 2


def test_a_root_that_computes_wrongly_is_seen(tmp_path: Path) -> None:
    """What is bound is the one that computes, in both languages."""
    wrong = tmp_path / "mycvmfs"
    shutil.copytree(ROOT_STAND_IN, wrong)
    (module,) = wrong.rglob("ROOT.py")
    module.write_text(module.read_text().replace("sum(self", "2 * sum(self"))
    options = [f"--image={reference.build(NAME)}", f"--bind={wrong}:/mycvmfs"]
    options += ["--rule=kernel-cells"]
    found = judge(tmp_path / "report.json", *options)
    assert isinstance(found["results"], list)
    (result,) = found["results"]
    subjects = [finding["subject"] for finding in result["findings"]]
    assert subjects == ["python2: pyroot", "root: root"]
