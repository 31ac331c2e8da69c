"""Files streamed from a container: the same answers as from a directory, and hostile archives."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlcheck.engines.oci import streamed
from mlcheck.engines.oci.client import Client, connect
from mlcheck.engines.oci.dialect import DOCKER, PODMAN, Dialect
from mlcheck.engines.oci.streamed import StreamedRootFS
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.image.paths import LINK_LIMIT
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.errors import EngineError, ProbeError
from mlcheck.model.files import File, ResolvedFile

pytestmark = pytest.mark.engine("docker", "podman")

MIB = 1024 * 1024
PLAIN = {"Accept-Encoding": "identity"}
"""Unless told so, docker compresses archives, which takes ten times as long as sending them."""

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with everything that is hard about files."""
    root = tmp_path_factory.mktemp("streamed") / "image"
    for name in ("etc", "usr/lib/deep", "opt/b/c", "opt/a b", "opt/x/y", LATIN, "opt/ü"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("inside")
    (root / "usr/file").write_text("usr")
    for name in ("opt/b/c/file", "opt/a", "opt/b-", "opt/empty"):
        if not (root / name).exists():
            (root / name).touch()
    (root / "opt/a b/with space").write_text("space")
    (root / "opt/new\nline").write_text("newline")
    (root / "opt/-rf").write_text("option")
    (root / "opt/%2e%2e").write_text("percent")
    (root / "opt/ü/ß").write_text("utf-8")
    (root / LATIN / LATIN).write_text("latin")
    (root / "opt" / LATIN).write_text("latin too")
    (root / ("n" * 255)).write_text("long")
    (root / "opt/small").write_bytes(os.urandom(streamed.KEPT_WHOLE))
    (root / "opt/large").write_bytes(os.urandom(3 * MIB + 7))
    os.link(root / "opt/large", root / "opt/x/hard")
    os.link(root / "opt/large", root / "usr/hard")
    (root / "opt/setuid").write_text("x")
    (root / "opt/setuid").chmod(0o6755)
    (root / "opt/x").chmod(0o1777)
    os.chown(root / "opt/small", 1234, 70000)
    os.mkfifo(root / "opt/fifo")
    os.mknod(root / "opt/zero", 0o620 | 0o020000, os.makedev(1, 5))
    links = {
        "link": "/etc/os-release",
        "up": "../../../../etc/os-release",
        "dots": "/etc/../etc/./os-release",
        "opt/root": "/",
        "opt/updir": "../..",
        "short": "/usr/lib/deep",
        "list": "/etc/shadow-none",
        "self": "self",
        "loop-a": "/loop-b",
        "loop-b": "loop-a/x",
        "to-fifo": "opt/fifo",
        "opt/to-newline": "new\nline",
        "to-latin": LATIN,
        "bin": "usr/lib",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.link(root / "link", root / "opt/x/hard-link-to-a-link", follow_symlinks=False)
    (root / "l0").symlink_to("etc/os-release")
    for n in range(1, LINK_LIMIT + 1):
        (root / f"l{n}").symlink_to(f"l{n - 1}")
    return root


PATHS = [
    *("/", "", "..", "/..", "/etc", "/etc/", "/etc/os-release", "etc/os-release", "/etc/none"),
    *("/etc/os-release/below", "/etc/../../etc/os-release", "/link", "/up", "/dots", "/opt/root"),
    *("/opt/root/opt/root/etc/os-release", "/opt/updir/etc", "/short/../../file", "/short/none"),
    *("/short/none/more", "/no/such/file", "/no/../etc", "/usr/file/x", "/list", "/self"),
    *("/loop-a", "/loop-b/y", "/to-fifo", "/opt/fifo", "/opt/zero", "/opt/to-newline"),
    *("/opt/new\nline", "/opt/a b/with space", "/opt/-rf", "/opt/%2e%2e", "/opt/ü/ß", "/to-latin"),
    *(f"/{LATIN}", f"/{LATIN}/{LATIN}", f"/to-latin/{LATIN}", f"/opt/{LATIN}", f"/{LATIN}/none"),
    *("/etc\0x", "/" + "x" * 300, "/" + "n" * 255, "/opt/small", "/opt/large", "/opt/x/hard"),
    *(
        "/opt/x/hard-link-to-a-link",
        "/usr/hard",
        "/opt/setuid",
        "/opt/x",
        "/opt/empty",
        "/bin/deep",
    ),
    *(f"/l{LINK_LIMIT}", f"/l{LINK_LIMIT - 1}", "/opt/b", "/opt/a", "/opt/b/c/file"),
]


@contextmanager
def container(client: Client, directory: Path) -> Iterator[str]:
    """A container, not started, of an image made from the directory."""
    command = ["tar", "-C", str(directory), "--numeric-owner", "-c", "."]
    made = subprocess.run(command, check=True, capture_output=True)
    # Engines differ in how they read a name here, and agree on the ID.
    image = json.loads(client.import_image_from_data(made.stdout).splitlines()[0])["status"]
    try:
        identity = client.create_container(image, command=["/none"])["Id"]
        try:
            yield identity
        finally:
            client.remove_container(identity, force=True)
    finally:
        client.remove_image(image, force=True)


class Counted:
    """Archives of a container, and how many were asked for, of what."""

    def __init__(self, client: Client, identity: str) -> None:
        self.client = client
        self.url = f"{client.base_url}/v{client.api_version}/containers/{identity}"
        self.asked: list[str] = []

    def archive(self, path: str) -> Iterable[bytes] | None:
        self.asked.append(path)
        answer = self.client.get(
            f"{self.url}/archive",
            params={"path": os.fsencode(path)},
            headers=PLAIN,
            stream=True,
        )
        if answer.status_code == 404:
            answer.close()
            return None
        if answer.status_code != 200:
            raise EngineError(answer.text)
        return self._chunks(answer)

    def export(self) -> Iterable[bytes]:
        self.asked.append("export")
        return self._chunks(self.client.get(f"{self.url}/export", headers=PLAIN, stream=True))

    @staticmethod
    def _chunks(answer) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
        with answer:
            yield from answer.iter_content(65536)


@pytest.fixture(scope="module", params=[DOCKER, PODMAN], ids=["docker", "podman"])
def counted(request: pytest.FixtureRequest, directory: Path) -> Iterator[Counted]:
    dialect: Dialect = request.param
    with connect(dialect) as client, container(client, directory) as identity:
        yield Counted(client, identity)


@pytest.fixture
def rootfs(counted: Counted) -> Iterator[StreamedRootFS]:
    counted.asked.clear()
    export = counted.export if counted.client.dialect == PODMAN else None
    rootfs = StreamedRootFS(counted.archive, export)
    yield rootfs
    rootfs.close()


@pytest.fixture
def expected(directory: Path) -> DirectoryRootFS:
    return DirectoryRootFS(directory)


def fact(file: File | None) -> object:
    """What must be equal: the numbers of inodes and the sizes of directories are not."""
    if file is None:
        return None
    size = 0 if file.type == "directory" else file.size
    owner = None if file.path == "/" else (file.mode, file.uid, file.gid)
    return file.path, file.type, owner, size, file.target


def resolved(answer: ResolvedFile) -> object:
    return answer.path, fact(answer.file), fact(answer.final), answer.final_path, answer.problem


def read(rootfs: RootFS, path: str, limit: int) -> bytes | str:
    try:
        return rootfs.read(path, limit)
    except Unreadable as unreadable:
        assert unreadable.path == path
        return unreadable.what


# What an engine itself puts into a container.
ADDED = {".dockerenv", "dev", "proc", "sys", "run"}


@pytest.mark.parametrize("walked", [False, True], ids=["one by one", "after a walk"])
def test_every_answer_is_that_of_the_directory(
    rootfs: StreamedRootFS, expected: DirectoryRootFS, walked: bool
) -> None:
    if walked:
        list(rootfs.walk("/"))
    for path in PATHS:
        assert fact(rootfs.lstat(path)) == fact(expected.lstat(path)), path
        assert resolved(rootfs.resolve(path)) == resolved(expected.resolve(path)), path
        for limit in (4 * MIB, 5):
            assert read(rootfs, path, limit) == read(expected, path, limit), path
    for path in PATHS:
        names = set(rootfs.listdir(path))
        assert names - ADDED - {"hosts", "hostname", "resolv.conf", "mtab"} == set(
            expected.listdir(path)
        ), path
        assert rootfs.listdir(path) == sorted(names)


@pytest.mark.parametrize(
    "top", ["/opt", "/opt/", "/bin", "/usr", f"/{LATIN}", "/to-latin", "/none"]
)
def test_walk(rootfs: StreamedRootFS, expected: DirectoryRootFS, top: str) -> None:
    found = list(rootfs.walk(top))
    assert [fact(file) for file in found] == [fact(file) for file in expected.walk(top)]


def test_hard_links_have_one_inode(rootfs: StreamedRootFS) -> None:
    inodes: dict[tuple[int, int], set[str]] = {}
    for file in rootfs.walk("/"):
        if file.type == "file":
            inodes.setdefault(file.inode, set()).add(file.path)
    shared = [paths for paths in inodes.values() if len(paths) > 1]
    assert shared == [{"/opt/large", "/opt/x/hard", "/usr/hard"}]


def test_only_what_is_asked_for_comes(counted: Counted, rootfs: StreamedRootFS) -> None:
    if counted.client.dialect == DOCKER:
        assert rootfs.read("/etc/os-release", MIB) == b"inside"
        assert counted.asked == ["/", "/etc", "/etc/os-release"]
    list(rootfs.walk("/opt"))
    counted.asked.clear()
    list(rootfs.walk("/opt/b"))
    assert rootfs.listdir("/opt/x") == ["hard", "hard-link-to-a-link", "y"]
    assert len(rootfs.read("/opt/small", MIB)) == streamed.KEPT_WHOLE
    with rootfs.open("/opt/large") as file:
        assert len(file.read(4)) == 4
        assert file.seek(0, os.SEEK_END) == 3 * MIB + 7
        assert read(rootfs, "/opt/large", MIB) == "is larger than 1 MiB"
        assert counted.asked == []
        file.seek(-1, os.SEEK_CUR)
        assert len(file.read()) == 1
    assert counted.asked == ["/opt/large"]


def test_open_is_seekable(rootfs: StreamedRootFS, directory: Path) -> None:
    content = (directory / "opt/large").read_bytes()
    list(rootfs.walk("/opt"))
    with rootfs.open("/opt/x/hard") as file:
        for at in (0, 4090, 100, 2 * MIB, 5000, 3 * MIB, 3 * MIB + 7, 3 * MIB + 100):
            assert file.seek(at) == at
            data = b""
            while len(data) < 20 and (more := file.read(20 - len(data))):
                data += more
            assert data == content[at : at + 20]


def test_many_threads(rootfs: StreamedRootFS, directory: Path) -> None:
    content = (directory / "opt/large").read_bytes()

    def one(n: int) -> bool:
        if n % 3 == 0:
            return len(rootfs.listdir("/opt/b")) == 1
        return rootfs.read("/opt/large" if n % 3 == 1 else "/link", 4 * MIB) in (content, b"inside")

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(18)))


# Hostile archives


def member(name: str, content: bytes = b"", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    padding = bytes(-len(content) % 512)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + padding


TOP = member("d", type=tarfile.DIRTYPE)
END = bytes(1024)


def over(archives: dict[str, bytes] | Callable[[str], Iterable[bytes] | None]) -> StreamedRootFS:
    """A file system whose engine sends these archives."""
    sent = {"/": member("/", type=tarfile.DIRTYPE) + END}

    def get(path: str) -> Iterable[bytes] | None:
        if callable(archives):
            return [sent["/"]] if path == "/" else archives(path)
        found = {**sent, **archives}.get(path)
        return None if found is None else [found[n : n + 700] for n in range(0, len(found), 700)]

    return StreamedRootFS(get)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (member("../etc/passwd", b"x"), "which is not below it"),
        (member("d/../../x", b"x"), "which is not below it"),
        (member("/etc/passwd", b"x"), "which is not below it"),
        (member("other/x", b"x"), "which is not below it"),
        (member("d/none/x", b"x"), "without its directory"),
        (member("d/f", b"x") + member("d/f/x", b"x"), "without its directory"),
        (member("d/l", type=tarfile.SYMTYPE, linkname="/etc") + member("d/l/x"), "its directory"),
        (member("d/h", type=tarfile.LNKTYPE, linkname="d/none"), "which it has not"),
        (member("d/h", type=tarfile.LNKTYPE, linkname="d"), "which it has not"),
        (member("d/h", type=tarfile.LNKTYPE, linkname="/etc/shadow"), "not below it"),
        (member("d", b"now a file"), "is no directory any more"),
        (member("d/s", type=tarfile.GNUTYPE_SPARSE), "has the sparse file"),
        (member("d/x", b"x", pax_headers={"size": "-1000000"}), "the archive"),
        (member("d/x", b"x", pax_headers={"comment": "x" * 2_000_000}), "a header of more than"),
        (member("d/f", b"x" * 2000)[:-1024], "broke off"),
        (b"x" * 512, "broken header"),
        (b"", "broke off"),
    ],
)
def test_archives_that_are_refused(members: bytes, why: str) -> None:
    end = b"" if why == "broke off" else END
    rootfs = over({"/d": TOP + members + end})
    assert rootfs.lstat("/d") is not None
    with pytest.raises(EngineError, match=why):
        list(rootfs.walk("/d"))


def test_a_member_that_comes_twice_is_the_last_one() -> None:
    rootfs = over({"/d": TOP + member("d/f", b"one") + member("d/f", b"three") + END})
    assert [file.size for file in rootfs.walk("/d")] == [5]
    assert rootfs.read("/d/f", MIB) == b"three"


def test_a_huge_size_is_only_a_number() -> None:
    huge = member("f", b"", size=10**15)
    rootfs = over({"/f": huge + bytes(9000)})
    file = rootfs.lstat("/f")
    assert file is not None
    assert file.size == 10**15
    with pytest.raises(Unreadable, match="is larger than 1 MiB"):
        rootfs.read("/f", MIB)


def test_no_end_of_headers() -> None:
    def endless(path: str) -> Iterator[bytes]:
        yield TOP
        while True:
            info = tarfile.TarInfo("x")
            info.type = tarfile.XGLTYPE
            yield info.tobuf(tarfile.USTAR_FORMAT)

    rootfs = over(endless)
    with pytest.raises(EngineError, match="/d: the archive"):
        list(rootfs.walk("/d"))


def test_more_files_than_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "ENTRY_LIMIT", 5)
    rootfs = over({"/d": TOP + b"".join(member(f"d/{n}") for n in range(10)) + END})
    with pytest.raises(ProbeError, match="more than 5 files"):
        list(rootfs.walk("/d"))


def test_little_is_kept_when_much_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "KEPT_ALTOGETHER", 1500)
    files = {f"/d/{n}": member(str(n), b"%d" % n * 1000) for n in range(4)}
    tree = TOP + b"".join(member(f"d/{n}", b"%d" % n * 1000) for n in range(4)) + END
    rootfs = over({"/d": tree, **{path: data + END for path, data in files.items()}})
    list(rootfs.walk("/d"))
    for n in range(4):
        assert rootfs.read(f"/d/{n}", MIB) == b"%d" % n * 1000


def test_programs_that_pass_by_are_kept_whole() -> None:
    program, data = b"\x7fELF" + bytes(streamed.KEPT_WHOLE), b"data" + bytes(streamed.KEPT_WHOLE)
    tree = TOP + member("d/program", program) + member("d/data", data) + END
    rootfs = over({"/d": tree})  # asked for alone, neither file is there
    list(rootfs.walk("/d"))
    assert rootfs.read("/d/program", MIB) == program
    with rootfs.open("/d/data") as file:
        assert len(file.read(streamed.KEPT_START)) == streamed.KEPT_START
        with pytest.raises(EngineError, match="/d/data: the archive"):
            file.read(1)


def test_an_engine_that_stops_in_a_file() -> None:
    rootfs = over({"/f": member("f", b"x" * 500_000)[:300_000]})
    assert rootfs.lstat("/f") is not None
    with pytest.raises(EngineError, match="broke off"):
        rootfs.read("/f", MIB)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(None, id="not there"),
        pytest.param(END, id="an archive of nothing"),
        pytest.param(b"", id="not a byte"),
        pytest.param(member("f", b"other") + END, id="another file"),
    ],
)
def test_what_a_mount_hides_is_in_the_export(sent: bytes | None) -> None:
    """What podman 4.3 sends of a file that only the image has, at a place of its own mounts: an
    archive of nothing, of which in one of twelve requests not a byte came."""
    content = b"x" * (streamed.KEPT_WHOLE + 1)
    whole = member("dev", type=tarfile.DIRTYPE) + member("dev/f", content) + END
    rootfs = StreamedRootFS(lambda path: None if sent is None else [sent], lambda: [whole])
    assert rootfs.read("/dev/f", MIB) == content


def test_nothing_where_the_image_is_expected() -> None:
    rootfs = StreamedRootFS(lambda path: None, lambda: [b""])
    with pytest.raises(EngineError, match="broke off"):
        list(rootfs.walk("/"))


def test_a_stream_is_closed_when_enough_was_read() -> None:
    closed = []

    def get(path: str) -> Iterator[bytes]:
        try:
            yield member("f", b"x" * 500_000, size=10**12)
            while True:
                yield bytes(65536)
        finally:
            closed.append(path)

    rootfs = over(get)
    with rootfs.open("/f") as file:
        assert closed == ["/f"]
        file.seek(400_000)
        assert file.read(3) == b"xxx"
    assert closed == ["/f", "/f"]
