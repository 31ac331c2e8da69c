"""The files of a directory tree: listed whole, by name alone, or by another process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mlcheck.cache import OFF, asking
from mlcheck.engines import select
from mlcheck.image import directory_listing, scan
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.errors import ProbeError
from mlcheck.model.files import File
from mlcheck.model.image_ref import ImageRef


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    for name in ("a/b", "a/c", "d"):
        (root / name).mkdir(parents=True)
        (root / name / "one").write_text(f"{name} one")
        (root / name / "two").write_text(f"{name} two")
    (root / "e").hardlink_to(root / "a/b/one")
    (root / "a/linked").hardlink_to(root / "d/two")
    (root / "a/symlink").symlink_to("b")
    os.mkfifo(root / "a/fifo")
    return root


FOUND = {
    "/e": "a/b one",
    "/a/linked": "d two",
    "/a/b/two": "a/b two",
    "/a/c/one": "a/c one",
    "/a/c/two": "a/c two",
    "/d/one": "d one",
}
"""What `each` finds there, in its order, written down by hand: hard links at the first place."""


def contents(rootfs: DirectoryRootFS, top: str = "/") -> dict[str, str]:
    def content(file: File, stream: BinaryIO) -> str:
        assert file == rootfs.lstat(file.path)
        return stream.read().decode()

    return {file.path: str(said) for file, said in rootfs.each(top, lambda *_: True, content)}


def by_name(_: DirectoryRootFS) -> None:
    pass


def listed(rootfs: DirectoryRootFS) -> None:
    assert list(rootfs.walk("/"))


def partly_listed(rootfs: DirectoryRootFS) -> None:
    assert list(rootfs.walk("/a/c"))


@pytest.mark.parametrize("prepare", [by_name, listed, partly_listed])
def test_each_regular_file_comes_once_and_in_order(
    tree: Path, prepare: Callable[[DirectoryRootFS], None]
) -> None:
    rootfs = DirectoryRootFS(tree)
    prepare(rootfs)
    found = contents(rootfs)
    assert list(found.items()) == list(FOUND.items())
    assert list(contents(rootfs, "/a/symlink/")) == ["/a/symlink/one", "/a/symlink/two"]


def test_by_name_no_file_is_looked_at(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rootfs = DirectoryRootFS(tree)
    (tree / "e").unlink()
    (tree / "a/linked").unlink()
    looked: list[str] = []
    stat_ = os.stat

    def noted(path: Any, *args: Any, **more: Any) -> os.stat_result:
        looked.append(path)
        return stat_(path, *args, **more)

    monkeypatch.setattr(os, "stat", noted)
    assert list(rootfs.each("/", lambda *_: False, lambda *_: None)) == []
    assert looked in ([], ["."])  # the root, to begin with


class _Entry:
    """An entry of a directory whose number of an inode is not that of the file."""

    def __init__(self, real: os.DirEntry[str], inode: int) -> None:
        self.name = real.name
        self.is_file = real.is_file
        self.is_dir = real.is_dir
        self.stat = real.stat
        self._inode = inode

    def inode(self) -> int:
        return self._inode


@pytest.mark.parametrize("told", [0, 0xFFFFFFFF, 7], ids=["none", "unknown", "all-alike"])
def test_numbers_of_inodes_that_mislead(
    tree: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    """As of FUSE, which knows none, and of overlayfs over several file systems."""
    scandir = os.scandir

    class Scan:
        def __init__(self, fd: int) -> None:
            self._entries = scandir(fd)

        def __enter__(self) -> Iterator[_Entry]:
            return iter([_Entry(entry, told) for entry in self._entries])

        def __exit__(self, *_: object) -> None:
            self._entries.close()

    monkeypatch.setattr(os, "scandir", Scan)
    found = contents(DirectoryRootFS(tree))
    # Of files whose numbers are all alike only links of the first are known as such.
    assert found.items() >= FOUND.items()
    if told != 7:
        assert list(found) == list(FOUND)
    assert "/a/b/one" not in found


def test_a_symlink_in_the_place_of_a_directory_leads_nowhere(tree: Path, tmp_path: Path) -> None:
    """What the image's processes change while its files are read cannot lead out of it."""
    outside = tmp_path / "outside"
    shutil.copytree(tree / "a/c", outside / "c")
    (outside / "c/one").write_text("secret")

    def swap() -> None:
        (tree / "a").rename(tree / "was-a")
        (tree / "a").symlink_to(outside)

    rootfs = DirectoryRootFS(tree)
    assert list(rootfs.walk("/"))
    swap()
    # Directories that are open by now stay what they are: the image's own.
    assert contents(rootfs)["/a/c/one"] == "a/c one"
    rootfs._directories._kept.clear()
    with pytest.raises(ProbeError, match="/a: cannot be read on this machine: Not a directory"):
        contents(rootfs)
    # Seen by name as a directory, and then swapped.
    rootfs = DirectoryRootFS(tree)
    (tree / "a").unlink()
    (tree / "was-a").rename(tree / "a")
    names = rootfs._entries.regular_files("/")
    assert [next(names)[0], next(names)[0]] == ["/", "/a"]
    swap()
    rootfs._directories._kept.clear()
    with pytest.raises(ProbeError, match="/a: cannot be read on this machine: Not a directory"):
        next(names)


def test_a_root_that_is_moved_is_read_all_the_same(tree: Path) -> None:
    rootfs = DirectoryRootFS(tree)
    tree.rename(tree.with_name("moved"))
    assert contents(rootfs) == FOUND


def test_with_the_cache_off_what_was_seen_ahead_is_not_looked_at_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OFF, "1")
    (tree / "etc").mkdir()  # an image has one
    expected = list(DirectoryRootFS(tree).walk("/"))
    scan.look_ahead(tree)
    ref = ImageRef.parse(f"{tree}/")
    with select.open_image(ref, "sandbox") as image:
        asking(image)
        with monkeypatch.context() as patch:
            patch.setattr(
                directory_listing.Entries, "_statuses", lambda *_: pytest.fail("looked again")
            )
            assert list(image.rootfs.walk("/")) == expected
