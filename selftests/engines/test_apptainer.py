"""The engine apptainer: isolation, SIF files, conversion, and that nothing outlives it.

What all engines have in common is tested for all of them elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlcheck.engines.apptainer.container import Container, FifoStream
from mlcheck.engines.apptainer.engine import Apptainer, OpenApptainer
from mlcheck.engines.apptainer.program import find_program
from mlcheck.engines.base import Prepared, Start
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.model.errors import EngineError, UsageError
from mlcheck.model.image_ref import ImageRef
from selftests import registry
from selftests.checkout import CHECKOUT
from selftests.images import build_sif
from selftests.waiting import eventually

VARIABLES = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}

pytestmark = pytest.mark.engine("apptainer")


@contextmanager
def opened(text: object, start: Start = Start()) -> Iterator[OpenApptainer]:
    engine = Apptainer()
    with (
        engine.prepare(ImageRef.parse(str(text))) as prepared,
        engine.open(prepared, start=start) as image,
    ):
        yield image


def sh(image: OpenApptainer, script: str, **env: str) -> str:
    """Output of a script that must succeed."""
    done = image.run(["sh", "-c", script], env=env, limit_s=20)
    assert (done.exit_code, done.stderr) == (0, b""), done
    return done.stdout.decode()


@pytest.fixture(scope="module")
def sif(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sif(tiny_rootfs, tmp_path_factory.mktemp("sif") / "tiny.sif")


@pytest.fixture(params=["directory", "sif"])
def stored(request: pytest.FixtureRequest, tiny_rootfs: Path, sif: Path) -> Path:
    """The small image, in both ways in which it can be stored."""
    return sif if request.param == "sif" else tiny_rootfs


def left_behind(mark: str) -> list[str]:
    """Processes and mounts with `mark` in them, and our temporary directories."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line]
    for directory in Path("/proc").glob("[0-9]*"):
        if int(directory.name) == os.getpid():
            continue
        try:
            text = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
            text += (directory / "mountinfo").read_bytes()
        except OSError:
            continue
        if mark.encode() in text:
            found.append(f"{directory.name}: {text[:200]!r}")
    return found


def all_left(mark: str, directory: Path) -> list[str]:
    return left_behind(mark) + [str(path) for path in directory.glob("mlcheck-*")]


def gone(mark: str, directory: Path) -> bool:
    """Whether nothing stays; what does is printed."""
    return eventually(lambda: not all_left(mark, directory)) or bool(
        print("\n".join(all_left(mark, directory)))
    )


# Isolation


def test_nothing_of_the_host_leaks_in(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    for directory in (home, cwd):
        directory.mkdir()
        (directory / "planted").write_text("host")
    # apptainer binds this by itself, wherever it is.
    with tempfile.NamedTemporaryFile(dir="/tmp", prefix="planted-") as in_tmp:
        monkeypatch.chdir(cwd)
        for name, value in {
            "HOME": str(home),
            "PYTHONPATH": "planted",
            "APPTAINERENV_X": "planted",
            "SINGULARITYENV_Y": "planted",
            "APPTAINER_BIND": f"{home}:/opt",
            "SINGULARITY_BINDPATH": f"{home}:/opt",
            "APPTAINER_NO_HOME": "0",
            "TERM": "planted",
            "http_proxy": "planted",
            "LD_PRELOAD": "",
        }.items():
            monkeypatch.setenv(name, value)
        with opened(stored) as image:
            assert "planted" not in sh(image, "env; ls / /opt /tmp /var /root 2>/dev/null || true")
            for place in (home, cwd, "/root", "/home"):
                assert image.run(["ls", f"{place}/planted"]).exit_code != 0
            assert image.run(["ls", in_tmp.name]).exit_code != 0
            assert sh(image, "echo $HOME $PWD") == "/tmp /\n"
            assert sh(image, "env | { while read l; do case $l in PATH=*) echo $l; esac; done; }")
            pids = [name for name in sh(image, "ls /proc").split() if name.isdigit()]
            assert len(pids) < 10  # no process of the host


def test_paths_that_the_administrator_binds_stay_out(root: Path) -> None:
    configured = subprocess.run(
        ["apptainer", "exec", "--userns", "--containall", root, "ls", "/etc"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    with opened(root) as image:
        names = sh(image, "ls /etc").split()
    # apptainer's own, which no option turns off; hostname comes with --hostname
    assert set(names) == {"hostname", "os-release", "resolv.conf"}
    assert {"hosts", "localtime"} & set(configured)


def test_the_image_s_network(tiny_rootfs: Path) -> None:
    with opened(tiny_rootfs) as image:
        assert "eth0" not in sh(image, "cat /proc/net/dev")
        refused = image.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9"])
        assert b"Connection refused" in refused.stderr  # the loopback interface is up
    with opened(tiny_rootfs, Start(network=True)) as image:
        assert sh(image, "cat /proc/net/dev").count("\n") > 3


def test_commands_share_tmp_and_processes(tiny_rootfs: Path) -> None:
    with opened(tiny_rootfs) as image, ThreadPoolExecutor(4) as pool:
        sh(image, "mkdir /tmp/d; echo x > /tmp/d/f; head -c 200000000 /dev/zero > /tmp/d/big")
        waiting = pool.submit(
            sh, image, "until [ -e /tmp/go ]; do sleep 0.01; done; cat /tmp/d/f; echo ok"
        )
        others = [pool.submit(sh, image, f"sleep 0.1; echo {n}") for n in range(6)]
        assert [other.result() for other in others] == [f"{n}\n" for n in range(6)]
        sh(image, "echo > /tmp/go")
        assert waiting.result(10) == "x\nok\n"
    assert not Path("/tmp/go").exists()


def test_many_commands_begin_at_once(tiny_rootfs: Path) -> None:
    with opened(tiny_rootfs) as image, ThreadPoolExecutor(16) as pool:
        barrier = threading.Barrier(16)

        def one(n: int) -> str:
            barrier.wait()
            return sh(image, f"sleep 0.3; echo {n}")

        assert list(pool.map(one, range(16))) == [f"{n}\n" for n in range(16)]


@pytest.mark.parametrize(
    "attempt",
    [
        "echo x > /etc/os-release",
        "touch /usr/new",
        "mount -o remount,rw /",
        "mount -o remount,rw,bind /proc/sys",
        "echo x > /proc/sys/kernel/hostname",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "mkdir /sys/fs/cgroup/mlcheck-new",
    ],
)
def test_image_and_machine_cannot_be_changed(tiny_rootfs: Path, attempt: str) -> None:
    with opened(tiny_rootfs) as image:
        assert image.run(["sh", "-c", attempt]).exit_code != 0
    assert not (tiny_rootfs / "usr/new").exists()


def test_signals_are_as_a_program_expects_them(tiny_rootfs: Path) -> None:
    with opened(tiny_rootfs) as image:
        assert image.run(["sh", "-c", "kill -INT $$; echo ignored"]).exit_code == 130
        assert image.run(["sh", "-c", "kill -QUIT $$; echo ignored"]).exit_code == 131


@pytest.mark.parametrize("banner", [r"banner\n", "banner", "100kB"])
def test_a_banner_never_reaches_the_answer(root: Path, banner: str) -> None:
    env = root / ".singularity.d/env"
    env.mkdir(parents=True)
    printed = "head -c 100000 /dev/zero" if banner == "100kB" else f"printf '{banner}'"
    script = env / "99-banner.sh"
    script.write_text(f"{printed}\n{printed} >&2\nexport FROM_SCRIPT=yes\n")
    script.chmod(0o755)
    with opened(root) as image:
        for _ in range(2):
            done = image.run(["sh", "-c", "echo $FROM_SCRIPT; echo err >&2"])
            assert (done.stdout, done.stderr) == (b"yes\n", b"err\n")


# SIF files


def facts(rootfs: DirectoryRootFS) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for file in rootfs.walk("/"):
        if file.path.startswith("/.singularity.d") or file.path in ADDED:
            continue
        content = rootfs.read(file.path, 10**9) if file.type == "file" else b""
        size = 0 if file.type == "directory" else file.size
        # An ordinary user's files are root's in what they build.
        own = (file.uid, file.gid) == (os.getuid(), os.getgid())
        owner = (0, 0) if own else (file.uid, file.gid)
        told = (file.type, file.mode, *owner, size, file.target)
        found[file.path] = (*told, hashlib.sha256(content).digest())
    return found


ADDED = {
    *("/.exec", "/.run", "/.shell", "/.test", "/environment", "/singularity"),
    *("/etc/hosts", "/etc/resolv.conf", "/home", "/root", "/var", "/var/tmp", "/mnt"),
}
"""What `apptainer build` puts into every image."""


def test_facts_of_a_sif_equal_those_of_its_directory(root: Path, tmp_path: Path) -> None:
    (root / "opt/link").symlink_to("/etc/os-release")
    (root / "opt/empty").touch(mode=0o600)
    (root / "opt/caf\udce9").write_bytes(os.urandom(300_000))
    os.mkfifo(root / "opt/fifo")
    (root / "opt/suid").touch()
    if os.geteuid() == 0:
        os.chown(root / "opt/suid", 123, 456)
        os.chown(root / "opt/link", 12, 34, follow_symlinks=False)
    (root / "opt/suid").chmod(0o6755)
    (root / "opt").chmod(0o1777)
    path = build_sif(root, tmp_path / "facts.sif")
    with opened(path) as image:
        sh(image, "true")  # what apptainer binds into the container must not show
        expected, found = facts(DirectoryRootFS(root)), facts(image.rootfs)
        assert found == expected
        assert image.rootfs.lstat("/proc/self") is None
        assert image.rootfs.read("/etc/resolv.conf", 0) == b""  # apptainer's has content
        assert image.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert gone(str(path), tmp_path)


def test_environment_of_a_sif(root: Path, tmp_path: Path) -> None:
    env = root / ".singularity.d/env"
    env.mkdir(parents=True)
    (env / "10-docker2singularity.sh").write_text('export LANG="${LANG:-"C.UTF-8"}"\n')
    (root / ".singularity.d/labels.json").write_text('{"label": "value"}')
    with opened(build_sif(root, tmp_path / "x.sif")) as image:
        assert image.environment.env == {"LANG": "C.UTF-8"}
        assert (image.environment.labels or {})["label"] == "value"
        assert sh(image, "echo $LANG") == "C.UTF-8\n"


def test_what_is_no_sif(tmp_path: Path, sif: Path) -> None:
    (tmp_path / "text.sif").write_text("no SIF")
    (tmp_path / "directory.sif").mkdir()
    os.mkfifo(tmp_path / "fifo.sif")
    foreign = bytearray(sif.read_bytes())
    foreign[45:47] = b"04"
    (tmp_path / "foreign.sif").write_bytes(foreign)
    for name, text in {
        "none": "there is no file",
        "text": "is no SIF file",
        "directory": "is a directory",
        "fifo": "is no SIF file",
        "foreign": "is an image for aarch64",
    }.items():
        with pytest.raises(UsageError, match=text) as caught, opened(tmp_path / f"{name}.sif"):
            pass
        assert caught.value.remedy


def test_a_damaged_sif(tmp_path: Path, sif: Path) -> None:
    damaged = tmp_path / "damaged.sif"
    content = sif.read_bytes()
    damaged.write_bytes(content[:40000] + bytes(1000))
    with opened(damaged) as image:
        with pytest.raises(EngineError, match="cannot start") as caught:
            image.run(["true"])
        assert caught.value.remedy
        with pytest.raises(EngineError, match="cannot be mounted"):
            image.rootfs  # noqa: B018
    assert gone(str(damaged), tmp_path)


# Images without a shell


@pytest.mark.parametrize("missing", ["sh", "setsid"])
def test_without_a_shell_each_command_is_a_container(root: Path, missing: str) -> None:
    (root / "usr/bin" / missing).unlink()
    (root / "opt/data").write_bytes(b"\x01neither script nor program")
    (root / "opt/data").chmod(0o755)
    mark = f"direct-{os.getpid()}-{missing}"
    with opened(root) as image:
        done = image.run(["cat"], stdin=b"x" * 1_000_000)
        assert (done.exit_code, done.stdout, done.ended) == (0, b"x" * 1_000_000, "exited")
        done = image.run(["bash", "-c", "echo $X; echo err >&2; exit 7"], env={"X": "a,$HOME b"})
        assert (done.exit_code, done.stdout) == (7, b"a,$HOME b\n")
        assert done.stderr.endswith(b"err\n")
        assert image.run(["bash", "-c", "echo $PWD"], cwd="/usr/lib").stdout == b"/usr/lib\n"
        assert image.run(["bash", "-c", "kill -9 $$"]).exit_code == 137
        assert image.run(["no-such-program"]).exit_code == 127
        assert image.run(["/opt/none"]).exit_code == 127
        assert image.run(["/opt/data"]).exit_code in (126, 127)
        assert image.run(["true"], cwd="/none").exit_code == 126
        assert image.run(["yes"], output_limit=1001).stdout == b"y\n" * 500 + b"y"
        done = image.run(["sleep", "1000"], env={"MARK": mark}, limit_s=0.5)
        assert (done.exit_code, done.ended) == (None, "timeout")
    assert gone(mark, root)


# GPUs


def test_an_engine_that_finds_no_gpu_is_an_error(tiny_rootfs: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    with opened(tiny_rootfs, Start(gpu=True)) as image:
        with pytest.raises(EngineError, match="no NVIDIA driver libraries") as caught:
            image.run(["true"])
        assert caught.value.remedy


# Conversion


def archive(root: Path, path: Path, **config: object) -> str:
    """What `docker save` writes of an image with one layer; its configuration's digest."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.add(root, arcname=".")
    diff = hashlib.sha256(layer.read_bytes()).hexdigest()
    content = json.dumps(
        {"architecture": "amd64", "os": "linux"}
        | {"config": {"Env": ["PATH=/bin", "PLANTED=a b"], "Labels": {"label": "value"}}}
        | {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]}}
        | config
    ).encode()
    digest = hashlib.sha256(content).hexdigest()
    (path.parent / "config.json").write_bytes(content)
    manifest = [{"Config": f"{digest}.json", "RepoTags": ["x:y"], "Layers": ["layer.tar"]}]
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(path, "w") as tar:
        tar.add(path.parent / "config.json", arcname=f"{digest}.json")
        tar.add(layer, arcname="layer.tar")
        tar.add(path.parent / "manifest.json", arcname="manifest.json")
    return f"sha256:{digest}"


def test_an_archive_is_unpacked_and_removed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (root / "opt/closed").mkdir()
    (root / "opt/closed/file").touch()
    (root / "opt/closed").chmod(0o555)
    digest = archive(root, tmp_path / "image.tar")
    lines: list[str] = []
    engine = Apptainer()
    ref = ImageRef.parse(f"docker-archive:{tmp_path}/image.tar")
    with engine.prepare(ref, progress=lines.append) as prepared, engine.open(prepared) as image:
        assert image.digest == digest
        assert image.environment.env == {"PATH": "/bin", "PLANTED": "a b"}
        assert sh(image, "echo $PLANTED; ls /opt/closed") == "a b\nfile\n"
        assert (image.environment.labels or {})["label"] == "value"
        assert image.show_run(["true"]).endswith(f"docker-archive:{tmp_path}/image.tar true")
    assert lines
    assert not list(temporary.iterdir())


def test_what_cannot_be_unpacked(root: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no archive")
    (tmp_path / "layout").mkdir()
    archive(root, tmp_path / "arm.tar", architecture="arm64")
    for text, words in {
        "docker-archive:none.tar": "there is no file",
        "docker-archive:text.tar": "it is damaged, or no image of this kind",
        "docker-archive:arm.tar": "is an image for arm64",
        "oci:none": "there is no directory",
        "oci:layout": "it is damaged, or no image of this kind",
        "oci-archive:text.tar": "it is damaged, or no image of this kind",
    }.items():
        kind, _, name = text.partition(":")
        with (
            pytest.raises(UsageError, match=words) as caught,
            opened(f"{kind}:{tmp_path}/{name}"),
        ):
            pass
        assert caught.value.remedy


@pytest.fixture
def layer(root: Path, tmp_path: Path) -> bytes:
    with tarfile.open(tmp_path / "layer.tar", "w:gz", compresslevel=1) as tar:
        tar.add(root, arcname=".")
    return (tmp_path / "layer.tar").read_bytes()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_an_image_of_a_registry_is_pinned(layer: bytes, home: Path, tmp_path: Path) -> None:
    with registry.running() as server:
        configs = [{"config": {"Env": [f"N={n}", "PATH=/bin"]}} for n in "12"]
        digests = [registry.push(server, "a/b", "t", [layer], config) for config in configs]
        name = f"{server.address}/a/b"
        with opened(f"{name}:t") as image:
            assert image.digest == digests[1]
            assert sh(image, "echo $N") == "2\n"
            assert image.show_run(["true"]).endswith(f"docker://{name}:t true")
        with opened(f"{name}@{digests[0]}") as image:
            assert image.digest == digests[0]
            assert sh(image, "echo $N") == "1\n"
        with pytest.raises(UsageError, match="--pull never finds none"):
            Apptainer().prepare(ImageRef.parse(f"{name}:t"), pull="never").__enter__()


def test_what_a_registry_may_answer(
    layer: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str, kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words) as caught, opened(name):
            pass
        assert str(caught.value).count("\n")

    with registry.running() as server:
        registry.push(server, "a/b", "arm", [layer], {"architecture": "arm64"})
        name = f"{server.address}/a/b"
        refused(f"{name}:none", UsageError, "the registry has no such image")
        refused(f"{server.address}/none:t", UsageError, "the registry has no such image")
        refused(f"{name}:arm", UsageError, "is an image for arm64")
        server.stop()
        refused(f"{name}:t", EngineError, "the registry cannot be reached")
    with registry.running(login=True) as server:
        digest = registry.push(server, "a/b", "t", [layer], {})
        name = f"{server.address}/a/b:t"
        refused(name, EngineError, "the registry refuses access")
        monkeypatch.setenv("APPTAINER_DOCKER_USERNAME", registry.USER)
        monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", registry.PASSWORD)
        with opened(name) as image:
            assert image.digest == digest


@pytest.mark.root_only
def test_a_full_disk(root: Path, tmp_path: Path) -> None:
    """A file system of its own that is too small, in a mount namespace of its own."""
    archive(root, tmp_path / "image.tar")
    size = (tmp_path / "image.tar").stat().st_size // 1024
    (tmp_path / "small").mkdir()
    for room, words in (size // 2, "there is no room to unpack it"), (size + 100, "disk is full"):
        mount = f"mount -t tmpfs -o size={room}k none {tmp_path}/small"
        tool = [sys.executable, "-c", CONVERT, f"docker-archive:{tmp_path}/image.tar"]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f"{mount} && exec {shlex.join(tool)}"],
            env=VARIABLES | {"TMPDIR": str(tmp_path / "small")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert words in done.stdout, done
        assert "EngineError" in done.stdout


CONVERT = """
import os, sys
from mlcheck.engines.apptainer.engine import Apptainer
from mlcheck.model.errors import MlcheckError
from mlcheck.model.image_ref import ImageRef
try:
    with Apptainer().prepare(ImageRef.parse(sys.argv[1])): pass
except MlcheckError as error:
    print(type(error).__name__, error)
print("left:", [name for name in os.listdir(os.environ["TMPDIR"]) if "mlcheck" in name])
"""


# Ends


TOOL = """
import sys, threading
from mlcheck.engines.apptainer.engine import Apptainer
from mlcheck.model.image_ref import ImageRef
print("begun", flush=True)
engine = Apptainer()
with (
    engine.prepare(ImageRef.parse(sys.argv[1])) as prepared,
    engine.open(prepared) as image,
):
    threading.Thread(target=lambda: image.rootfs.listdir("/"), daemon=True).start()
    script = ["sh", "-c", "setsid sleep 1000 & sleep 1000"]
    for _ in range(2):
        threading.Thread(target=lambda: image.run(script), daemon=True).start()
    image.run(["true"])
    image.rootfs.listdir("/")
    print("ready", flush=True)
    threading.Event().wait()
"""


@contextmanager
def tool(image: object, temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", TOOL, str(image)],
        env=VARIABLES | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"begun\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A directory whose name tells our processes from those of other tests."""
    name = tmp_path / f"own-{os.getpid()}-{random.randrange(10**9)}"
    root.rename(name)
    return name


@pytest.mark.parametrize("kind", ["directory", "sif"])
def test_kill_9_of_the_caller_leaves_nothing(own: Path, tmp_path: Path, kind: str) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    image = build_sif(own, own.with_suffix(".sif")) if kind == "sif" else own
    with tool(image, temporary) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert left_behind(own.name)
        begun = time.monotonic()
        process.kill()
        process.wait()
        assert gone(own.name, temporary)
        whole = time.monotonic() - begun + 0.5
    # During the start, at moments of all sizes
    for _ in range(8):
        with tool(image, temporary) as process:
            time.sleep(random.uniform(0, min(whole, 0.5)))
            process.kill()
            process.wait()
            assert gone(own.name, temporary)


def test_kill_9_while_an_image_is_unpacked(root: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    path = tmp_path / f"archive-{os.getpid()}.tar"
    (root / "opt/big").write_bytes(os.urandom(50_000_000))
    archive(root, path)
    for moment in (0.05, 0.2, 0.5):
        with tool(f"docker-archive:{path}", temporary) as process:
            assert eventually(lambda: list(temporary.iterdir()))
            time.sleep(moment)
            process.kill()
            process.wait()
            assert gone(path.name, temporary)


def test_two_at_once_do_not_touch_each_other(sif: Path, tmp_path: Path) -> None:
    with opened(sif) as image:
        sh(image, "echo mine > /tmp/file")
        with tool(sif, tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert sh(image, "ls /tmp") == "file\n"
            process.kill()
            process.wait()
            assert sh(image, "cat /tmp/file") == "mine\n"
            assert image.rootfs.lstat("/etc/os-release") is not None


def test_everything_ends_with_the_context(own: Path, tmp_path: Path) -> None:
    with opened(build_sif(own, own.with_suffix(".sif"))) as image:
        sh(image, "setsid sh -c 'setsid sleep 1000 & sleep 1000' >/dev/null 2>&1 &")
        image.rootfs.listdir("/")
        assert left_behind(own.name)
    assert gone(own.name, tmp_path / "none")


def test_nothing_is_left_open(sif: Path) -> None:
    def one() -> None:
        with opened(sif) as image:
            image.run(["true"])
            image.rootfs.listdir("/")

    one()
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    threads = threading.active_count()
    for _ in range(3):
        one()
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before
    assert threading.active_count() == threads


def test_the_container_dies_in_mid_run(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containers: list[Container] = []
    connect = Container.connect

    def remembered(container: Container) -> FifoStream:
        containers.append(container)
        return connect(container)

    monkeypatch.setattr(Container, "connect", remembered)
    with opened(stored) as image:
        sh(image, "true")
        timer = threading.Timer(0.3, lambda: os.kill(containers[0]._process.pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(EngineError, match="ended while it ran 'sleep'"):
            image.run(["sleep", "1000"])
        timer.join()
        assert sh(image, "echo again") == "again\n"


def test_a_command_kills_its_shell(tiny_rootfs: Path) -> None:
    with opened(tiny_rootfs) as image:
        sh(image, "echo x > /tmp/x")
        with pytest.raises(EngineError, match="ended while it ran 'sh'"):
            image.run(["sh", "-c", "kill -9 $PPID"], limit_s=10)
        assert sh(image, "cat /tmp/x") == "x\n"


def test_limits_end_the_command_alone(tiny_rootfs: Path) -> None:
    with opened(tiny_rootfs) as image:
        sh(image, "echo x > /tmp/x; setsid sleep 1000 >/dev/null 2>&1 &")
        done = image.run(["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"], limit_s=0.3)
        assert (done.exit_code, done.ended) == (None, "timeout")
        assert image.run(["yes"], output_limit=1000).ended == "output-limit"
        assert sh(image, "cat /tmp/x") == "x\n"


# Ordinary users


def python_for_all() -> str:
    """A Python that everybody may run; ours may lie in somebody's home."""
    ours = Path(sys.executable).resolve()
    closed = any(not directory.stat().st_mode & stat.S_IXOTH for directory in ours.parents)
    return "/usr/bin/python3" if closed else sys.executable


@contextmanager
def as_nobody(script: str, *arguments: object, mount: str = "true") -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="nobody-") as home:
        os.chown(home, 65534, 65534)
        argv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        argv += [python_for_all(), "-c", script, *map(str, arguments)]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f"{mount} && exec {shlex.join(argv)}"],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(CHECKOUT),
                "HOME": home,
                "TMPDIR": home,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield done.stdout
        assert not list(Path(home).glob("mlcheck-*"))


USER = """
import sys
from mlcheck.engines.apptainer.engine import Apptainer
from mlcheck.model.errors import MlcheckError
from mlcheck.model.image_ref import ImageRef
try:
    engine = Apptainer()
    with engine.prepare(ImageRef.parse(sys.argv[1])) as prepared, engine.open(prepared) as image:
        print(image.run(["id", "-u"]).stdout, image.run(["sh", "-c", "echo > /tmp/x"]).exit_code)
        print(image.run(["sh", "-c", "cat /proc/net/dev"]).stdout.count(b"eth"))
        print(image.rootfs.listdir("/etc"))
except MlcheckError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def public(tiny_rootfs: Path) -> Iterator[Path]:
    """The small image where everybody may read it."""
    directory = Path(tempfile.mkdtemp(prefix="public-"))
    try:
        directory.chmod(0o755)
        yield Path(shutil.copytree(tiny_rootfs, directory / "image", symlinks=True))
    finally:
        shutil.rmtree(directory)


@pytest.mark.root_only
def test_as_an_ordinary_user(public: Path) -> None:
    with as_nobody(USER, public) as said:
        assert said == "b'65534\\n' 0\n0\n['os-release']\n"
    archive(public, public.parent / "image.tar")
    with as_nobody(USER, f"docker-archive:{public.parent}/image.tar") as said:
        assert said.startswith("b'65534\\n' 0\n0\n")
    public.chmod(0o700)
    with as_nobody(USER, public) as said:
        assert said.startswith("UsageError")
        assert "cannot be read: Permission denied" in said


@pytest.mark.root_only
def test_a_sif_as_an_ordinary_user(public: Path, sif: Path) -> None:
    path = Path(shutil.copy(sif, public.parent / "tiny.sif"))
    for mode in (0o600, 0o666):
        # A /dev/fuse that is seen by this one process: the machine's own stays as it is.
        fuse = public.parent / f"fuse-{mode:o}"
        os.mknod(fuse, stat.S_IFCHR | mode, Path("/dev/fuse").stat().st_rdev)
        fuse.chmod(mode)
        with as_nobody(USER, path, mount=f"mount --bind {fuse} /dev/fuse") as said:
            if mode == 0o600:
                assert said.startswith("EngineError apptainer cannot start")
                assert "chmod 666 /dev/fuse" in said
            else:
                assert said.startswith("b'65534\\n' 0\n0\n['hosts', 'os-release'")


# Which program


def installed(directory: Path, name: str, version: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\necho '{version}'\n")
    (directory / name).chmod(0o755)


@pytest.mark.parametrize(
    ("programs", "name", "words"),
    [
        ({}, "apptainer", "apptainer is not installed"),
        ({"apptainer": "apptainer version 1.4.5"}, "singularity", "or use --engine apptainer"),
        ({"singularity": "apptainer version 1.4.5-2"}, "singularity", "Use --engine apptainer"),
        ({"apptainer": "apptainer version 1.1.9-1.el9"}, "apptainer", "Install apptainer 1.2"),
        ({"singularity": "singularity version 3.8.7"}, "singularity", "is too old"),
        ({"singularity": "singularity-ce version 3.10.2"}, "singularity", "is too old"),
        ({"singularity": "2.6.1-dist"}, "singularity", "does not tell a version"),
    ],
)
def test_what_is_installed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    programs: dict[str, str],
    name: str,
    words: str,
) -> None:
    for program, version in programs.items():
        installed(tmp_path, program, version)
    monkeypatch.setenv("PATH", str(tmp_path))
    find_program.cache_clear()
    try:
        why = Apptainer(name).unusable()
    finally:
        find_program.cache_clear()
    assert why is not None
    assert words in str(why)
    assert why.remedy


def test_a_machine_without_user_namespaces() -> None:
    script = "from mlcheck.engines.apptainer.engine import Apptainer; print(Apptainer().unusable())"
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "/bin/sh", "-c"),
            # Without any capability, even root is an ordinary user.
            "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all "
            + shlex.join(["--inh-caps=-all", sys.executable, "-c", script]),
        ],
        env=VARIABLES,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot start a container on this machine" in done.stdout
    assert "user namespace" in done.stdout.partition("\n")[0]
    assert "sysctl user.max_user_namespaces" in done.stdout


# What is shown


def test_commands_that_are_shown(root: Path, sif: Path) -> None:
    (root / "etc/link").symlink_to("/etc/os-release")
    own = ["--userns"]  # this machine may need it
    with opened(root) as image:
        shown = shlex.split(image.show_run(["cat", "/etc/os-release"]))
        done = subprocess.run(
            [*shown[:2], *own, *shown[2:]], capture_output=True, check=True, cwd="/"
        )
        assert done.stdout == b'NAME="Tiny"\n'
        assert image.show_file("cat", "/etc/link") == f"cat {root}/etc/os-release"
    with opened(sif) as image:
        shown = shlex.split(image.show_file("cat", "/etc/os-release"))
        done = subprocess.run(
            [*shown[:2], *own, *shown[2:]], capture_output=True, check=True, cwd="/"
        )
        assert done.stdout == b'NAME="Tiny"\n'


def test_nothing_starts_before_the_first_command(own: Path, tmp_path: Path) -> None:
    prepared = Prepared(ImageRef.parse(str(own)), str(own))
    with Apptainer().open(prepared) as image:
        assert image.environment.env == {}
        assert image.rootfs.listdir("/etc") == ["os-release"]
        assert (image.engine, image.digest) == ("apptainer", None)
        assert left_behind(own.name) == []
