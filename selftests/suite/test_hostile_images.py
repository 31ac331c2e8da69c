"""Hostile images, judged from end to end: one clear message, bounded time and memory, no file of
the host read, and an exit code that is not 0."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from selftests.checkout import CHECKOUT

pytestmark = pytest.mark.slow

LIST = "list-of-pkgs-inside.txt"
KERNEL = "usr/local/share/jupyter/kernels/python3/kernel.json"
MEMORY = 3 * 1024**3
"""Bytes of address space that a run may use."""

PROFILE = """\
prefix = "/opt/conda"
shells = ["/bin/sh"]
[packages]
list = "/list-of-pkgs-inside.txt"
[python]
version = "3"
[rpath]
forbidden = ["/opt/conda"]
[files]
"/promised" = {}
[kernelspecs]
generation = "new"
[kernelspecs.generations.new.python3]
argv = ["sh"]
display_name = "Python"
"""
GOOD_KERNEL = json.dumps({"argv": ["sh"], "display_name": "Python", "language": "python"})


@pytest.fixture
def image(tmp_path: Path, tiny_rootfs: Path) -> Path:
    """An image in which only the package list's packages and Python are wrong."""
    root = tmp_path / "hostile:v1"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    (root / LIST).write_text("numpy 1.26.4\n")
    (root / "promised").write_text("here")
    (root / "opt/conda/bin").mkdir(parents=True)
    (root / KERNEL).parent.mkdir(parents=True)
    (root / KERNEL).write_text(GOOD_KERNEL)
    shutil.copy(root / "usr/bin/true", root / "opt/conda/bin/true")
    folder = tmp_path / "profiles" / "hostile"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(PROFILE)
    return root


IMPATIENT = """
import sys
import pytest
from mlcheck.inspect.system import probe as system
system.LIMIT_S = 5.0
sys.exit(pytest.main(sys.argv[1:]))
"""


def suite(
    image: Path, selection: str, pytest: tuple[str, str] = ("-m", "pytest")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, *pytest, "-p", "no:cacheprovider", f"--image={image}"),
            *(f"--profiles={image.parent}/profiles", "-k", selection),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def sparse(path: Path, size: int) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def cut(path: Path, size: int) -> None:
    replace(path, path.read_bytes()[:size])


def file_for_prefix(image: Path) -> None:
    shutil.rmtree(image / "opt/conda")
    replace(image / "opt/conda", b"")


def loop(image: Path) -> None:
    link(image / "promised", "/loop")
    link(image / "loop", "/promised")


Plant = Callable[[Path], None]
PLANTED: dict[str, tuple[Plant, str, str]] = {
    "a list of one gigabyte": (
        lambda i: sparse(i / LIST, 10**9),
        "package-list-readable",
        "larger",
    ),
    "an empty list": (lambda i: replace(i / LIST, b""), "package-list-readable", "is empty"),
    "a list that is a FIFO": (lambda i: fifo(i / LIST), "package-list-readable", "FIFO"),
    "a list that is a link to a file of the host": (
        lambda i: link(i / LIST, "/etc/shadow"),
        "package-list-readable",
        "does not exist in the image",
    ),
    "a list that climbs out of the image": (
        lambda i: link(i / LIST, "../" * 40 + "etc/shadow"),
        "package-list-readable",
        "does not exist in the image",
    ),
    "a list that is a directory": (
        lambda i: directory(i / LIST),
        "package-list-readable",
        "directory",
    ),
    "a list in a link loop": (lambda i: link(i / LIST, LIST), "package-list-readable", "loop"),
    "a list of bytes": (
        lambda i: replace(i / LIST, b"numpy 1\n\xff\xfe\x00 2\n"),
        "package-list-readable",
        f"{LIST}:2",
    ),
    "a kernel.json ten thousand deep": (
        lambda i: replace(i / KERNEL, b"[" * 10_000 + b"]" * 10_000),
        "kernelspecs-valid",
        "kernel.json",
    ),
    "a kernel.json of five hundred megabytes": (
        lambda i: sparse(i / KERNEL, 500 * 10**6),
        "kernelspecs-valid",
        "larger",
    ),
    "an ELF file without its end": (
        lambda i: cut(i / "opt/conda/bin/true", 100),
        "elf-readable",
        "/opt/conda/bin/true",
    ),
    "an ELF file of four bytes": (
        lambda i: cut(i / "opt/conda/bin/true", 4),
        "elf-readable",
        "/opt/conda/bin/true",
    ),
    "a prefix that is a file": (
        file_for_prefix,
        "prefix-there or elf-readable",
        "is no directory but a file",
    ),
    "a promised file in a link loop": (loop, "test_files[", "loop"),
    "an absolute link to a file of the host alone": (
        lambda i: link(i / "promised", str(CHECKOUT / "pyproject.toml")),
        "test_files[",
        "does not exist in the image",
    ),
    "no shell": (lambda i: (i / "usr/bin/sh").unlink(), "test_shells", "/bin/sh"),
    "no Python": (lambda i: None, "python_version", "exit code 127"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_hostile_image_gets_one_clear_message(image: Path, name: str) -> None:
    plant, selection, words = PLANTED[name]
    plant(image)
    done = suite(image, selection)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"DOES NOT CONFORM  \(1 of \d+; 1 failed[,)]", done.stdout)
    assert words in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    shadow = Path("/etc/shadow")
    if os.access(shadow, os.R_OK):
        assert shadow.read_text().splitlines()[0] not in done.stdout
    assert (image / LIST).name == LIST, "the image is still there"


@pytest.mark.root_only
def test_a_list_that_is_a_device(image: Path) -> None:
    (image / LIST).unlink()
    os.mknod(image / LIST, 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero: it never ends
    done = suite(image, "package-list-readable")
    assert done.returncode == 1
    assert "device" in done.stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nsleep 1000000\n", "did not end within 5 s"),
        (
            "#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 1000; done\n",
            "did not end within 5 s",
        ),
        ("#!/bin/sh\nyes\n", "printed"),
    ],
    ids=["never ends", "ignores signals", "prints without end"],
)
def test_a_command_without_an_end(image: Path, script: str, words: str) -> None:
    tool = image / "usr/bin/tool"
    tool.write_text(script)
    tool.chmod(0o755)
    profile = image.parent / "profiles/hostile/image.toml"
    profile.write_text(PROFILE + '[commands]\ntool = ["tool"]\n')
    done = suite(image, "test_commands", ("-c", IMPATIENT))
    assert done.returncode == 1, done.stdout
    assert f"commands: tool: {words}" in done.stdout


def test_links_of_a_good_image_resolve_inside_it(image: Path) -> None:
    (image / "data").mkdir()
    (image / "data/real").write_text("here")
    (image / "chain").symlink_to("/data/../../../data/real")
    link(image / "promised", "/chain")
    done = suite(image, "test_files[ or elf-readable or kernelspecs-valid")
    assert done.returncode == 0, done.stdout
