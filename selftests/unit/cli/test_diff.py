"""Two images compared: pytest --compare and mlcheck diff, on every kind of image."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlcheck.reference import export_docker_archive
from selftests import warm
from selftests.checkout import CHECKOUT
from selftests.images import each_engine, script, write

PROFILE = """\
[os]
id = "mini"
version = "18.04"

[parity]
os = "another one for GPUs"

[parity.packages]
"cuda*" = "for GPUs"

[parity.tools]
nvcc = "for GPUs"

[parity.files]
"/usr/bin/nvcc" = "for GPUs"
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


class Pair:
    """An image for CPUs and one for GPUs, and the profile that says in what they may differ."""

    def __init__(self, directory: Path, tiny_rootfs: Path) -> None:
        self.cpu, self.gpu = directory / "cpu/mini:v1", directory / "gpu/mini:v1"
        for image, version in ((self.cpu, "20.04"), (self.gpu, "18.04")):
            shutil.copytree(tiny_rootfs, image, symlinks=True)
            write(image, "etc/os-release", f"ID=mini\nVERSION_ID={version}\n")
            write(image, ".singularity.d/env/10-docker2singularity.sh", 'export PATH="/usr/bin"\n')
            write(image, ".singularity.d/labels.json", '{"imageVersion": "v1", "imageRawSize": ""}')
            for name in ("torch", "six"):
                self.package(image, name, "1.6.0")
        self.package(self.gpu, "cuda-toolkit", "11")
        script(self.gpu, "usr/bin/nvcc", "true")
        self.profiles = directory / "profiles"
        write(self.profiles, "mini/image.toml", PROFILE)

    @staticmethod
    def package(image: Path, name: str, version: str) -> None:
        info = f"usr/lib/python3/dist-packages/{name}-x.dist-info"
        write(image, f"{info}/METADATA", f"Name: {name}\nVersion: {version}\n")
        rows = [f"{name}-x.dist-info/{file},," for file in ("METADATA", "RECORD")]
        write(image, f"{info}/RECORD", "\n".join(rows))

    def pytest(
        self, *more: object, a: object = None, b: object = None
    ) -> subprocess.CompletedProcess[str]:
        options = ("--profiles", self.profiles, "--image", a or self.gpu)
        return warm.pytest("-p", "no:cacheprovider", *options, "--compare", b or self.cpu, *more)

    def diff(self, *more: object) -> subprocess.CompletedProcess[str]:
        return run("mlcheck.cli", "diff", self.gpu, self.cpu, "--profiles", self.profiles, *more)


@pytest.fixture
def pair(tmp_path: Path, tiny_rootfs: Path) -> Pair:
    return Pair(tmp_path, tiny_rootfs)


@pytest.mark.slow
def test_images_that_differ_as_allowed(pair: Pair) -> None:
    done = pair.pytest("tests/parity", "-n", "2")
    assert done.returncode == 0, done.stdout
    assert "5 passed, 1 skipped)" in done.stdout  # neither has a kernel
    done = pair.diff("--profile", "mini")
    assert done.returncode == 0, done.stdout
    assert "no difference" in done.stdout


def test_a_difference_names_both_sides_and_the_line(pair: Pair) -> None:
    pair.package(pair.cpu, "torch", "1.3.1")
    report = pair.cpu.parents[1] / "report.json"
    done = pair.pytest("--mlcheck-json", report)
    assert done.returncode == 1
    assert f"compared with {pair.cpu}" in done.stdout
    found = json.loads(report.read_text())
    assert found["compared_with"] == f"{pair.cpu}@sandbox"
    (failed,) = (result for result in found["results"] if result["outcome"] == "failed")
    (finding,) = failed["findings"]
    assert failed["check"] == "parity-packages"
    assert (finding["subject"], finding["found"]) == ("torch", "1.6.0 (pip)")
    assert finding["expected"] == f"1.3.1 (pip), as in {pair.cpu}"
    assert finding["source"].endswith("mini/image.toml:8")


@pytest.mark.slow
def test_diff_as_text_and_as_json(pair: Pair) -> None:
    pair.package(pair.cpu, "torch", "1.3.1")
    done = pair.diff("--profile", "mini")
    assert done.returncode == 1
    assert "  torch\n    - 1.6.0 (pip)\n    + 1.3.1 (pip)\n" in done.stdout
    done = pair.diff("--json")
    assert done.returncode == 1
    said = {(d["aspect"], d["subject"]) for d in json.loads(done.stdout)["differences"]}
    assert said == {
        ("os", "VERSION_ID"),
        ("packages", "cuda-toolkit"),
        ("packages", "torch"),
        ("tools", "nvcc"),
        ("files", "/etc/os-release"),
        ("files", "/usr/bin/nvcc"),
    }


@pytest.mark.slow
def test_mistakes(pair: Pair, tmp_path: Path) -> None:
    for arguments in (["diff", pair.cpu], ["diff", pair.cpu, tmp_path / "nothing"]):
        done = run("mlcheck.cli", *arguments)
        assert done.returncode == 4
        assert "Traceback" not in done.stderr
    for image in (tmp_path / "nothing", "all", "no image"):
        done = pair.pytest(b=image)
        assert done.returncode == 4, done.stdout
        assert "Traceback" not in done.stdout + done.stderr


def test_without_compare_no_parity_is_collected(pair: Pair) -> None:
    done = warm.pytest("--collect-only", "-q", "--profiles", pair.profiles, f"--image={pair.cpu}")
    assert "test_parity" not in done.stdout
    done = pair.pytest("--collect-only", "-q")
    assert "test_parity" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("engine", each_engine("docker", "apptainer", "archive"))
def test_archives_on_each_engine(pair: Pair, engine: str, tmp_path: Path) -> None:
    files = []
    for image in (pair.gpu, pair.cpu):
        files.append(tmp_path / f"{image.parent.name}.tar")
        export_docker_archive(image, files[-1])
    a, b = (f"docker-archive:{file}" for file in files)
    done = pair.pytest("tests/parity", "--profile=mini", "--engine", engine, a=a, b=b)
    assert done.returncode == 0, done.stdout
    assert f"compared with {b}, engine {engine}" in done.stdout


@pytest.mark.slow
def test_a_directory_and_an_archive(pair: Pair, tmp_path: Path) -> None:
    export_docker_archive(pair.cpu, tmp_path / "cpu.tar")
    archive = f"docker-archive:{tmp_path}/cpu.tar"
    done = pair.pytest("tests/parity", "--engine=sandbox", b=archive, a=pair.gpu)
    assert done.returncode == 0, done.stdout
