"""Directories of this machine in an image: what the user names, read-only, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck.engines import binds, select
from mlcheck.engines.base import Bind, OpenImage, Start
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from selftests.images import each_engine

NAME = f"mlcheck-selftest-{os.getpid()}/binds"


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is bound: with a link that leads to a place of this machine."""
    directory = tmp_path_factory.mktemp("outside") / "data"
    (directory / "below").mkdir(parents=True)
    (directory / "below/file").write_text("from outside")
    (directory / "passwd").symlink_to("/etc/passwd")
    (directory.parent / "link").symlink_to("data")
    return directory


@pytest.fixture(scope="module", params=each_engine("sandbox", "docker", "podman", "apptainer"))
def image(
    request: pytest.FixtureRequest,
    tiny_rootfs: Path,
    outside: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OpenImage]:
    """An image with mount points at its root and below, one with a file in it; one target is a
    link, one a file, one is not there."""
    root = tmp_path_factory.mktemp("binds") / "image"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    for name in ("data", "opt/mounted/deep", "full"):
        (root / name).mkdir(parents=True)
    (root / "full/own").write_text("the image's own")
    (root / "linked").symlink_to("/etc")
    (root / "file").write_text("a file")
    engine: str = request.param
    ref = ImageRef.parse(str(root))
    if engine in ("docker", "podman"):
        tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run([engine, "import", "-", NAME], stdin=tar.stdout, check=True)
        assert tar.wait() == 0
        request.addfinalizer(
            lambda: subprocess.run([engine, "rmi", "-f", NAME], check=True, capture_output=True)
        )
        ref = ImageRef.parse(NAME)
    link = str(outside.parent / "link")
    targets = ("/data", "/opt/mounted/deep", "/full", "/linked", "/file", "/absent")
    start = Start(binds=tuple(Bind(link, target) for target in targets))
    with select.open_image(ref, engine, start=start) as opened:
        yield opened


def said(image: OpenImage, text: str) -> str:
    return image.run(["sh", "-c", text]).stdout.decode()


@pytest.mark.slow
def test_commands_see_it_on_every_directory_of_the_image(image: OpenImage) -> None:
    for target in ("/data", "/opt/mounted/deep", "/full"):
        assert said(image, f"cat {target}/below/file") == "from outside"
    assert said(image, "ls /full") == "below\npasswd\n"


def test_nothing_can_be_written_there(image: OpenImage, outside: Path) -> None:
    for text in ("echo x > /data/new", "echo x > /data/below/file", "mkdir /data/new"):
        assert image.run(["sh", "-c", text]).exit_code != 0
    assert sorted(path.name for path in outside.rglob("*")) == ["below", "file", "passwd"]
    assert (outside / "below/file").read_text() == "from outside"


def test_a_target_that_is_no_directory_of_the_image_is_left_as_it_is(image: OpenImage) -> None:
    assert said(image, "readlink /linked") == "/etc\n"
    assert said(image, "ls /linked/below 2>/dev/null") == ""
    assert said(image, "cat /file") == "a file"
    assert image.run(["sh", "-c", "ls -d /absent"]).exit_code != 0


def test_a_link_in_it_leads_inside_the_image(image: OpenImage) -> None:
    own = Path("/etc/passwd").read_text()
    assert said(image, "cat /data/passwd 2>/dev/null") != own


def test_probes_see_only_the_images_own_files(image: OpenImage) -> None:
    assert image.rootfs.listdir("/full") == ["own"]
    assert image.rootfs.listdir("/data") == []
    assert image.rootfs.lstat("/absent") is None
    assert image.rootfs.read("/full/own", 100) == b"the image's own"


def test_the_command_for_people_has_the_bind(image: OpenImage, outside: Path) -> None:
    assert f"{outside.parent}/link:/data" in image.show_run(["cat", "/data/below/file"])


def test_a_started_image_sees_the_bind(image: OpenImage) -> None:
    done = image.start(["cat", "/data/below/file"])
    if image.engine != "apptainer":  # which starts a runscript, and there is none
        assert done.stdout == b"from outside"


def test_a_bind_is_parsed(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert binds.parse(f"{outside}:/data") == Bind(str(outside), "/data")
    monkeypatch.chdir(outside.parent)
    assert binds.parse("link:/data:ro") == Bind(str(outside.parent / "link"), "/data")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data", "no directory and target"),
        ("data:relative", "no directory and target"),
        ("data:/a/../b", "no directory and target"),
        ("data:/a/", "no directory and target"),
        ("data:/", "nothing can be bound on /"),
        ("data:/proc/sys", "nothing can be bound on /proc/sys"),
        ("data:/tmp", "nothing can be bound on /tmp"),
        ("data:/data:rw", "cannot be written"),
        ("nowhere:/data", "there is no directory"),
        ("data/below/file:/data", "there is no directory"),
        (":/data", "no directory and target"),
        ("odd:name:/data", "colon or a comma"),
        ("data:/a,b", "colon or a comma"),
    ],
)
def test_a_wrong_bind_is_a_mistake(
    outside: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.chdir(outside.parent)
    (outside.parent / "odd:name").mkdir(exist_ok=True)
    with pytest.raises(UsageError, match=reason):
        binds.parse(text)


def test_targets_must_not_contain_each_other(outside: Path) -> None:
    for targets in (("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")):
        with pytest.raises(UsageError, match="on or below"):
            binds.parse_all(f"{outside}:{target}" for target in targets)
    assert len(binds.parse_all([f"{outside}:/a", f"{outside}:/ab"])) == 2
