"""What an ordinary user may not read is read by who may, or said to be unreadable; and what an
engine mounts into its containers is no part of the image.

Run as root, the engines' stores can be read; as an ordinary user, podman has its own user namespace
in which files belong to subordinate users.
"""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.image.api import RootFS
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.errors import NOTHING_JUDGED, ProbeError
from mlcheck.model.image_ref import ImageRef
from selftests import archives, images
from selftests.archives import member
from selftests.checkout import CHECKOUT

PRIVATE = {
    "data": (0o700, 1234, None),  # a volume
    "data/inside": (0o600, 1234, b"of the volume"),
    "opt/private": (0o700, 1234, None),
    "opt/private/inside": (0o600, 1234, b"inside"),
    "opt/private/deep": (0o755, 1234, None),
    "opt/private/deep/er": (0o644, 1234, b"deeper"),
    "opt/unreadable": (0, 0, b"unreadable"),
    "opt/of-a-group": (0o640, 70, b"of a group"),
    "opt/setuid": (0o4755, 1234, b"setuid"),
    "opt/searched": (0o711, 1234, None),
    "opt/searched/file": (0o644, 1234, b"searched"),
    "opt/listed": (0o744, 1234, None),
    "opt/listed/file": (0o644, 1234, b"listed"),
    "var": (0o755, 0, None),
    "var/cache": (0o755, 0, None),
    "var/cache/partial": (0o700, 100, None),
}
"""Mode, owner and content by path; None: a directory."""

ADDED = {"/.dockerenv", "/etc/mtab", "/var/tmp", "/dev/pts", "/dev/shm", "/dev/console"}
"""What engines make in the container's own layer, besides what they mount on."""


@pytest.fixture(scope="module")
def archive(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a shell and with private files."""
    members = []
    for path in sorted(tiny_rootfs.rglob("*")):
        name = str(path.relative_to(tiny_rootfs))
        if path.is_symlink():
            members.append(member(name, to=str(path.readlink())))
        elif path.is_dir():
            members.append(member(name, None))
        else:
            mode = stat.S_IMODE(path.stat().st_mode)
            members.append(member(name, path.read_bytes(), mode=mode))
    for name, (mode, owner, content) in PRIVATE.items():
        members.append(member(name, content, mode=mode, uid=owner, gid=owner))
    place = tmp_path_factory.mktemp("private") / "image.tar"
    config = {"Volumes": {"/data": {}}, "Env": ["PATH=/usr/bin"]}
    archives.docker_archive(place, [archives.layer(*members)], config=config)
    return f"docker-archive:{place}"


@pytest.mark.parametrize("name", images.each_engine("docker", "podman"))
def test_all_files_and_nothing_that_is_mounted(name: str, archive: str, tiny_rootfs: Path) -> None:
    of_image = {f"/{path.relative_to(tiny_rootfs)}" for path in tiny_rootfs.rglob("*")}
    of_image |= {f"/{path}" for path in PRIVATE}
    engine = select.engine(name)
    with engine.prepare(ImageRef.parse(archive)) as prepared, engine.open(prepared) as image:
        table = image.run(["cat", "/proc/self/mountinfo"]).stdout.decode().splitlines()
        mounts = {line.split()[4] for line in table}
        assert {"/proc", "/sys", "/dev", "/etc/hosts", "/data", "/tmp"} <= mounts
        found = {file.path: file for file in image.rootfs.walk("/")}
        assert of_image - set(found) == set()
        # Where the engine makes something to mount on, it is empty.
        for path in set(found) - of_image - ADDED:
            assert path in mounts or any(mount.startswith(f"{path}/") for mount in mounts), path
            assert found[path].type == "directory" or found[path].size == 0, path
        for path, (mode, owner, content) in PRIVATE.items():
            file = found[f"/{path}"]
            assert (file.mode, file.uid, file.gid) == (mode, owner, owner), path
            if content is not None:
                assert image.rootfs.read(f"/{path}", 100) == content, path
        assert image.rootfs.lstat("/proc/self") is None
        assert image.rootfs.lstat("/run/.containerenv") in (None, found.get("/run/.containerenv"))
        looked = dict(image.rootfs.each("/", lambda path, head: True, lambda file, content: 1))
        assert {file.path for file in looked} == {p for p, f in found.items() if f.type == "file"}


TEST = """
def test_what_is_private(image):
    assert image.rootfs.read("/opt/private/inside", 100) == b"inside"
    assert image.rootfs.lstat("/proc/self") is None
    assert any(file.path == "/opt/private/inside" for file in image.rootfs.walk("/"))
"""


@pytest.mark.engine("podman")
@pytest.mark.parametrize("command", ["packages", "facts", "layers", "diff", "snapshot", "check"])
def test_commands(command: str, archive: str, tmp_path: Path) -> None:
    images.write(tmp_path, "profiles/mine/image.toml", "")
    images.write(tmp_path, "profiles/mine/test_mine.py", TEST)
    options = {
        "facts": [archive, "--probe", "elf"],
        "diff": [archive, archive],
        "snapshot": [archive, f"--output={tmp_path / 'snapshot.toml'}"],
        "check": [archive, f"--profiles={tmp_path / 'profiles'}", "--profile=mine"],
    }
    argv = [sys.executable, "-m", "mlcheck.cli", command, "--engine=podman"]
    done = subprocess.run(
        [*argv, *options.get(command, [archive])], cwd=CHECKOUT, capture_output=True, text=True
    )
    # In the whole image there is no environment whose ELF files these facts would be of.
    wanted = NOTHING_JUDGED if command == "facts" else 0
    assert done.returncode == wanted, done.stdout + done.stderr
    assert "Permission denied" not in done.stdout + done.stderr
    assert "cannot be looked into" not in done.stdout + done.stderr


QUESTIONS: dict[str, Callable[[RootFS], object]] = {
    "read": lambda rootfs: rootfs.read("/opt/private/file", 100),
    "read unreadable": lambda rootfs: rootfs.read("/opt/unreadable", 100),
    "open": lambda rootfs: rootfs.open("/opt/private/file"),
    "lstat": lambda rootfs: rootfs.lstat("/opt/private/file"),
    "lstat none": lambda rootfs: rootfs.lstat("/opt/private/none"),
    "resolve": lambda rootfs: rootfs.resolve("/opt/private/file"),
    "resolve link": lambda rootfs: rootfs.resolve("/opt/link"),
    "listdir": lambda rootfs: rootfs.listdir("/opt/private"),
    "walk": lambda rootfs: list(rootfs.walk("/")),
    "each": lambda rootfs: list(rootfs.each("/", lambda path, head: True, lambda f, c: None)),
    "each unreadable": lambda rootfs: list(
        rootfs.each("/opt/more", lambda path, head: True, lambda f, c: None)
    ),
    "all": lambda rootfs: rootfs.check_readable(),  # type: ignore[attr-defined]
}


def closed(root: Path) -> Path:
    """Files that their owner may not read, unless he is root."""
    images.write(root, "/opt/private/file", "private")
    images.write(root, "/opt/unreadable", "unreadable", 0)
    images.write(root, "/opt/more/unreadable", "unreadable", 0)
    (root / "opt/link").symlink_to("private/file")
    (root / "opt/private").chmod(0)
    return root


@pytest.mark.user_only
@pytest.mark.parametrize("question", QUESTIONS)
def test_what_cannot_be_read_is_never_absent(question: str, tmp_path: Path) -> None:
    rootfs = DirectoryRootFS(closed(tmp_path))
    try:
        with pytest.raises(ProbeError, match="cannot be read on this machine: Permission denied"):
            QUESTIONS[question](rootfs)
    finally:
        (tmp_path / "opt/private").chmod(0o700)


@pytest.mark.user_only
@pytest.mark.parametrize("engine", images.each_engine("sandbox", "apptainer"))
def test_a_directory_that_cannot_be_read_whole(engine: str, root: Path) -> None:
    command = [sys.executable, "-m", "mlcheck.cli", "diff", f"--engine={engine}"]
    command += [f"{closed(root)}/"] * 2
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    (root / "opt/private").chmod(0o700)
    assert done.returncode == 3, done.stdout
    assert "/opt/private: cannot be read on this machine: Permission denied" in done.stderr
    assert "no difference" not in done.stdout
