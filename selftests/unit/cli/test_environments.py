"""Every command looks into the environments of an image, wherever they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlcheck.cli import main as cli
from mlcheck.reference import export_docker_archive
from selftests.environments import PYTHON, conda, environment, package
from selftests.images import each_engine, script, write


class Said:
    """Runs the command and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    def __call__(self, *arguments: object, code: int = 0) -> str:
        self._capsys.readouterr()
        done = cli.main([str(argument) for argument in arguments])
        said = self._capsys.readouterr()
        self.errors = said.err
        assert done == code, said
        return said.out

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def test_packages_of_every_environment(root: Path, said: Said) -> None:
    environment(root, "opt/venv", numpy="2.4.6")
    conda(root, "opt/miniforge3", numpy="1.26.4")
    assert said("packages", f"{root}/") == (
        "numpy  1.26.4  conda  /opt/miniforge3\nnumpy  2.4.6   pip    /opt/venv\n"
    )
    assert "/opt/venv: virtual environment, 1 package\n" in said.errors
    told = said.json("packages", f"{root}/")
    assert told["environments"] == [
        {"path": "/opt/miniforge3", "kind": "conda", "packages": 1},
        {"path": "/opt/venv", "kind": "venv", "packages": 1},
    ]
    assert [one["environment"] for one in told["packages"]] == ["/opt/miniforge3", "/opt/venv"]


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    write(tmp_path, "profiles/mylab/image.toml", 'prefix = "/opt/venv"\n')
    return tmp_path / "profiles"


def test_packages_and_facts_by_a_profile(root: Path, said: Said, profiles: Path) -> None:
    environment(root, "opt/venv", numpy="2.4.6")
    conda(root, "opt/miniforge3", zlib="1")
    chosen = ("--profile", "mylab", "--profiles", profiles)
    assert said("packages", f"{root}/", *chosen) == "numpy  2.4.6  pip  /opt/venv\n"
    facts = said.json("facts", f"{root}/", *chosen, "--probe", "elf", "--probe", "distributions")
    assert list(facts["elf"]) == list(facts["distributions"]) == ["/opt/venv"]


def test_no_python_at_all_is_said_with_what_was_looked_for(root: Path, said: Said) -> None:
    assert said("packages", f"{root}/") == ""
    assert "no conda-meta, pyvenv.cfg, lib*/python*/{site,dist}-packages or" in said.errors
    said("facts", f"{root}/", "--probe", "elf", "--probe", "conda-files", code=5)
    assert "elf: nothing was looked at: no environment is in the image" in said.errors
    assert "conda-files: nothing was looked at: no conda environment" in said.errors
    # What else was asked for was looked at.
    said("facts", f"{root}/", "--probe", "elf", "--probe", "os-release")


@pytest.mark.parametrize("prefix", ["opt/venv", "opt/miniforge3", "home/x/conda", "usr/local"])
def test_rpaths_of_environments_anywhere(root: Path, said: Said, prefix: str) -> None:
    package(root, f"{prefix}/lib/{PYTHON}/site-packages", "numpy", "1")
    script(root, f"{prefix}/bin/python3", "true")
    shutil.copy("/bin/true", root / prefix / "bin/tool")
    found = said.json("facts", f"{root}/", "--probe", "elf")["elf"]
    assert f"/{prefix}/bin/tool" in found[f"/{prefix}"]["files"]


def pair(tmp_path: Path, tiny_rootfs: Path) -> Iterator[Path]:
    for name in ("a", "b"):
        yield Path(shutil.copytree(tiny_rootfs, tmp_path / name / "mine", symlinks=True))


def test_diff_sees_another_version_in_any_environment(
    tmp_path: Path, tiny_rootfs: Path, said: Said
) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    for image, version in ((a, "2.4.6"), (b, "1.26.4")):
        environment(image, "opt/venv", numpy=version, six="1")
        environment(image, "opt/other", numpy="1")
    told = said.json("diff", f"{a}/", f"{b}/", "--no-files", code=1)
    assert [(d["subject"], d["a"], d["b"]) for d in told["differences"]] == [
        ("numpy in /opt/venv", "2.4.6 (pip)", "1.26.4 (pip)")
    ]
    # Its files are told by the package, and those of the other numpy are not.
    write(b, f"opt/other/lib/{PYTHON}/site-packages/numpy/__init__.py", "changed")
    told = said.json("diff", f"{a}/", f"{b}/", code=1)
    (files,) = (d for d in told["differences"] if d["aspect"] == "files")
    assert f"/opt/other/lib/{PYTHON}/site-packages/numpy/__init__.py" in files["a"]
    assert "/opt/venv" not in files["a"]


def test_an_environment_that_one_image_has_is_a_difference(
    tmp_path: Path, tiny_rootfs: Path, said: Said
) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    environment(a, "opt/venv", numpy="1", six="1")
    told = said.json("diff", f"{a}/", f"{b}/", "--no-files", code=1)
    assert [(d["subject"], d["a"], d["b"]) for d in told["differences"]] == [
        ("/opt/venv", "virtual environment with 2 packages", "missing")
    ]


def test_an_environment_elsewhere_is_compared_and_its_place_told(
    tmp_path: Path, tiny_rootfs: Path, said: Said
) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    environment(a, "opt/venv", numpy="1", six="1")
    environment(b, "srv/venv", numpy="2", six="1")
    told = said.json("diff", f"{a}/", f"{b}/", "--no-files", code=1)
    assert [d["subject"] for d in told["differences"]] == ["/opt/venv", "numpy"]


def test_diff_of_nothing_is_not_the_same(tmp_path: Path, said: Said) -> None:
    for name in ("a/x", "b/x"):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "usr").mkdir()
    out = said(
        "diff", f"{tmp_path}/a/x/", f"{tmp_path}/b/x/", "--no-files", "--engine", "sandbox", code=5
    )
    assert "the same" not in out
    assert "no difference" not in out
    assert "nothing was compared" in said.errors


def test_packages_that_python_does_not_find_are_told_of(
    tmp_path: Path, tiny_rootfs: Path, said: Said
) -> None:
    a, _ = pair(tmp_path, tiny_rootfs)
    for place, version in (("usr/local/lib", "2.0"), ("usr/lib", "1.0")):
        info = f"{place}/python3.11/site-packages/numpy-{version}.dist-info"
        write(a, f"{info}/METADATA", f"Name: numpy\nVersion: {version}\n")
    out = said("packages", f"{a}/")
    assert out.split()[:2] == ["numpy", "2.0"]
    assert "numpy-1.0.dist-info/METADATA is not listed: Python finds /usr/local/lib" in said.errors


def test_what_cannot_be_read_is_not_the_same(tmp_path: Path, tiny_rootfs: Path, said: Said) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    for image in (a, b):
        write(image, "var/lib/rpm/Packages", "Berkeley")  # which rpm alone reads: it is not there
        write(image, "var/lib/pacman/local/glibc-2.40-1/desc", "%NAME%\nglibc\n")
        environment(image, "opt/venv", numpy="1")
    out = said("diff", f"{a}/", f"{b}/", "--no-files")
    assert f"  not compared: {a}/: /var/lib/rpm/Packages was not read: its format needs rpm" in out
    assert "/var/lib/pacman/local is the database of pacman" in out
    assert "no difference in what was compared" in out
    shutil.rmtree(a / "opt/venv")
    shutil.rmtree(b / "opt/venv")
    assert "packages: nothing was compared" in said("diff", f"{a}/", f"{b}/", "--no-files")


def test_a_damaged_record_is_not_the_same(tmp_path: Path, tiny_rootfs: Path, said: Said) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    for image, text in ((a, "Name: numpy\n"), (b, "Version: 3\n")):
        environment(image, "opt/venv", six="1")
        site = f"opt/venv/lib/{PYTHON}/site-packages"
        write(image, f"{site}/numpy-1.dist-info/METADATA", text)
    out = said("diff", f"{a}/", f"{b}/", "--no-files")
    assert f"not compared: {a}/: /{site}/numpy-1.dist-info/METADATA has no Name and Version" in out


def test_kernels_of_an_environment_that_is_not_on_path(
    tmp_path: Path, tiny_rootfs: Path, said: Said
) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    for image, python in ((a, "python3"), (b, "/usr/bin/python3")):
        environment(image, "opt/venv")
        spec = {"argv": [python], "display_name": "P", "language": "python"}
        write(image, "opt/venv/share/jupyter/kernels/python3/kernel.json", json.dumps(spec))
    told = said.json("diff", f"{a}/", f"{b}/", "--no-files", code=1)
    assert [(d["aspect"], d["subject"]) for d in told["differences"]] == [("kernels", "python3")]


def test_compare_in_the_suite_needs_no_prefix(tmp_path: Path, tiny_rootfs: Path) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    environment(a, "opt/venv", numpy="2.4.6")
    environment(b, "opt/venv", numpy="1.26.4")
    write(tmp_path, "profiles/mine/image.toml", 'description = "a"\n')
    argv = [sys.executable, "-m", "mlcheck.cli", "check", f"{a}/", "--compare", f"{b}/"]
    argv += ["--profiles", f"{tmp_path}/profiles", "-k", "parity-packages"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "numpy" in done.stdout


@pytest.mark.parametrize("engine", each_engine("docker", "podman", "archive"))
def test_every_engine_finds_the_same(root: Path, said: Said, tmp_path: Path, engine: str) -> None:
    environment(root, "opt/venv", numpy="2.4.6")
    conda(root, "home/x/conda", zlib="1")
    package(root, "usr/lib/python3/dist-packages", "six", "1")
    (root / "opt/link").symlink_to("venv")
    write(root, ".singularity.d/env/10-docker2singularity.sh", 'export PATH="/usr/bin"\n')
    write(root, ".singularity.d/labels.json", '{"imageVersion": "v1", "imageRawSize": ""}')
    expected = said.json("packages", f"{root}/")["environments"]
    assert len(expected) == 3
    archive = tmp_path / "mine.tar"
    export_docker_archive(root.rename(tmp_path / "mine:v1"), archive)
    told = said.json("packages", f"docker-archive:{archive}", "--engine", engine)
    assert told["environments"] == expected


# Options


@pytest.mark.parametrize(
    "words",
    [
        ("packages", "./x", "--prof", "mylab"),
        ("packages", "./x", "--profil", "mylab"),
        ("diff", "./x", "./y", "--no-file"),
        ("facts", "./x", "--prob", "elf"),
        ("snapshot", "./x", "--extend", "ml-base"),
        ("exec", "./x", "--lim", "3", "--", "true"),
        ("cache", "clear", "--ref"),
        ("reference", "build", "ml-base", "--def", "rpath"),
        ("report", "html", "x.json", "--out", "y"),
    ],
)
def test_an_abbreviated_option_is_no_other_option(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLCHECK_CACHE_DIR", str(tmp_path))  # which one of them would clear
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code not in (0, None)
    said = capsys.readouterr().err
    assert "unrecognized arguments: --" in said
    assert "Did you mean --" in said


@pytest.mark.slow
def test_no_parser_takes_abbreviations() -> None:
    for module in ("mlcheck.cli", "benchmarks"):
        argv = [sys.executable, "-m", module, "--versio"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode not in (0, 1), done.stdout
    argv = [sys.executable, "-m", "mlcheck.cli", "check", "./x", "--prof", "mylab"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "unrecognized arguments: --prof" in done.stdout + done.stderr
    assert done.returncode == 4


@pytest.mark.parametrize("words", [("diff", "a.tar", "b.tar"), ("packages", "a.tar")])
def test_the_name_of_a_file_here_is_said_to_be_one(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.tar", "b.tar"):
        write(tmp_path, name, "")
    assert cli.main(words) in (2, 4)
    assert "An archive is written docker-archive:a.tar" in capsys.readouterr().err
