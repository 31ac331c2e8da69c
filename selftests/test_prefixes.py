"""The environments of an image are found wherever they are, and every command looks into them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlcheck import cli
from mlcheck.errors import ProbeError
from mlcheck.facts import Prefixes
from mlcheck.probes import distributions, installed, prefixes
from mlcheck.reference import export_docker_archive
from mlcheck.rootfs import DirectoryRootFS
from mlcheck.snapshot import found as snapshot
from selftests.images import each_engine, opened, script, write

PYTHON = "python3.12"


def find(root: Path) -> Prefixes:
    with opened(root) as image:
        return prefixes.find(image.rootfs)


def kinds(root: Path) -> dict[str, str]:
    return {one.path: one.kind for one in find(root).found}


def package(root: Path, site: str, name: str, version: str) -> None:
    """A package of Python's as pip installs it."""
    write(root, f"{site}/{name}/__init__.py", f"__version__ = '{version}'\n")
    info = f"{site}/{name}-{version}.dist-info"
    write(root, f"{info}/METADATA", f"Name: {name}\nVersion: {version}\n\n")
    own = [f"{name}-{version}.dist-info/{file}" for file in ("METADATA", "RECORD")]
    write(root, f"{info}/RECORD", "".join(f"{path},,\n" for path in (f"{name}/__init__.py", *own)))


def environment(root: Path, prefix: str, **versions: str) -> None:
    """A virtual environment with packages."""
    write(root, f"{prefix}/pyvenv.cfg", "home = /usr/bin\n")
    (root / prefix.lstrip("/") / "bin").mkdir()
    (root / prefix.lstrip("/") / "lib" / PYTHON / "site-packages").mkdir(parents=True)
    for name, version in versions.items():
        package(root, f"{prefix}/lib/{PYTHON}/site-packages", name, version)


def conda(root: Path, prefix: str, **versions: str) -> None:
    """An environment of conda's."""
    write(root, f"{prefix}/conda-meta/history", "")
    for name, version in versions.items():
        record = {"name": name, "version": version, "files": []}
        write(root, f"{prefix}/conda-meta/{name}-{version}-0.json", json.dumps(record))


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


# Finding


def test_every_kind_in_one_image(root: Path) -> None:
    conda(root, "opt/miniforge3", numpy="1")
    conda(root, "opt/miniforge3/envs/r", dplyr="1")
    conda(root, "home/x/conda", zlib="1")
    environment(root, "opt/venv", numpy="1")
    environment(root, "srv/app/.venv")
    for version in ("root/.pyenv/versions/3.12.4", "opt/python3.13"):
        script(root, f"{version}/bin/python3", "true")
        (root / version / "lib" / PYTHON / "site-packages").mkdir(parents=True)
    package(root, "usr/lib/python3/dist-packages", "six", "1")
    package(root, f"usr/local/lib/{PYTHON}/dist-packages", "pip", "1")
    package(root, f"root/.local/lib/{PYTHON}/site-packages", "mine", "1")
    package(root, "var/task", "bundled", "1")
    assert kinds(root) == {
        "/home/x/conda": "conda",
        "/opt/miniforge3": "conda",
        "/opt/miniforge3/envs/r": "conda",
        "/opt/python3.13": "python",
        "/opt/venv": "venv",
        "/root/.local": "packages",
        "/root/.pyenv/versions/3.12.4": "python",
        "/srv/app/.venv": "venv",
        "/usr": "system",
        "/usr/local": "system",
        "/var/task": "packages",
    }
    assert not find(root).problems


def test_what_only_looks_like_an_environment(root: Path) -> None:
    site = f"opt/conda/pkgs/numpy-1-0/lib/{PYTHON}/site-packages"
    conda(root, "opt/conda", numpy="1")
    package(root, site, "numpy", "1")
    write(root, "opt/conda/pkgs/numpy-1-0/info/index.json", "{}")
    # uv unpacks wheels in its cache; packages bring others along; Debian makes empty directories.
    write(root, "root/.cache/uv/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n")
    package(root, "root/.cache/uv/archive-v0/abc", "numpy", "1")
    environment(root, "opt/venv", setuptools="1")
    package(root, f"opt/venv/lib/{PYTHON}/site-packages/setuptools/_vendor", "six", "1")
    (root / f"usr/local/lib/{PYTHON}/dist-packages").mkdir(parents=True)
    write(root, "srv/pyvenv.cfg", "")
    (root / "srv/conda-meta").mkdir()
    assert kinds(root) == {"/opt/conda": "conda", "/opt/venv": "venv"}


def test_a_virtual_environment_of_uv_is_no_cache(root: Path) -> None:
    environment(root, "opt/venv", numpy="1")
    write(root, "opt/venv/CACHEDIR.TAG", "")
    assert kinds(root) == {"/opt/venv": "venv"}


def test_links_lead_to_one_environment_inside_the_image(root: Path) -> None:
    environment(root, "opt/venv-1.2", numpy="1")
    (root / "opt/venv").symlink_to("venv-1.2")
    (root / "opt/venv-1.2/lib64").symlink_to("lib")
    (root / "opt/host").symlink_to(f"../../../../../..{sys.prefix}")
    environment(root, "opt/far")
    site = root / f"opt/far/lib/{PYTHON}/site-packages"
    site.rmdir()
    site.symlink_to("/data/site")  # absolute: of the image, never of this machine
    package(root, "data/site", "six", "1")
    (found, other) = find(root).found
    assert (found.path, found.packages) == ("/opt/far", (f"/opt/far/lib/{PYTHON}/site-packages",))
    assert (other.path, len(other.packages)) == ("/opt/venv-1.2", 1)


def test_enterprise_linux_has_both_lib_and_lib64(root: Path) -> None:
    package(root, "usr/lib/python3.9/site-packages", "six", "1")
    package(root, "usr/lib64/python3.9/site-packages", "numpy", "1")
    with opened(root) as image:
        there = installed.from_files(image.rootfs, prefixes.at(image.rootfs, None))
        required = distributions.probe(image.rootfs, "/usr")
    assert {p.name: p.prefix for p in there.packages} == {"six": "/usr", "numpy": "/usr"}
    assert {one.name for one in required.distributions} == {"six", "numpy"}


def test_real_ones_are_found_where_their_python_says(root: Path) -> None:
    """Virtual environments that venv makes, and each Python of this machine, as it tells itself."""
    (root / "opt").mkdir(exist_ok=True)
    venv.create(root / "opt/mine", with_pip=False, symlinks=True)
    (one,) = (one for one in find(root).found if one.path.startswith("/opt"))
    asked = "import sysconfig as s; print(s.get_path('purelib'))"
    argv = [root / "opt/mine/bin/python3", "-c", asked]
    site = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    assert one.kind == "venv"
    assert [f"{root}{path}" for path in one.packages] == [site]


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="the system has no Python")
def test_debians_python_is_found_where_it_looks_itself() -> None:
    argv = [
        "/usr/bin/python3",
        "-S",
        "-c",
        "import site; print(*site.getsitepackages(), sep='\\n')",
    ]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    looked = {path for path in said if Path(path).is_dir() and path.startswith("/usr/lib")}
    found = prefixes.at(DirectoryRootFS(Path("/")), None).found
    (system,) = (one for one in found if one.path == "/usr")
    assert system.kind == "system"
    assert {os.path.realpath(path) for path in looked} <= set(
        map(os.path.realpath, system.packages)
    )


def test_a_deep_and_wide_image_ends(root: Path) -> None:
    at = root / "opt/deep"
    at.mkdir()
    fd = os.open(at, os.O_RDONLY)
    for _ in range(60):  # 6000 bytes: deeper than any path can name
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    (root / "opt/loop").symlink_to(".")
    os.mkfifo(root / "opt/pyvenv.cfg")
    write(root, "opt/conda-meta", "a file")
    environment(root, "srv/venv", numpy="1")
    try:
        found = find(root)
    finally:
        shutil.rmtree(at)
    assert [one.path for one in found.found] == ["/srv/venv"]
    assert [problem.path[:9] for problem in found.problems] == ["/opt/deep"]


def test_more_environments_than_anybody_makes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "LIMIT", 3)
    for number in range(5):
        environment(root, f"opt/{number}")
    found = find(root)
    assert len(found.found) == 3
    assert "has 5 environments" in found.problems[0].what


def test_a_private_directory_is_told_and_the_rest_found(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(root, "opt/venv", numpy="1")
    (root / "srv/private").mkdir(parents=True)
    with opened(root) as image:
        listdir = image.rootfs.listdir

        def forbidden(path: str) -> list[str]:  # for root nothing is private
            if path == "/srv/private":
                raise ProbeError("private")
            return listdir(path)

        monkeypatch.setattr(image.rootfs, "listdir", forbidden)
        found = prefixes.find(image.rootfs)
    assert [one.path for one in found.found] == ["/opt/venv"]
    assert [problem.path for problem in found.problems] == ["/srv/private"]


# Commands


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


def test_what_cannot_be_read_is_not_the_same(tmp_path: Path, tiny_rootfs: Path, said: Said) -> None:
    a, b = pair(tmp_path, tiny_rootfs)
    for image in (a, b):
        write(image, "var/lib/rpm/Packages", "Berkeley")  # which rpm alone reads: it is not there
        write(image, "lib/apk/db/installed", "P:musl\n")
        environment(image, "opt/venv", numpy="1")
    out = said("diff", f"{a}/", f"{b}/", "--no-files")
    assert f"  not compared: {a}/: /var/lib/rpm/Packages was not read: its format needs rpm" in out
    assert "/lib/apk/db/installed is the database of apk" in out
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
    argv += ["--profiles", f"{tmp_path}/profiles", "-k", "parity and test_packages"]
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


def test_the_environment_of_a_snapshot(root: Path, said: Said) -> None:
    environment(root, "opt/venv", numpy="1")
    conda(root, "opt/miniforge3", zlib="1")
    script(root, "opt/python3.13/bin/python3.13", "true")

    def chosen(tools: dict[str, str], **env: str) -> str | None:
        with opened(root) as image:
            started = dataclasses.replace(
                image.environment, env=env, entrypoint=("/opt/miniforge3/bin/serve",)
            )
            environments = prefixes.find(image.rootfs)
            return snapshot.prefix_of(image.rootfs, started, tools, environments)

    assert chosen({"python3": "/opt/venv/bin/python3"}) == "/opt/venv"
    assert chosen({}, VIRTUAL_ENV="/opt/venv") == "/opt/venv"
    assert chosen({}) == "/opt/miniforge3"  # the program that the image starts is there
