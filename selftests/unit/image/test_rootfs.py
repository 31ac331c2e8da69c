"""Reading an image's files: inside the image, bounded, and never anything but regular files."""

from __future__ import annotations

import gc
import os
import resource
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.image.paths import LINK_LIMIT
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.errors import ProbeError

MIB = 1024 * 1024


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc/os-release").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    yield image
    # shutil.rmtree recurses, and some of these trees are deep.
    subprocess.run(["rm", "-rf", image], check=True)


@pytest.fixture
def rootfs(image: Path) -> RootFS:
    return DirectoryRootFS(image)


def unreadable(rootfs: RootFS, path: str, limit: int = MIB) -> str:
    with pytest.raises(Unreadable) as caught:
        rootfs.read(path, limit)
    assert caught.value.path == path
    return caught.value.what


def test_read_and_lstat(image: Path, rootfs: RootFS) -> None:
    assert rootfs.read("/etc/os-release", 6) == b"inside"
    (image / "etc/os-release").chmod(0o4751)
    file = rootfs.lstat("/etc/os-release")
    status = (image / "etc/os-release").stat()
    assert file is not None
    assert (file.path, file.type, file.mode, file.size) == ("/etc/os-release", "file", 0o4751, 6)
    assert (file.uid, file.inode) == (os.getuid(), (status.st_dev, status.st_ino))
    assert rootfs.lstat("/etc/none") is None
    assert rootfs.lstat("/etc/os-release/below") is None
    root = rootfs.lstat("/")
    assert root is not None
    assert (root.path, root.type) == ("/", "directory")


@pytest.mark.parametrize(
    "target",
    [
        "/etc/os-release",
        "etc/os-release",
        "../../../../etc/os-release",
        "/../../etc/os-release",
        "/etc/../etc/./os-release",
    ],
)
def test_links_resolve_inside_the_image(image: Path, rootfs: RootFS, target: str) -> None:
    (image / "link").symlink_to(target)
    assert rootfs.read("/link", MIB) == b"inside"
    resolved = rootfs.resolve("/link")
    assert resolved.final_path == "/etc/os-release"
    assert resolved.problem is None
    assert resolved.file is not None
    assert (resolved.file.type, resolved.file.target) == ("symlink", target)
    assert resolved.final is not None
    assert (resolved.final.type, resolved.final.path) == ("file", "/etc/os-release")


@pytest.mark.parametrize("up", ["..", "../..", "/..", "../../../../../../../.."])
def test_nothing_leads_out_of_the_image(image: Path, rootfs: RootFS, up: str) -> None:
    (image / "link").symlink_to(f"{up}/secret")
    (image / "updir").symlink_to(up)
    for path in ("/link", "/updir/secret", "/../secret", "../secret", "/etc/../../secret"):
        assert unreadable(rootfs, path).endswith("does not exist in the image")
    assert rootfs.listdir("/updir") == ["etc", "link", "updir"]


def test_link_to_a_host_file(image: Path, rootfs: RootFS) -> None:
    (image / "list").symlink_to("/etc/shadow")
    what = "is a symlink to /etc/shadow, which does not exist in the image"
    assert unreadable(rootfs, "/list") == what
    resolved = rootfs.resolve("/list")
    assert (resolved.final, resolved.final_path, resolved.problem) == (None, "/etc/shadow", what)


def test_a_magic_link_of_proc_is_an_ordinary_link() -> None:
    proc = DirectoryRootFS(Path("/proc"))
    # /proc/self/root leads to the host's root when the kernel follows it.
    assert "etc" not in proc.listdir("/self/root/")
    assert "self" in proc.listdir("/self/root/")


def test_links_in_the_middle_and_dot_dot_behind_a_link(image: Path, rootfs: RootFS) -> None:
    (image / "usr/lib/deep").mkdir(parents=True)
    (image / "usr/file").write_text("usr")
    (image / "short").symlink_to("/usr/lib/deep")
    # As the kernel does it: `..` of where the link leads, not of where it lies.
    assert rootfs.read("/short/../../file", MIB) == b"usr"
    assert rootfs.resolve("/short/none").final_path == "/usr/lib/deep/none"
    expected = "leads to /usr/lib/deep/none, which does not exist in the image"
    assert unreadable(rootfs, "/short/none") == expected
    assert unreadable(rootfs, "/no/such/file") == "does not exist in the image"
    expected = "lies below /usr/file, which is a regular file, not a directory"
    assert unreadable(rootfs, "/usr/file/x") == expected


def test_link_loops(image: Path, rootfs: RootFS) -> None:
    (image / "self").symlink_to("self")
    (image / "a").symlink_to("/b")
    (image / "b").symlink_to("a/x")
    for path in ("/self", "/a", "/b/y"):
        assert unreadable(rootfs, path) == "is in a link loop"
        assert rootfs.resolve(path).problem == "is in a link loop"
        assert rootfs.listdir(path) == []
        assert list(rootfs.walk(path)) == []


def test_as_many_links_as_the_kernel_follows(image: Path, rootfs: RootFS) -> None:
    (image / "l0").symlink_to("etc/os-release")
    for n in range(1, LINK_LIMIT + 1):
        (image / f"l{n}").symlink_to(f"l{n - 1}")
    assert rootfs.read(f"/l{LINK_LIMIT - 1}", MIB) == b"inside"
    assert (image / f"l{LINK_LIMIT - 1}").read_text() == "inside"
    assert unreadable(rootfs, f"/l{LINK_LIMIT}") == "is in a link loop"
    with pytest.raises(OSError, match="symbolic links"):
        (image / f"l{LINK_LIMIT}").read_text()


def test_only_regular_files_are_opened(image: Path, rootfs: RootFS, tmp_path: Path) -> None:
    os.mkfifo(image / "fifo")  # opening it for reading would block
    (image / "link").symlink_to("fifo")
    assert unreadable(rootfs, "/fifo") == "is a FIFO, not a regular file"
    assert (
        unreadable(rootfs, "/link") == "is a symlink to /fifo, which is a FIFO, not a regular file"
    )
    assert unreadable(rootfs, "/etc") == "is a directory, not a regular file"
    assert unreadable(rootfs, "/") == "is a directory, not a regular file"
    fd = os.open(image, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{fd}/socket")  # the path itself may be too long
    os.close(fd)
    assert unreadable(rootfs, "/socket") == "is a socket, not a regular file"


@pytest.mark.root_only
def test_devices_are_refused(image: Path, rootfs: RootFS) -> None:
    os.mknod(image / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    assert unreadable(rootfs, "/zero") == "is a character device, not a regular file"


def test_the_limit_counts_what_is_read(image: Path, rootfs: RootFS) -> None:
    with (image / "sparse").open("wb") as file:
        file.truncate(1024 * MIB)
    assert unreadable(rootfs, "/sparse", 64 * MIB) == "is larger than 64 MiB"
    (image / "exact").write_bytes(b"x" * 1000)
    assert len(rootfs.read("/exact", 1000)) == 1000
    assert unreadable(rootfs, "/exact", 999) == "is larger than 999 bytes"
    # Files of /proc claim to have no bytes at all.
    assert unreadable(DirectoryRootFS(Path("/proc")), "/self/status", 10).endswith("than 10 bytes")


def test_a_growing_file_ends(image: Path, rootfs: RootFS) -> None:
    stop = threading.Event()

    def grow() -> None:
        with (image / "log").open("ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 64 * MIB:
                file.write(b"x" * 4096)

    with ThreadPoolExecutor(1) as pool:
        (image / "log").touch()
        pool.submit(grow)
        try:
            with pytest.raises(Unreadable, match="is larger than 1 MiB"):
                while len(rootfs.read("/log", MIB)) <= MIB:
                    pass
        finally:
            stop.set()


def test_open_is_seekable(image: Path, rootfs: RootFS) -> None:
    (image / "link").symlink_to("/etc/os-release")
    with rootfs.open("/link") as file:
        assert file.seek(2) == 2
        assert file.read(2) == b"si"


def test_walk_is_sorted_depth_first_and_does_not_follow(image: Path, rootfs: RootFS) -> None:
    (image / "opt/b/c").mkdir(parents=True)
    (image / "opt/b/c/file").touch()
    (image / "opt/a").touch()
    (image / "opt/b-").touch()
    (image / "opt/up").symlink_to("..")
    os.mkfifo(image / "opt/b/fifo")
    (image / "prefix").symlink_to("/opt")
    below = ["a", "b", "b/c", "b/c/file", "b/fifo", "b-", "up"]
    assert [file.path for file in rootfs.walk("/opt/")] == [f"/opt/{name}" for name in below]
    assert [file.path for file in rootfs.walk("/prefix")] == [f"/prefix/{name}" for name in below]
    types = {file.path: file.type for file in rootfs.walk("/opt")}
    assert (types["/opt/up"], types["/opt/b/fifo"]) == ("symlink", "fifo")
    assert list(rootfs.walk("/none")) == list(rootfs.walk("/opt/a")) == []
    assert "/etc/os-release" in {file.path for file in rootfs.walk("/")}


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def nest(top: Path, name: str, levels: int) -> None:
    fd = os.open(top, os.O_PATH)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_deep_tree(image: Path, rootfs: RootFS) -> None:
    nest(image / "etc", "d", 1500)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 100, hard))
    try:
        assert sum(1 for _ in rootfs.walk("/etc")) == 1501
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_tree_deeper_than_any_path(image: Path, rootfs: RootFS) -> None:
    nest(image, "d" * 255, 20)
    with pytest.raises(ProbeError, match="more than 4096 bytes"):
        list(rootfs.walk("/"))


def test_names_that_are_not_utf8_or_strange(image: Path, rootfs: RootFS) -> None:
    (image / os.fsdecode(b"caf\xe9")).write_text("latin")
    (image / "new\nline").write_text("newline")
    names = rootfs.listdir("/")
    assert os.fsdecode(b"caf\xe9") in names
    assert rootfs.read("/" + os.fsdecode(b"caf\xe9"), MIB) == b"latin"
    assert rootfs.read("/new\nline", MIB) == b"newline"
    assert {file.path[1:] for file in rootfs.walk("/")} >= set(names)
    assert unreadable(rootfs, "/etc\0x") == "does not exist in the image"
    assert unreadable(rootfs, "/" + "x" * 300) == "does not exist: its name is too long"


@pytest.mark.user_only
def test_permissions_are_this_machine_s_trouble(image: Path, rootfs: RootFS) -> None:
    (image / "etc/os-release").chmod(0)
    with pytest.raises(ProbeError, match=r"/etc/os-release: cannot be read.*Permission denied"):
        rootfs.read("/etc/os-release", MIB)
    (image / "etc").chmod(0)
    with pytest.raises(ProbeError, match="Permission denied"):
        list(rootfs.walk("/"))
    with pytest.raises(ProbeError, match="Permission denied"):
        rootfs.lstat("/etc/os-release")
    (image / "etc").chmod(0o755)


def test_no_file_descriptor_is_kept_beyond_its_use(image: Path) -> None:
    for n in range(300):
        (image / f"d{n}").mkdir()
        (image / f"d{n}/file").touch()
    gc.collect()  # what other tests left behind
    before = open_files()
    rootfs = DirectoryRootFS(image)
    for file in rootfs.walk("/"):
        if file.type == "file":
            rootfs.open(file.path).close()
    assert open_files() < before + 100
    del rootfs
    assert open_files() == before


def test_many_threads_read_at_once(image: Path, rootfs: RootFS) -> None:
    for n in range(200):
        (image / f"d{n}").mkdir()
        (image / f"d{n}/file").write_text(str(n))
    with ThreadPoolExecutor(8) as pool:
        contents = pool.map(lambda n: rootfs.read(f"/d{n % 200}/file", MIB), range(2000))
        assert [int(content) for content in contents] == [n % 200 for n in range(2000)]
