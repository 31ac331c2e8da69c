"""What every engine must do alike: one contract, tried on each of them for real."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.engines.base import Completed, OpenImage
from mlcheck.engines.oci import layers as oci_layers
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.files import File
from mlcheck.model.image_ref import ImageRef
from mlcheck.pytest_plugin.testinfra_host import connect
from mlcheck.report import text
from selftests import by_hand, servers
from selftests.images import build_sif, copy_programs, each_engine, script, write
from selftests.waiting import eventually

WAYS = [*each_engine("sandbox", "apptainer", "apptainer-sif"), *servers.each_server()]
NAME = f"mlcheck-selftest-{os.getpid()}/contract"
"""Each worker has its own: a name that another takes leaves an image without one."""

HOSTILE_NAMES = (
    *("a b", "it's", "-rf", "--help", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "a\nb"),
    *(
        "\x1b[2J\x07",
        "\u202egpj.exe",
        "\udcff\udc80",
        "a\\b",
        "*",
        "&& touch pwned",
        '"$HOME"',
        "~",
    ),
)

HOSTILE_CONTENT = "what is in it\n"

ENV_SCRIPT = """\
#!/bin/sh
export PATH="/usr/local/bin:/usr/bin:/bin"
export FROM_IMAGE="${FROM_IMAGE:-"of-the-image"}"
"""
# In the form in which apptainer writes it.
RUNSCRIPT = """\
#!/bin/sh
OCI_ENTRYPOINT='"/opt/data/enter" "first argument"'
OCI_CMD='"cmd"'
exec /opt/data/enter "first argument" "$@"
"""
CONFIG_ENV = ("PATH=/usr/local/bin:/usr/bin:/bin", "FROM_IMAGE=of-the-image")


@pytest.fixture(scope="module")
def directory(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image with every kind of file, a configuration, and a banner at start."""
    root = tmp_path_factory.mktemp("contract") / "image"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    copy_programs(root, ["chmod", "stat", "tr", "readlink", "cat", "env", "uname"])
    write(root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    write(root, "etc/group", "root:x:0:\n")
    write(root, ".singularity.d/env/10-docker2singularity.sh", ENV_SCRIPT, 0o755)
    write(root, ".singularity.d/env/91-banner.sh", "echo 'Welcome!'; printf 'no newline'\n", 0o755)
    write(root, "opt/data/binary", bytes(range(256)) * 100)
    write(root, "opt/data/empty", b"")
    write(root, "opt/data/with space\nand line", "odd")
    write(root, "opt/data/private", "secret", 0o600)
    write(root, "opt/data/setgid", "x", 0o2755)
    (root / "opt/data/hard").hardlink_to(root / "opt/data/binary")
    for name, target in {
        "relative": "binary",
        "absolute": "/opt/data/binary",
        "up": "../../etc/os-release",
        "dangling": "/no/such",
        "loop": "loop",
        "directory": "/opt/data/below",
        "shadow": "/etc/shadow",
    }.items():
        (root / "opt/data" / name).symlink_to(target)
    write(root, "opt/data/below/deep/file", "deep")
    for name in HOSTILE_NAMES:
        write(root, f"srv/names/{name}", HOSTILE_CONTENT)
    os.mkfifo(root / "srv/fifo")
    write(root, ".singularity.d/runscript", RUNSCRIPT, 0o755)
    (root / "singularity").symlink_to(".singularity.d/runscript")
    script(root, "opt/data/enter", 'echo "entered with $1"; shift; exec "$@"')
    script(root, "opt/data/run-me", "echo ran $1; exit 3")
    write(root, "opt/data/no-interpreter", "#!/no/such/interpreter\n", 0o755)
    write(root, "opt/data/not-executable", "#!/bin/sh\n", 0o644)
    return root


@pytest.fixture(scope="module", params=WAYS)
def image(
    request: pytest.FixtureRequest, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenImage]:
    """The image, opened by each engine and server in turn."""
    way: str = request.param
    if (server := servers.installed().get(way)) is not None:
        with server.used(), _in_store(directory, server.engine) as opened:
            yield opened
        return
    if way == "apptainer-sif":
        sif = build_sif(directory, tmp_path_factory.mktemp("sif") / "contract.sif")
        ref, engine = ImageRef.parse(str(sif)), "apptainer"
    else:
        ref, engine = ImageRef.parse(str(directory)), way
    with select.open_image(ref, engine) as opened:
        yield opened


@contextmanager
def _in_store(directory: Path, engine: str) -> Iterator[OpenImage]:
    """The image in the store of docker or podman, opened by it."""
    tar = subprocess.Popen(["tar", "-C", str(directory), "-c", "."], stdout=subprocess.PIPE)
    changes = [f"--change=ENV {variable}" for variable in CONFIG_ENV]
    changes.append('--change=ENTRYPOINT ["/opt/data/enter", "first argument"]')
    subprocess.run([engine, "import", *changes, "-", NAME], stdin=tar.stdout, check=True)
    assert tar.wait() == 0
    try:
        with select.open_image(ImageRef.parse(NAME), engine) as opened:
            yield opened
    finally:
        subprocess.run([engine, "rmi", "-f", NAME], check=True, capture_output=True)


def sh(image: OpenImage, text: str, **options: float) -> Completed:
    return image.run(["sh", "-c", text], limit_s=options.get("limit_s", 60))


class TestCommands:
    """What a command prints and how it ends."""

    def test_streams_and_bytes(self, image: OpenImage) -> None:
        done = sh(image, "printf 'a\\000\\377 no newline'; printf 'err\\r\\n' >&2")
        assert (done.stdout, done.stderr) == (b"a\0\xff no newline", b"err\r\n")
        assert (done.exit_code, done.ended) == (0, "exited")
        assert sh(image, "true").stdout == b""

    def test_fifty_megabytes_on_both_streams(self, image: OpenImage) -> None:
        done = sh(image, "head -c 50000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait")
        assert (len(done.stdout), len(done.stderr)) == (50_000_000, 3_000_000)

    @pytest.mark.parametrize(
        ("text", "code"),
        [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)],
    )
    def test_exit_codes(self, image: OpenImage, text: str, code: int) -> None:
        done = sh(image, text)
        assert (done.exit_code, done.stdout, done.stderr) == (code, b"", b"")

    @pytest.mark.parametrize(
        ("program", "codes", "word"),
        [
            ("no-such-program", {127}, b"no-such-program"),
            ("/opt/data/no-such", {127}, b"/opt/data/no-such"),
            ("/opt/data/not-executable", {126}, b"not-executable"),
            ("/opt/data", {126}, b"/opt/data"),
            # What a shell makes of ENOENT for a file that is there differs.
            ("/opt/data/no-interpreter", {126, 127}, b"interpreter"),
        ],
    )
    def test_what_cannot_be_started(
        self, image: OpenImage, program: str, codes: set[int], word: bytes
    ) -> None:
        done = image.run([program])
        assert done.exit_code in codes
        assert word in done.stderr
        assert done.stdout == b""

    def test_no_program_gets_a_null_byte(self, image: OpenImage) -> None:
        for done in (
            image.run(["echo", "a\0b"]),
            image.run(["echo"], env={"A": "\0"}),
            image.run(["echo"], cwd="/\0"),
            image.start(["echo", "a\0b"]),
        ):
            assert (done.exit_code, done.stdout) == (126, b"")
            assert b"null byte" in done.stderr

    def test_arguments_variables_directory(self, image: OpenImage) -> None:
        odd = 'it\'s "$HOME" `id` \\ \n * \udcff é'
        raw = odd.encode("utf-8", "surrogateescape")
        assert image.run(["echo", odd, ""]).stdout == raw + b" \n"
        done = image.run(["env"], env={"ODD": odd, "FROM_IMAGE": "mine"})
        assert b"ODD=" + raw + b"\n" in done.stdout
        assert b"FROM_IMAGE=mine\n" in done.stdout
        assert image.run(["sh", "-c", "pwd"], cwd="/opt/data").stdout == b"/opt/data\n"
        assert image.run(["sh", "-c", "pwd"]).stdout == b"/\n"
        assert image.run(["/opt/data/run-me", "x"]).stdout == b"ran x\n"
        assert image.run(["/opt/data/run-me"]).exit_code == 3

    def test_stdin(self, image: OpenImage) -> None:
        data = bytes(range(256)) * 100
        assert image.run(["cat"], stdin=data).stdout == data
        assert image.run(["cat"]).stdout == b""

    def test_a_time_limit_ends_all_that_was_started(self, image: OpenImage) -> None:
        sh(image, "setsid sleep 7654 >/dev/null 2>&1 & sleep 0.1")
        daemon = "setsid sh -c 'setsid sleep 4321 & sleep 4321' >/dev/null 2>&1 &"
        done = sh(image, f"({daemon}); echo out; echo err >&2; sleep 4321 & sleep 4321", limit_s=1)
        assert (done.exit_code, done.ended) == (None, "timeout")
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
        assert ended(image, "sleep 4321")
        assert running(image, "sleep 7654"), "it is another command's"

    def test_an_output_limit(self, image: OpenImage) -> None:
        done = image.run(["yes"], output_limit=100_000)
        assert (done.exit_code, done.ended) == (None, "output-limit")
        assert len(done.stdout) == 100_000
        exact = image.run(["head", "-c", "5000", "/dev/zero"], output_limit=5000)
        assert (len(exact.stdout), exact.ended) == (5000, "exited")
        assert ended(image, "yes")

    def test_nothing_stays_of_a_command(self, image: OpenImage) -> None:
        done = sh(image, "sleep 5432 & echo started")
        assert done.stdout == b"started\n"
        assert ended(image, "sleep 5432")
        late = sh(image, "(sleep 0.2; echo late) & echo early")
        assert late.stdout == b"early\nlate\n"

    def test_side_by_side(self, image: OpenImage) -> None:
        barrier = 4

        def one(number: int) -> bytes:
            return sh(image, f"sleep 0.2; echo {number}; head -c 300000 /dev/zero").stdout

        with ThreadPoolExecutor(barrier) as pool:
            done = list(pool.map(one, range(12)))
        assert done == [f"{number}\n".encode() + bytes(300_000) for number in range(12)]

    def test_commands_after_a_limit_work_as_before(self, image: OpenImage) -> None:
        threads = [
            threading.Thread(target=sh, args=(image, "sleep 100"), kwargs={"limit_s": 0.2})
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        assert sh(image, "echo during").stdout == b"during\n"
        for thread in threads:
            thread.join()
        assert sh(image, "echo after").stdout == b"after\n"


def running(image: OpenImage, command: str) -> bool:
    look = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null"
    return command in map(str.strip, sh(image, look).stdout.decode().splitlines())


def ended(image: OpenImage, command: str) -> bool:
    return eventually(lambda: not running(image, command))


class TestStart:
    """The image as its users start it."""

    def test_the_entrypoint_runs_the_command(self, image: OpenImage) -> None:
        done = image.start(["sh", "-c", "echo two words; echo err >&2; exit 7"])
        assert done.exit_code == 7
        # apptainer's start has the image's banner before that.
        assert done.stdout.endswith(b"entered with first argument\ntwo words\n")
        assert done.stderr.endswith(b"err\n")
        assert done.argv[:2] == ("/opt/data/enter", "first argument")

    def test_input(self, image: OpenImage) -> None:
        done = image.start(["sh", "-c", 'read -r line; echo "$line"'], stdin=b"input\n")
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, b"input")

    def test_a_limit(self, image: OpenImage) -> None:
        done = image.start(["sleep", "6543"], limit_s=2)
        assert (done.exit_code, done.ended) == (None, "timeout")
        assert ended(image, "sleep 6543")


class TestHost:
    """testinfra's `host`; its modules are tried one by one in test_host.py."""

    def test_host(self, image: OpenImage) -> None:
        machine = connect(image)
        assert machine.file("/opt/data/binary").size == 25600
        assert machine.file("/opt/data/binary").content == bytes(range(256)) * 100
        assert machine.file("/opt/data/relative").linked_to == "/opt/data/binary"
        assert not machine.file("/opt/data/no-such").exists
        assert machine.run("exit 5").rc == 5
        assert machine.user("root").uid == 0
        assert machine.environment()["FROM_IMAGE"] == "of-the-image"


class TestInside:
    """What a command sees."""

    def test_variables_are_the_images(
        self, image: OpenImage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OF_THE_HOST", "leaked")
        lines = image.run(["env"]).stdout.decode().splitlines()
        assert "FROM_IMAGE=of-the-image" in lines
        # apptainer appends the directories of its own default.
        assert any(line.startswith("PATH=/usr/local/bin:/usr/bin:/bin") for line in lines)
        assert "HOME=/tmp" in lines
        assert not [line for line in lines if "leaked" in line or "MLCHECK" in line]

    def test_user(self, image: OpenImage) -> None:
        number = os.geteuid() if image.engine == "apptainer" else 0
        assert image.run(["id", "-u"]).stdout == f"{number}\n".encode()

    def test_tmp_is_writable_and_the_image_is_not(self, image: OpenImage) -> None:
        done = sh(image, "echo hi >/tmp/mine && cat /tmp/mine && ls /tmp")
        assert done.stdout == b"hi\nmine\n"
        assert sh(image, "echo x >/opt/data/new").exit_code != 0
        assert sh(image, "echo x >/new").exit_code != 0

    def test_no_network(self, image: OpenImage) -> None:
        names = sh(image, "cat /proc/net/dev").stdout.decode()
        found = {line.partition(":")[0].strip() for line in names.splitlines() if ":" in line}
        assert found <= {"lo"}, found

    def test_nothing_of_the_host(self, image: OpenImage, tmp_path: Path) -> None:
        (tmp_path / "here").touch()
        assert sh(image, f"ls {tmp_path} {Path.home()}/.bashrc {Path.cwd()}").stdout == b""
        with subprocess.Popen(["sleep", "9876"]) as outside:
            assert ended(image, "sleep 9876")
            outside.kill()


class TestFiles:
    """What the root file system says: the same on every engine."""

    def test_facts_are_those_of_the_directory(self, image: OpenImage, directory: Path) -> None:
        expected = select.engine("sandbox")
        with (
            expected.prepare(ImageRef.parse(str(directory))) as prepared,
            expected.open(prepared) as plain,
        ):
            # What an ordinary user builds is root's in a SIF file.
            owners = image.ref.kind != "sif" or os.geteuid() == 0
            for top in ("/opt", "/usr/bin"):
                assert facts(image.rootfs, top, owners) == facts(plain.rootfs, top, owners)

    @pytest.mark.root_only
    def test_root_reads_a_store_where_it_lies(
        self, image: OpenImage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if image.layers is None:
            assert image.engine in ("sandbox", "apptainer")
            return
        monkeypatch.delattr(oci_layers, "saved")
        layers = image.layers.read(lambda _: False, lambda *_: None)
        assert isinstance(image.rootfs, DirectoryRootFS)
        assert [one.digest for one in image.rootfs.stored] == [one.digest for one in layers]
        assert "/opt/data/binary" in {member.path for member in layers[-1].members}

    def test_content(self, image: OpenImage, directory: Path) -> None:
        binary = (directory / "opt/data/binary").read_bytes()
        for name in ("binary", "hard", "relative", "absolute"):
            assert image.rootfs.read(f"/opt/data/{name}", 100_000) == binary
        assert image.rootfs.read("/opt/data/with space\nand line", 10) == b"odd"
        assert image.rootfs.read("/opt/data/private", 10) == b"secret"
        assert image.rootfs.read("/opt/data/empty", 10) == b""
        with image.rootfs.open("/opt/data/binary") as file:
            file.seek(256 * 99)
            assert file.read(300) == bytes(range(256))

    def test_links_stay_in_the_image(self, image: OpenImage) -> None:
        assert b"Tiny" in image.rootfs.read("/opt/data/up", 1000)
        for name in ("dangling", "shadow", "loop", "no-such", "below"):
            with pytest.raises(Unreadable) as caught:
                image.rootfs.read(f"/opt/data/{name}", 1000)
            assert caught.value.what
        assert image.rootfs.resolve("/opt/data/directory/deep/../deep/file").final_path == (
            "/opt/data/below/deep/file"
        )
        assert image.rootfs.lstat("/opt/data/no-such") is None
        assert image.rootfs.listdir("/opt/data/directory") == ["deep"]
        assert image.rootfs.listdir("/opt/data/no-such") == []

    def test_a_limit_on_reading(self, image: OpenImage) -> None:
        with pytest.raises(Unreadable, match="larger than 100 bytes"):
            image.rootfs.read("/opt/data/binary", 100)


def facts(rootfs: RootFS, top: str, owners: bool) -> list[tuple[object, ...]]:
    """Every file below `top`, with its owners or without; of the inode, only which paths share
    it."""
    files = list(rootfs.walk(top))
    if not owners:
        files = [file._replace(uid=0, gid=0) for file in files]
    first: dict[object, str] = {}
    return [(*plain(file), first.setdefault(file.inode, file.path)) for file in files]


def plain(file: File) -> tuple[object, ...]:
    size = file.size if file.type == "file" else None
    return (file.path, file.type, oct(file.mode), file.uid, file.gid, size, file.target)


class TestEnvironment:
    def test_configuration(self, image: OpenImage) -> None:
        assert image.environment.env["FROM_IMAGE"] == "of-the-image"
        assert image.environment.env["PATH"] == "/usr/local/bin:/usr/bin:/bin"
        assert image.environment.problems == ()

    @pytest.mark.parametrize("tool", ["cat -v", "ls -l", "sha256sum"])
    def test_no_name_of_a_file_is_more_than_a_word_to_the_shell(
        self,
        image: OpenImage,
        tool: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        digest = hashlib.sha256(HOSTILE_CONTENT.encode()).hexdigest()
        wanted = {"cat -v": HOSTILE_CONTENT, "ls -l": f" {len(HOSTILE_CONTENT)} "}
        # The commands for a second server of an engine are the same, and take seconds.
        beside = servers.installed().get(request.node.callspec.params["image"])
        some = HOSTILE_NAMES[:2] if beside and beside.programs else HOSTILE_NAMES
        for name in some:
            if "\udcff" in name and image.engine != "sandbox":
                continue  # most engines' commands take no argument but UTF-8
            shown = image.show_file(tool, f"/srv/names/{name}")
            assert text.printable(shown) == shown, "nothing in it steers a terminal"
            said = by_hand.run(shown)
            assert wanted.get(tool, digest) in said, (name, shown, said)
            assert not list(tmp_path.glob("pwned"))
            assert {*by_hand.programs(shown)} <= by_hand.HOST_PROGRAMS, shown

    def test_no_word_of_a_command_is_more_than_a_word(
        self, image: OpenImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        words = [name for name in HOSTILE_NAMES if name.isprintable()]
        shown = image.show_run(["sh", "-c", 'printf "<%s>\\\\n" "$@"', "sh", *words])
        said = by_hand.run(shown)
        assert "".join(f"<{word}>\n" for word in words) in said, said
        assert not list(tmp_path.iterdir())

    def test_no_shown_command_waits_for_ever(self, image: OpenImage) -> None:
        for tool in ("cat -A", "head -n 1", "readelf -d", "ls -l"):
            assert "prw-r--r--" in by_hand.run(image.show_file(tool, "/srv/fifo"))

    def test_a_link_is_shown_with_what_it_leads_to(self, image: OpenImage) -> None:
        said = by_hand.run(image.show_file("ls -l", "/opt/data/relative"))
        assert "-> binary" in said
        assert " 25600 " in said
        assert "-> /no/such" in by_hand.run(image.show_file("ls -l", "/opt/data/dangling"))
        assert " 25600 " not in by_hand.run(image.show_file("cat -v", "/opt/data/missing"))

    def test_shown_commands_name_the_image(
        self, image: OpenImage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs = Path(sys.executable).parent
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        shown = image.show_run(["echo", "a b"])
        done = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("a b\n")
        shown = image.show_file("cat", "/opt/data/relative")
        found = subprocess.run(["sh", "-c", shown], capture_output=True, check=True)
        assert found.stdout.endswith(bytes(range(256)))
