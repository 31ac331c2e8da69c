"""docker and podman: their containers from start to end, and what is left when it goes wrong."""

from __future__ import annotations

import contextlib
import functools
import gc
import http.server
import os
import shutil
import signal
import socket
import socketserver
import stat
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlcheck.engines.base import Prepared, Start
from mlcheck.engines.oci import container as oci_container
from mlcheck.engines.oci import server as oci_server
from mlcheck.engines.oci.client import connect
from mlcheck.engines.oci.container import OWNER_LABEL, Attached
from mlcheck.engines.oci.dialect import DOCKER, PODMAN, Dialect
from mlcheck.engines.oci.engine import Oci, OpenOci
from mlcheck.engines.oci.files import WAYS, Way, mapped
from mlcheck.engines.shell import StreamEnded
from mlcheck.image.api import RootFS
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.machine import janitor, janitor_process
from mlcheck.model.errors import EngineError
from mlcheck.model.image_ref import ImageRef
from selftests.checkout import CHECKOUT
from selftests.conftest import ROOT_ONLY
from selftests.waiting import eventually

pytestmark = pytest.mark.engine("docker", "podman")

DIALECTS = {"docker": DOCKER, "podman": PODMAN}


def command(*argv: str | Path) -> str:
    """Output of a program that must succeed."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def imported(dialect: Dialect, root: Path, *changes: str, host: str | None = None) -> Prepared:
    """The image that holds the directory `root`, in the engine's store."""
    name = f"mlcheck-test-{uuid.uuid4().hex[:12]}:v1"
    options = [option for change in changes for option in ("--change", change)]
    # What belongs to an ordinary user here is root's there, as in a container build of theirs.
    owner = [] if os.geteuid() == 0 else ["--owner=0", "--group=0"]
    tar = subprocess.Popen(["tar", "-C", root, *owner, "-c", "."], stdout=subprocess.PIPE)
    assert tar.stdout is not None
    where = ["-H", host] if host else []
    with tar.stdout:
        said = subprocess.run(
            [dialect.name, *where, "import", *options, "-", name],
            stdin=tar.stdout,
            capture_output=True,
            text=True,
        )
    assert (tar.wait(), said.returncode) == (0, 0), said.stderr
    location = said.stdout.split()[-1]
    location = location if ":" in location else f"sha256:{location}"
    text = name if dialect is DOCKER else f"localhost/{name}"
    return Prepared(ImageRef.parse(text), location)


def removed(dialect: Dialect, prepared: Prepared) -> None:
    command(dialect.name, "rmi", "-f", prepared.location)


@pytest.fixture(scope="module", params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@pytest.fixture(scope="module")
def engine(dialect: Dialect) -> Oci:
    return Oci(dialect)


@pytest.fixture(scope="module")
def tree(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small image with files of every awkward kind in it."""
    root = tmp_path_factory.mktemp("oci") / "tree"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/hosts").write_text("127.0.0.1 of-the-image\n")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:1234:1234::/:/bin/sh\n")
    (root / "etc/group").write_text("user:x:1234:\n")
    files = root / "opt/files"
    (files / "sticky").mkdir(parents=True)
    (files / "sticky").chmod(0o1777)
    for name, mode, owner in (("plain", 0o644, 0), ("secret", 0o600, 0), ("other", 0o640, 1234)):
        (files / name).write_text(f"content of {name}\n")
        (files / name).chmod(mode)
        if os.geteuid() == 0:
            os.chown(files / name, owner, owner)
    shutil.copy(root / "usr/bin/true", files / "setuid")
    (files / "setuid").chmod(0o4755)
    (files / "empty").touch()
    (files / "a name with ' \" and é").write_text("odd")
    (files / "large").write_bytes(os.urandom(300_000))
    (files / "link").symlink_to("plain")
    (files / "absolute").symlink_to("/etc/os-release")
    (files / "dangling").symlink_to("/none")
    (files / "outwards").symlink_to("../../../../../../etc/shadow")
    os.mkfifo(files / "fifo")
    os.link(files / "plain", files / "hard")
    return root


@pytest.fixture(scope="module")
def prepared(dialect: Dialect, tree: Path) -> Iterator[Prepared]:
    found = imported(
        dialect,
        tree,
        "ENV GREETING=hello",
        'ENTRYPOINT ["/no/entrypoint"]',
        'CMD ["a", "b"]',
        "WORKDIR /made",
        "EXPOSE 8888",
        "LABEL colour=blue",
    )
    yield found
    removed(dialect, found)


@pytest.fixture
def image(engine: Oci, prepared: Prepared) -> Iterator[OpenOci]:
    with engine.open(prepared) as image:
        yield image


def containers(dialect: Dialect, owner: str) -> list[str]:
    """Names of the containers that belong to a process."""
    label = f"label={OWNER_LABEL}={owner}"
    return command(
        dialect.name, "ps", "-a", "--filter", label, "--format", "{{.Names}}"
    ).splitlines()


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def processes(mark: str) -> list[int]:
    """Every process of this machine with `mark` in its arguments, but this one."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (directory / "cmdline").read_bytes()
            if mark.encode() in text and int(directory.name) != os.getpid():
                found.append(int(directory.name))
    return found


def sh(image: OpenOci, script: str) -> str:
    done = image.run(["sh", "-c", script])
    assert (done.exit_code, done.stderr) == (0, b""), done
    return done.stdout.decode()


# From start to end


def test_a_container_lives_from_the_first_command_to_the_end(
    engine: Oci, prepared: Prepared
) -> None:
    with engine.open(prepared) as image:
        assert image.environment.env["GREETING"] == "hello"
        assert containers(engine.dialect, janitor.owner()) == []
        image.run(["true"])
        (name,) = containers(engine.dialect, janitor.owner())
        image.run(["true"])
        assert image.rootfs.lstat("/opt") is not None
        # Who may not look into the engine's store has a second one, for the files.
        there = containers(engine.dialect, janitor.owner())
        assert name in there
        assert len(there) == (1 if isinstance(image.rootfs, DirectoryRootFS) else 2)
        assert processes(name)
    assert containers(engine.dialect, janitor.owner()) == []
    assert eventually(lambda: processes(name) == [])  # podman's monitor ends after it


def test_a_container_ends_at_once(image: OpenOci, dialect: Dialect) -> None:
    """podman 5 sends the stop signal also where it is removed by force, and waits."""
    image.run(["true"])
    (name,) = containers(dialect, janitor.owner())
    config = image.client().inspect_container(name)["Config"]
    assert config["StopSignal"] in ("SIGKILL", "9")


@pytest.mark.root_only  # nobody else finds them where they lie
def test_a_container_that_is_said_to_run_before_it_does(
    engine: Oci, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are read where they lie all the same."""
    timers = []

    def early(created: oci_container.Created) -> None:
        start = ["start", created.name]
        timers.append(threading.Timer(1.0, command, (engine.dialect.name, *start)))
        timers[-1].start()

    monkeypatch.setattr(oci_container.Created, "start", early)
    with engine.open(prepared) as image:
        assert isinstance(image.rootfs, DirectoryRootFS)
    for timer in timers:
        timer.join()


def test_two_at_once_do_not_touch_each_other(engine: Oci, prepared: Prepared) -> None:
    with engine.open(prepared) as first:
        with engine.open(prepared) as second, ThreadPoolExecutor(4) as pool:
            script = ["sh", "-c", "echo $1 >>/tmp/here; cat /tmp/here", "sh"]
            ran = [pool.submit(image.run, [*script, "x"]) for image in (first, second)]
            assert [each.result().stdout for each in ran] == [b"x\n", b"x\n"]
            assert len(containers(engine.dialect, janitor.owner())) == 2
        assert first.run(["cat", "/tmp/here"]).stdout == b"x\n"
        assert len(containers(engine.dialect, janitor.owner())) == 1


def test_nothing_is_left_open(engine: Oci, prepared: Prepared) -> None:
    def use() -> None:
        with engine.open(prepared) as image:
            image.run(["true"])
            image.rootfs.listdir("/opt")
            image.run(["sleep", "100"], limit_s=0.05)

    use()  # the janitor starts
    gc.collect()
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    threads = threading.active_count()
    use()
    gc.collect()
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before
    assert threading.active_count() == threads


TOOL = """
import sys, threading
from mlcheck.machine import janitor
from mlcheck.engines.oci import container as oci_container, dialect as oci_dialect
from mlcheck.engines.base import Prepared
from mlcheck.engines.oci.engine import Oci
from mlcheck.model.image_ref import ImageRef
name, text, location, moment = sys.argv[1:]
def ready(*_):
    print(janitor.owner(), flush=True)
    threading.Event().wait()
if moment == "created":
    oci_container.Created.start = ready
if moment == "started":
    oci_container.has_arguments = ready
dialect = getattr(oci_dialect, name.upper())
with Oci(dialect).open(Prepared(ImageRef.parse(text), location)) as image:
    image.run(["true"])
    threading.Thread(target=image.run, args=(["sleep", "1000"],), daemon=True).start()
    image.run(["sh", "-c", "setsid sleep 1000 & sleep 0.1"])
    ready()
"""


@pytest.mark.parametrize("moment", ["created", "started", "running"])
def test_kill_9_leaves_nothing(dialect: Dialect, prepared: Prepared, moment: str) -> None:
    argv = [sys.executable, "-c", TOOL, dialect.name, prepared.ref.text, prepared.location, moment]
    tool = subprocess.Popen(
        argv,
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert tool.stdout is not None
    with tool.stdout:
        owner = tool.stdout.readline().strip()
        (name,) = containers(dialect, owner)
        services = [pid for pid in processes("system\0service") if parent(pid) == tool.pid]
        assert len(services) == (1 if dialect.service else 0)
        places = [
            Path(
                Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").partition("unix://")[2]
            ).parent
            for pid in services
        ]
        assert all(place.is_dir() for place in places)
        tool.kill()
        tool.wait()
    assert eventually(lambda: containers(dialect, owner) == [])
    assert eventually(lambda: processes(name) == [])
    assert eventually(lambda: not [pid for pid in services if is_running(pid)])
    assert eventually(lambda: not [place for place in places if place.exists()])


def is_running(pid: int) -> bool:
    return janitor_process.start_time(pid) is not None


def test_what_was_left_behind_is_cleared_and_nothing_else(engine: Oci, prepared: Prepared) -> None:
    machine, boot, namespace, pid, started = janitor.owner().split("/")
    gone = subprocess.Popen(["true"])
    gone.wait()
    labels = {
        "dead": f"{machine}/{boot}/{namespace}/{gone.pid}/1",
        "before-boot": f"{machine}/another-boot/{namespace}/{pid}/{started}",
        "living": janitor.owner(),
        "elsewhere": f"another-machine/{boot}/{namespace}/{gone.pid}/1",
        "odd": "no-owner",
    }
    mark = f"mlcheck-test-{uuid.uuid4().hex[:8]}"
    names = {f"{mark}-{kind}": [f"{OWNER_LABEL}={label}"] for kind, label in labels.items()}
    names[f"{mark}-foreign"] = ["owner=somebody"]
    try:
        for name, (label,) in names.items():
            create = [engine.name, "create", "--name", name, "--label", label]
            command(*create, "--entrypoint", "true", prepared.ref.text)
        with engine.open(prepared):
            pass
        left = command(engine.name, "ps", "-a", "--filter", f"name={mark}", "--format={{.Names}}")
        kinds = {name.removeprefix(f"{mark}-") for name in left.split()}
        assert kinds == {"living", "elsewhere", "odd", "foreign"}
    finally:
        for name in names:
            subprocess.run([engine.name, "rm", "-f", name], capture_output=True, check=False)


# What a command sees


def test_environment(image: OpenOci) -> None:
    found = image.environment
    assert found.env["GREETING"] == "hello"
    assert (found.entrypoint, found.cmd) == (("/no/entrypoint",), ("a", "b"))
    assert (found.user, found.workdir, found.exposed) == ("", "/made", ("8888/tcp",))
    assert found.labels is not None
    assert found.labels["colour"] == "blue"
    assert found.source == f"{image.engine} image inspect {image.ref.text}"


def test_variables(engine: Oci, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.setenv("PYTHONPATH", "/leaked")
    with engine.open(prepared) as image:
        lines = dict(line.split("=", 1) for line in sh(image, "env").splitlines())
        changed = image.run(["sh", "-c", "echo $GREETING $HOME"], env={"HOME": "/opt"})
    shells_own = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert lines.keys() - shells_own == {"PATH", "HOME", "GREETING"}
    assert lines["HOME"] == "/tmp"
    assert changed.stdout == b"hello /opt\n"


def test_image_is_not_writable_and_tmp_is(image: OpenOci) -> None:
    for path in ("/new", "/usr/new", "/opt/files/new"):
        assert image.run(["touch", path]).exit_code == 1
    assert sh(image, "echo 'echo ran' >/tmp/script; . /tmp/script; touch /dev/shm/x") == "ran\n"
    # Programs can be started from /tmp, as on the other engines.
    assert sh(image, "cat /usr/bin/true >/tmp/true; chmod 755 /tmp/true 2>&1 || :; ls /tmp/true")


def test_no_network_unless_asked(engine: Oci, prepared: Prepared) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect_to = f"exec 3<>/dev/tcp/127.0.0.1/{server.getsockname()[1]}"
        with engine.open(prepared) as image:
            assert b"Connection refused" in image.run(["bash", "-c", connect_to]).stderr
        with engine.open(prepared, start=Start(network=True)) as image:
            assert image.run(["bash", "-c", connect_to]).exit_code == 0


def test_user_of_the_image(dialect: Dialect, tree: Path) -> None:
    prepared = imported(dialect, tree, "USER 1234:1234")
    try:
        with Oci(dialect).open(prepared) as image:
            assert sh(image, "id -u; id -g; echo x >/tmp/y; cat /tmp/y") == "1234\n1234\nx\n"
            assert image.environment.user == "1234:1234"
            assert image.run(["cat", "/opt/files/secret"]).exit_code == 1
            assert image.run(["sleep", "1000"], limit_s=0.1).ended == "timeout"
            # Its files are read with the rights of the one who runs mlcheck.
            assert image.rootfs.read("/opt/files/secret", 100) == b"content of secret\n"
    finally:
        removed(dialect, prepared)


def test_output_of_every_kind(image: OpenOci) -> None:
    size = 50 * 1024 * 1024
    both = f"head -c {size} /dev/urandom & head -c {size} /dev/zero >&2; wait"
    done = image.run(["sh", "-c", both])
    assert (done.exit_code, len(done.stdout), done.stderr) == (0, size, bytes(size))
    content = os.urandom(200_000)
    assert image.run(["cat"], stdin=content).stdout == content


# Images without a shell


@pytest.fixture(scope="module")
def shell_less(
    dialect: Dialect, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prepared]:
    root = tmp_path_factory.mktemp("oci") / "no-shell"
    command("cp", "-a", tree, root)
    for name in ("sh", "bash"):
        (root / "usr/bin" / name).unlink()
    for name, content in {"data": b"\x01\x02", "script": b"#!/no/such/python\n"}.items():
        (root / "opt" / name).write_bytes(content)
        (root / "opt" / name).chmod(0o755)
    found = imported(dialect, root, "ENV GREETING=hello", "ENV PATH=/usr/bin")
    yield found
    removed(dialect, found)


def test_image_without_shell(engine: Oci, shell_less: Prepared) -> None:
    with engine.open(shell_less) as image:
        done = image.run(["echo", "a  b"])
        assert (done.exit_code, done.stdout, done.stderr) == (0, b"a  b\n", b"")
        (note,) = image.notes
        assert "no usable /bin/sh" in note
        content = os.urandom(200_000)
        assert image.run(["cat"], stdin=content).stdout == content
        assert image.run(["cat"]).stdout == b""
        assert image.run(["ls", "/none"]).exit_code == 2
        lines = image.run(["env"], env={"EXTRA": "1"}).stdout.decode().splitlines()
        assert {"GREETING=hello", "HOME=/tmp", "EXTRA=1"} <= set(lines)
        assert image.run(["readlink", "/proc/self/cwd"], cwd="/opt").stdout == b"/opt\n"
        assert image.run(["sleep", "1000"], limit_s=0.3).ended == "timeout"
        done = image.run(["yes"], output_limit=100_000)
        assert (done.ended, len(done.stdout)) == ("output-limit", 100_000)
        assert image.rootfs.read("/opt/files/plain", 100) == b"content of plain\n"
        for argv, code in {
            ("no-such-program",): 127,
            ("/no/such/program",): 127,
            ("/opt/script",): 127,
            ("/opt/files/plain",): 126,
            ("/opt",): 126,
            ("/opt/data",): 126,
        }.items():
            done = image.run(argv)
            assert done.exit_code == code, done
            assert done.stderr, done
        assert containers(engine.dialect, janitor.owner()) != []  # the one that holds the files
    assert containers(engine.dialect, janitor.owner()) == []


# Files


def facts(rootfs: RootFS, top: str) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for file in rootfs.walk(top):
        content = rootfs.read(file.path, 10**8) if file.type == "file" else b""
        size = file.size if file.type == "file" else 0
        kind = (file.type, stat.filemode(file.mode), file.uid, file.gid, size, file.target)
        found[file.path] = (*kind, content)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_files_are_the_same_in_every_way(
    dialect: Dialect, prepared: Prepared, tree: Path, way: Way
) -> None:
    if dialect is DOCKER and way != "streamed" and os.geteuid() != 0:
        pytest.skip(ROOT_ONLY)
    directory = DirectoryRootFS(tree)
    if os.geteuid() != 0:  # what is the user's own here is root's there, see `imported`
        own = ((0, os.getuid(), 1),), ((0, os.getgid(), 1),)
        directory = DirectoryRootFS(tree, functools.partial(mapped, *own))
    with Oci(dialect, ways=(way,)).open(prepared) as image:
        rootfs = image.rootfs
        for top in ("/opt", "/usr", "/etc"):
            found, expected = facts(rootfs, top), facts(directory, top)
            if top == "/etc":
                for added in ("/etc/hostname", "/etc/resolv.conf", "/etc/mtab"):
                    found.pop(added, None)
            if top == "/etc" and dialect is DOCKER:
                # docker puts an empty file into the container for its own to be mounted on.
                found["/etc/hosts"] = expected["/etc/hosts"]
            assert found == expected
        for path in ("/opt/files/link", "/opt/files/outwards", "/opt/files/dangling"):
            resolved, expected_resolved = rootfs.resolve(path), directory.resolve(path)
            assert resolved.final_path == expected_resolved.final_path
            assert resolved.problem == expected_resolved.problem
        with rootfs.open("/opt/files/large") as file:
            file.seek(200_000)
            assert file.read() == (tree / "opt/files/large").read_bytes()[200_000:]


def test_owners_are_numbered_as_inside(tree: Path) -> None:
    here = (tree / "opt/files/other").stat()
    users, groups = ((0, here.st_uid, 1), (1, 100_000, 65_536)), ((7, here.st_gid, 1),)
    rootfs = DirectoryRootFS(tree, functools.partial(mapped, users, groups))
    file = rootfs.lstat("/opt/files/other")
    assert file is not None
    assert (file.uid, file.gid) == (0, 7)
    assert rootfs.resolve("/opt/files/other").final == file
    assert {f.path: f for f in rootfs.walk("/opt/files")}[file.path] == file


def python_for_everybody() -> str:
    """A Python that an ordinary user can start too; one in root's home is not."""
    places = [Path(sys.executable).resolve(), *Path(sys.executable).resolve().parents]
    if all(place.stat().st_mode & 0o001 for place in places):
        return sys.executable
    return "/usr/bin/python3"


MEMBER = """
import sys
from mlcheck.engines.base import Prepared
from mlcheck.engines.oci.engine import Oci
from mlcheck.engines.oci.dialect import DOCKER
from mlcheck.model.image_ref import ImageRef
with Oci(DOCKER).open(Prepared(ImageRef.parse(sys.argv[1]), sys.argv[2])) as image:
    print(image.run(["id", "-u"]).stdout, image.rootfs.read("/opt/files/secret", 100))
    print(image.rootfs.lstat("/opt/files/other").uid, type(image.rootfs).__name__)
"""


@pytest.mark.root_only
def test_a_member_of_dockers_group(tree: Path) -> None:
    """Who may speak to the daemon and not read its files gets them from it."""
    prepared = imported(DOCKER, tree)
    group = Path("/var/run/docker.sock").stat().st_gid
    try:
        said = subprocess.run(
            [
                *("setpriv", "--reuid=65534", "--regid=65534", f"--groups={group}"),
                *(python_for_everybody(), "-c", MEMBER, prepared.ref.text, prepared.location),
            ],
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path]),
            },
            capture_output=True,
            text=True,
        )
    finally:
        removed(DOCKER, prepared)
    assert said.returncode == 0, said.stderr
    assert (
        said.stdout
        == r"""b'0\n' b'content of secret\n'
1234 StreamedRootFS
"""
    )


# Commands for people


def test_commands_that_are_shown(
    image: OpenOci, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the copy
    shown = image.show_run(["echo", "it's", "a b"])
    assert subprocess.run(shown, shell=True, capture_output=True).stdout == b"it's a b\n"
    shown = image.show_file("head -c 7", "/opt/files/a name with ' \" and é")
    assert subprocess.run(shown, shell=True, capture_output=True).stdout == b"odd"
    shown = image.show_file("cksum", "/opt/files/plain")  # which the image does not have
    assert b"17" in subprocess.run(shown, shell=True, capture_output=True).stdout.split()
    assert len(list(tmp_path.iterdir())) == 1


# When it goes wrong


def test_container_is_killed_in_mid_command(image: OpenOci) -> None:
    image.run(["true"])
    (name,) = containers(DIALECTS[image.engine], janitor.owner())
    mark = f"{1000 + os.getpid()}.5"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(image.run, ["sleep", mark])
        assert eventually(lambda: processes(f"sleep\0{mark}") != [])
        command(image.engine, "kill", name)
        with pytest.raises(EngineError, match=r"The container of .* ended while it ran 'sleep'"):
            running.result(20)
    assert image.run(["echo", "again"]).stdout == b"again\n"


def test_container_is_killed_between_commands(image: OpenOci) -> None:
    image.run(["true"])
    (name,) = containers(DIALECTS[image.engine], janitor.owner())
    command(image.engine, "kill", name)
    assert eventually(lambda: containers(DIALECTS[image.engine], janitor.owner()) == [])
    assert image.run(["echo", "again"]).stdout == b"again\n"


def test_podman_service_ends_in_mid_command(tree: Path) -> None:
    prepared = imported(PODMAN, tree)
    mark = f"{2000 + os.getpid()}.5"
    try:
        with Oci(PODMAN).open(prepared) as image, ThreadPoolExecutor(1) as pool:
            image.run(["true"])
            (name,) = containers(PODMAN, janitor.owner())
            running = pool.submit(image.run, ["sleep", mark])
            assert eventually(lambda: processes(f"sleep\0{mark}") != [])
            host = image.client().host
            found = processes(host)  # and the shell that guards it
            (service,) = (p for p in found if Path(f"/proc/{p}/comm").read_text() == "podman\n")
            os.kill(service, signal.SIGKILL)
            with pytest.raises(EngineError, match=r"podman stopped while .* ran 'sleep'"):
                running.result(20)
            assert eventually(lambda: processes(name) == [])
            assert image.run(["echo", "again"]).stdout == b"again\n"
        # The first container was removed by its monitor, in its own time.
        assert eventually(lambda: containers(PODMAN, janitor.owner()) == [])
        assert not Path(host.removeprefix("unix://")).parent.exists()
    finally:
        removed(PODMAN, prepared)


@contextlib.contextmanager
def private_dockerd(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    host = f"unix://{directory}/docker.sock"
    roots = [f"--data-root={directory}/data", f"--exec-root={directory}/exec"]
    roots += [f"--pidfile={directory}/pid", "--bridge=none", "--iptables=false", "-H", host]
    # In a network namespace of its own: --bridge=none removes the bridge of another daemon.
    command_line = ["unshare", "--net", "dockerd", *roots]
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(command_line, stdout=log, stderr=log, start_new_session=True)
    try:
        reached = [shutil.which("docker") or "docker", "-H", host, "info"]
        assert eventually(lambda: subprocess.run(reached, capture_output=True).returncode == 0), (
            directory / "log"
        ).read_text()
        yield daemon, host
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
        for pid in processes(str(directory)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: processes(str(directory)) == [])
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{directory}/"):
                command("umount", "-l", mount)
        shutil.rmtree(directory)


@pytest.mark.root_only
def test_docker_daemon_is_killed_in_mid_command(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"{3000 + os.getpid()}.5"
    with private_dockerd(tmp_path_factory.mktemp("dockerd")) as (daemon, host):
        monkeypatch.setenv("DOCKER_HOST", host)
        prepared = imported(DOCKER, tree, host=host)
        with ThreadPoolExecutor(1) as pool, Oci(DOCKER).open(prepared) as image:
            image.run(["true"])
            (name,) = containers(DOCKER, janitor.owner())
            running = pool.submit(image.run, ["sleep", mark])
            assert eventually(lambda: processes(f"sleep\0{mark}") != [])
            os.kill(daemon.pid, signal.SIGKILL)
            with pytest.raises(EngineError, match=r"docker stopped while .* ran 'sleep'") as caught:
                running.result(20)
            assert "docker" in caught.value.remedy
            # The daemon's containers would live on without it.
            assert eventually(lambda: processes(f"sleep\0{mark}") == [])
            with pytest.raises(EngineError, match="nothing answers at"):
                image.run(["true"])
        assert eventually(lambda: [pid for pid in processes(name) if "shim" not in comm(pid)] == [])


def comm(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


# Engines that cannot be used


def test_no_server(
    dialect: Dialect, engine: Oci, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dialect.host_variable, f"unix://{tmp_path}/none")
    why = engine.unusable()
    assert why is not None
    assert f"nothing answers at unix://{tmp_path}/none: No such file" in why.what
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(tmp_path / "ended"))
    monkeypatch.setenv(dialect.host_variable, f"unix://{tmp_path}/ended")
    assert "Connection refused" in str(engine.unusable())
    monkeypatch.setenv(dialect.host_variable, "nonsense")
    assert engine.unusable() is not None


def test_nothing_is_installed(engine: Oci, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setenv("PATH", "/none")
    monkeypatch.setattr(oci_server, "_SYSTEM_PROGRAMS", "/none")
    bare = Oci(replace(engine.dialect, sockets=("/none/socket",)))
    why = str(bare.unusable())
    assert why.startswith(f"{engine.name} is not installed.")


UNUSABLE = """
import sys
from mlcheck.engines.oci import dialect as oci_dialect
from mlcheck.engines.oci.engine import Oci
print(Oci(getattr(oci_dialect, sys.argv[1].upper())).unusable())
"""


def test_socket_without_permission(dialect: Dialect, tmp_path: Path) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python_for_everybody()]
    with socket.socket(socket.AF_UNIX) as server:
        place = f"/tmp/mlcheck-test-{uuid.uuid4().hex[:8]}.sock"
        server.bind(place)
        server.listen()
        Path(place).chmod(0)
        try:
            said = subprocess.run(
                [
                    *(nobody if os.geteuid() == 0 else [sys.executable]),
                    *("-c", UNUSABLE, dialect.name),
                ],
                cwd="/",
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path]),
                    dialect.host_variable: f"unix://{place}",
                },
                capture_output=True,
                text=True,
            )
        finally:
            Path(place).unlink()
    assert said.returncode == 0, said.stderr
    assert f"this user may not open unix://{place}: Permission denied." in said.stdout
    assert dialect.forbidden in said.stdout


@contextlib.contextmanager
def stand_in(path: Path, headers: Mapping[str, str]) -> Iterator[None]:
    """A stand-in for an engine, which only answers what it is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            for name, value in {**headers, "Content-Length": "2"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (
            {"Api-Version": "1.40", "Server": "SERVER/3.4.4 (linux)"},
            "3.4.4 at .* is too old: it speaks version 1.40 of docker's API, and 1.41 is needed",
        ),
        ({"Server": "SERVER/9"}, "is too old"),
        ({"Api-Version": "x" * 10, "Server": "SERVER/9"}, "is too old"),
        (
            {"Api-Version": "1.41", "Server": "Frobnicator/1"},
            "is something else: Frobnicator",
        ),
        ({"Api-Version": "1.41"}, "is something else: it does not say what"),
        ({}, "is something else"),
    ],
)
def test_what_answers_is_not_what_it_should_be(
    dialect: Dialect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    text: str,
) -> None:
    told = {key: value.replace("SERVER", dialect.server) for key, value in headers.items()}
    monkeypatch.setenv(dialect.host_variable, f"unix://{tmp_path}/s")
    with (
        stand_in(tmp_path / "s", told),
        pytest.raises(EngineError, match=text),
        connect(dialect),
    ):
        pass


def test_podman_behind_dockers_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(PODMAN) as client:
        monkeypatch.setenv("DOCKER_HOST", client.host)
        with (
            pytest.raises(EngineError, match=r"docker: what answers at .* is podman 4\.") as caught,
            connect(DOCKER),
        ):
            pass
    assert "--engine podman" in caught.value.remedy


def test_the_docker_commands_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    create = ["docker", "--config", str(tmp_path), "context", "create", "mine"]
    command(*create, "--docker", f"host=unix://{tmp_path}/none")
    with connect(DOCKER) as client:
        usual = client.host
    assert usual != f"unix://{tmp_path}/none"
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert f"nothing answers at unix://{tmp_path}/none" in str(Oci(DOCKER).unusable())
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert "There is no docker context 'other'" in str(Oci(DOCKER).unusable())
    (meta,) = tmp_path.glob("contexts/meta/*/meta.json")
    meta.write_text("{")
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert "The docker context 'mine' is broken" in str(Oci(DOCKER).unusable())


def test_gpus_that_are_not_there(engine: Oci, prepared: Prepared) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.fail("this test is for machines without a GPU")
    with engine.open(prepared, start=Start(gpu=True)) as image:
        with pytest.raises(EngineError) as caught:
            image.run(["true"])
        expected = {
            "docker": "docker cannot give this machine's GPUs to a container: could not select",
            "podman": "podman 4.3.1 ignores a request for GPUs",
        }
        assert caught.value.what.startswith(expected[engine.name])
        assert "without --nv" in caught.value.remedy
    assert containers(engine.dialect, janitor.owner()) == []


# Frames


def test_frames_come_in_any_pieces() -> None:
    parts = [(1, b"one"), (2, b"\x01\x00\x00\x00"), (1, b""), (1, bytes(100_000)), (2, b"end")]
    data = b"".join(struct.pack(">BxxxL", number, len(text)) + text for number, text in parts)
    for size in (1, 7, 8, 9, 4096, len(data)):
        ours, theirs = socket.socketpair()
        received = {1: b"", 2: b""}
        with ThreadPoolExecutor(1) as pool, theirs:
            attached = Attached(ours)

            def write(theirs: socket.socket = theirs, size: int = size) -> None:
                step = size if size > 9 else 1000
                start = data[:60] if size <= 9 else b""
                for at in range(0, len(start), size):
                    theirs.sendall(start[at : at + size])
                for at in range(len(start), len(data), step):
                    theirs.sendall(data[at : at + step])
                theirs.shutdown(socket.SHUT_WR)

            pool.submit(write)
            with contextlib.suppress(StreamEnded):
                while True:
                    for number, text in attached.receive(10):
                        received[number] += text
            attached.close()
        assert received[1] == b"one" + bytes(100_000)
        assert received[2] == b"\x01\x00\x00\x00end"


@pytest.mark.parametrize("line", ["USER nobody-here", "USER 1000:nobody-here"])
def test_a_user_without_an_entry_is_a_finding(
    engine: Oci, dialect: Dialect, tree: Path, line: str
) -> None:
    """No container of such an image starts, which its files are read without."""
    prepared = imported(dialect, tree, line)
    try:
        with engine.open(prepared) as image:
            done = image.run(["true"])
            assert done.exit_code == 126
            assert b"nobody-here" in done.stderr
            assert image.start(["true"]).exit_code == 126
            assert image.rootfs.read("/opt/files/plain", 100) == b"content of plain\n"
    finally:
        removed(dialect, prepared)


def test_a_working_directory_that_is_a_file_is_a_finding(
    engine: Oci, dialect: Dialect, tree: Path
) -> None:
    prepared = imported(dialect, tree, "WORKDIR /opt/files/plain")
    try:
        with engine.open(prepared) as image:
            assert image.run(["true"]).exit_code == 0
            assert image.start(["true"]).exit_code == 126
    finally:
        removed(dialect, prepared)
