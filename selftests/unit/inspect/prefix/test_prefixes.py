"""The environments of an image are found wherever they are."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.packages import distributions, installed
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.prefix.chosen import prefix_of
from mlcheck.inspect.prefix.facts import Prefixes
from mlcheck.model.errors import ProbeError
from selftests.environments import PYTHON, conda, environment, package
from selftests.images import opened, script, write


def find(root: Path) -> Prefixes:
    with opened(root) as image:
        return prefixes.find(image.rootfs)


def kinds(root: Path) -> dict[str, str]:
    return {one.path: one.kind for one in find(root).found}


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
    argv = [f"{root}/opt/mine/bin/python3", "-c", asked]
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


def test_the_system_s_python_has_packages_in_two_places(root: Path) -> None:
    """As Debian's and Fedora's have; those of another Python in /usr/local are not its own."""
    package(root, f"usr/lib/{PYTHON}/site-packages", "numpy", "1")
    package(root, f"usr/local/lib/{PYTHON}/dist-packages", "torch", "1")
    package(root, "usr/local/lib/python3.1/site-packages", "old", "1")
    found = prefixes.at(DirectoryRootFS(root), "/usr").found
    assert [one.path for one in found] == ["/usr/local", "/usr"]
    assert [path.removeprefix("/usr/local/lib/") for path in found[0].packages] == [
        f"{PYTHON}/dist-packages"
    ]


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


def test_the_environment_of_a_snapshot(root: Path) -> None:
    environment(root, "opt/venv", numpy="1")
    conda(root, "opt/miniforge3", zlib="1")
    script(root, "opt/python3.13/bin/python3.13", "true")

    def chosen(tools: dict[str, str], **env: str) -> str | None:
        with opened(root) as image:
            started = dataclasses.replace(
                image.environment, env=env, entrypoint=("/opt/miniforge3/bin/serve",)
            )
            environments = prefixes.find(image.rootfs)
            return prefix_of(image.rootfs, started, tools, environments)

    assert chosen({"python3": "/opt/venv/bin/python3"}) == "/opt/venv"
    assert chosen({}, VIRTUAL_ENV="/opt/venv") == "/opt/venv"
    assert chosen({}) == "/opt/miniforge3"  # the program that the image starts is there
