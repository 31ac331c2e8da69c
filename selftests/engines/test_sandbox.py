"""The embedded engine: what commands see, what they cannot do, and that nothing outlives it."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlcheck.engines.base import Prepared, Start
from mlcheck.engines.sandbox.engine import OpenDirectory, Sandbox
from mlcheck.engines.sandbox.process import launcher
from mlcheck.model.errors import EngineError, UsageError
from mlcheck.model.image_ref import ImageRef
from selftests.checkout import CHECKOUT
from selftests.waiting import eventually

if (_why := Sandbox().unusable()) is not None:
    pytest.skip(str(_why), allow_module_level=True)


def opened(directory: Path) -> Prepared:
    """The image in a directory, ready to be opened."""
    return Prepared(ImageRef.parse(str(directory)), str(directory))


@pytest.fixture(scope="module")
def image(tiny_rootfs: Path) -> Iterator[OpenDirectory]:
    with Sandbox().open(opened(tiny_rootfs)) as image:
        yield image


@pytest.fixture
def other_rootfs(tiny_rootfs: Path, tmp_path: Path) -> Path:
    """The same under a name of its own, by which its processes can be told."""
    (tmp_path / "other").mkdir()
    for entry in tiny_rootfs.iterdir():
        if entry.is_symlink():
            (tmp_path / "other" / entry.name).symlink_to(entry.readlink())
    subprocess.run(["cp", "-a", tiny_rootfs / "usr", tmp_path / "other"], check=True)
    return tmp_path / "other"


def sh(image: OpenDirectory, script: str, **options: float) -> str:
    """Output of a script that must succeed."""
    done = image.run(["sh", "-c", script], limit_s=options.get("limit_s", 20))
    assert (done.exit_code, done.stderr) == (0, b""), done
    return done.stdout.decode()


def processes(mark: str) -> list[int]:
    """Every process of this machine with `mark` in its arguments or environment."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            text = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found


def ended(mark: str) -> bool:
    return eventually(lambda: processes(mark) == [])


# What comes back


def test_output_is_exact(image: OpenDirectory) -> None:
    script = r"printf 'no newline'; printf '\000\377\r\n\001' >&2; exit 7"
    done = image.run(["sh", "-c", script])
    assert done.argv == ("sh", "-c", script)
    assert (done.exit_code, done.ended) == (7, "exited")
    assert (done.stdout, done.stderr) == (b"no newline", b"\x00\xff\r\n\x01")
    assert done.seconds > 0


def test_much_output_on_both_streams(image: OpenDirectory) -> None:
    size = 50 * 1024 * 1024
    done = image.run(
        ["sh", "-c", f"head -c {size} /dev/urandom & head -c {size} /dev/zero >&2; wait"]
    )
    assert (done.exit_code, len(done.stdout), done.stderr) == (0, size, bytes(size))


def test_stdin(image: OpenDirectory) -> None:
    assert image.run(["cat"]).stdout == b""
    content = os.urandom(3 * 1024 * 1024)
    assert image.run(["cat"], stdin=content).stdout == content
    assert image.run(["true"], stdin=content).exit_code == 0
    assert sh(image, "readlink /proc/self/fd/0") == "/dev/null\n"


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_exit_codes(image: OpenDirectory, script: str, code: int) -> None:
    done = image.run(["sh", "-c", script])
    assert (done.exit_code, done.ended) == (code, "exited")


@pytest.fixture(scope="module")
def broken(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenDirectory]:
    """An image whose programs cannot be started."""
    root = tmp_path_factory.mktemp("broken") / "image"
    subprocess.run(["cp", "-a", tiny_rootfs, root], check=True)
    for name, content in {
        "script": b"#!/no/such/python -I\n",
        "data": b"neither script nor ELF",
        "plain": b"#!/bin/sh\n",
        "indirect": b"#!/bin/sh\necho $0 $1\n",
    }.items():
        (root / "opt" / name).write_bytes(content)
        (root / "opt" / name).chmod(0o644 if name == "plain" else 0o755)
    (root / "opt/nowhere").symlink_to("/none")
    program = (root / "usr/bin/true").read_bytes()
    assert b"/lib64/ld-linux-x86-64.so.2" in program or b"/lib/ld-" in program
    program = program.replace(b"/lib64/ld-", b"/lib64/xx-").replace(b"/lib/ld-", b"/lib/xx-")
    (root / "opt/elf").write_bytes(program)
    (root / "opt/elf").chmod(0o755)
    with Sandbox().open(opened(root)) as image:
        yield image


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("no-such-program", 127, "no-such-program: not found on PATH=/usr/local/sbin:"),
        ("/opt/none", 127, "/opt/none: not found"),
        ("/opt/nowhere", 127, "/opt/nowhere: is a symlink that leads nowhere"),
        ("/opt/script", 127, "/opt/script: its interpreter does not exist (#!/no/such/python -I)"),
        ("/opt/elf", 127, "/opt/elf: its interpreter does not exist (the dynamic loader"),
        ("/opt/data", 126, "/opt/data: cannot be executed: Exec format error"),
        ("/opt/plain", 126, "/opt/plain: is not executable"),
        ("/opt", 126, "/opt: is no regular file"),
        ("nul\0", 126, "embedded null byte"),
    ],
)
def test_what_cannot_be_started(broken: OpenDirectory, program: str, code: int, text: str) -> None:
    done = broken.run([program])
    assert (done.exit_code, done.ended, done.stdout) == (code, "exited", b"")
    assert done.stderr.decode().startswith("mlcheck: ")
    assert text in done.stderr.decode()


def test_path_cwd_and_arguments(broken: OpenDirectory) -> None:
    done = broken.run(["indirect", "a b"], env={"PATH": "/none:/opt:/bin"})
    assert done.stdout == b"/opt/indirect a b\n"
    assert broken.run(["./indirect"], cwd="/opt").exit_code == 0
    assert broken.run(["sh", "-c", "echo $PWD"], cwd="/usr/lib").stdout == b"/usr/lib\n"
    done = broken.run(["true"], cwd="/none")
    assert (done.exit_code, done.stderr) == (
        126,
        b"mlcheck: cannot start in /none: there is no such directory\n",
    )
    assert b"illegal environment variable" in broken.run(["true"], env={"A=B": "x"}).stderr
    assert b"Argument list too long" in broken.run(["true", "x" * 3_000_000]).stderr
    strange = os.fsdecode(b"caf\xe9")
    done = broken.run(["sh", "-c", 'printf %s "$1$X"', "sh", strange], env={"X": strange})
    assert done.stdout == b"caf\xe9" * 2


# Limits


def test_a_time_limit_ends_the_whole_group(image: OpenDirectory) -> None:
    mark = f"limit-{os.getpid()}"
    stubborn = "trap '' TERM INT HUP"
    script = f'{stubborn}; sh -c "{stubborn}; sleep 1000 & sleep 1000" & echo started; sleep 1000'
    done = image.run(["sh", "-c", script], env={"MARK": mark}, limit_s=0.5)
    assert (done.exit_code, done.ended, done.stdout) == (None, "timeout", b"started\n")
    assert ended(mark)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_endless_output_is_cut(image: OpenDirectory, stream: str) -> None:
    done = image.run(["sh", "-c", f"yes >&{stream}"], output_limit=1_000_001)
    assert (done.exit_code, done.ended) == (None, "output-limit")
    assert (done.stdout if stream == "1" else done.stderr) == b"y\n" * 500_000 + b"y"


def test_output_up_to_the_limit_is_fine(image: OpenDirectory) -> None:
    done = image.run(["head", "-c", "1000", "/dev/zero"], output_limit=1000)
    assert (done.exit_code, len(done.stdout)) == (0, 1000)
    done = image.run(["head", "-c", "1001", "/dev/zero"], output_limit=1000)
    assert (done.ended, len(done.stdout)) == ("output-limit", 1000)


@pytest.mark.slow
def test_a_background_process_does_not_hold_up_the_answer(image: OpenDirectory) -> None:
    mark = f"background-{os.getpid()}"
    done = image.run(["sh", "-c", "sleep infinity & echo done; exit 3"], env={"MARK": mark})
    assert (done.exit_code, done.ended, done.stdout) == (3, "exited", b"done\n")
    assert ended(mark)


def test_late_output_of_a_process_substitution(image: OpenDirectory) -> None:
    done = image.run(["bash", "-c", "echo late > >(sleep 0.2; cat)"])
    assert (done.exit_code, done.stdout) == (0, b"late\n")


def test_commands_run_side_by_side(image: OpenDirectory) -> None:
    def one(n: int) -> bytes:
        waiting = "until set -- /tmp/here-*; [ $# = 16 ]; do sleep 0.05; done"
        script = f"touch /tmp/here-{n}; {waiting}; seq {n} {n + 5000}"
        return image.run(["sh", "-c", script]).stdout

    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(one, range(16)))
    for n, output in enumerate(outputs):
        assert output.split() == [b"%d" % number for number in range(n, n + 5001)]


# What a command sees, and what it cannot do


def test_no_host_file_is_visible(image: OpenDirectory) -> None:
    names = "bin dev etc lib lib64 opt proc sys tmp usr"
    assert " ".join(sh(image, "ls /").split()) == names
    assert image.run(["ls", "/root"]).exit_code != 0
    assert sh(image, "ls /etc") == "os-release\n"
    assert image.run(["cat", "/etc/shadow"]).exit_code != 0
    for way in ("/proc/1/root/etc/shadow", "/proc/1/cwd/etc/shadow", "/../../etc/shadow"):
        assert image.run(["cat", way]).stdout == b""
    assert image.run(["ls", str(CHECKOUT)]).exit_code != 0


def test_first_process_cannot_be_looked_into(image: OpenDirectory) -> None:
    for name in ("environ", "mem", "maps", "fd/0", "exe"):
        assert image.run(["cat", f"/proc/1/{name}"]).stdout == b""
    for name in ("fd/0", "fd/3", "fd/4", "cwd", "ns/mnt"):
        assert image.run(["readlink", f"/proc/1/{name}"]).stdout == b""
    for number in ("TERM", "INT", "KILL", "CHLD", "HUP", "STOP"):
        image.run(["sh", "-c", f"kill -{number} 1"])
    assert sh(image, "echo alive") == "alive\n"


def test_no_host_process_is_visible(image: OpenDirectory) -> None:
    pids = [name for name in sh(image, "ls /proc").split() if name.isdigit()]
    assert "1" in pids
    assert len(pids) <= 4  # the first process, sh, ls, and one that may just be ending


def test_no_file_descriptor_is_inherited(image: OpenDirectory) -> None:
    assert sh(image, "ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is ls' own


def test_environment_is_the_image_s_alone(
    tiny_rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "CONDA_PREFIX", "MARK"):
        monkeypatch.setenv(name, str(tmp_path))
    with Sandbox().open(opened(tiny_rootfs)) as image:
        lines = image.run(["env"], env={"X": "1"}).stdout.decode().splitlines()
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert sorted(lines) == ["HOME=/tmp", path, "X=1"]


def test_environment_of_the_image(tiny_rootfs: Path, tmp_path: Path) -> None:
    root = tmp_path / "image"
    subprocess.run(["cp", "-a", tiny_rootfs, root], check=True)
    env = root / ".singularity.d/env"
    env.mkdir(parents=True)
    lines = 'export PATH="/opt/conda/bin:/bin"\nexport LANG="${LANG:-"C.UTF-8"}"\n'
    (env / "10-docker2singularity.sh").write_text(lines)
    with Sandbox().open(opened(root)) as image:
        found = dict(line.split("=", 1) for line in sh(image, "env").splitlines())
        changed = image.run(["sh", "-c", "echo $LANG $HOME"], env={"LANG": "C", "HOME": "/opt"})
    assert found["PATH"] == "/opt/conda/bin:/bin"
    assert found["LANG"] == "C.UTF-8"
    assert changed.stdout == b"C /opt\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "echo x > /etc/os-release",
        "touch /usr/new",
        "touch /new",
        "mkdir /dev/new",
        "mount -o remount,rw /usr",
        "mount -o remount,rw,bind /usr",
        "mount -o remount,rw /",
        "mount -o remount,rw /proc",
        "mount -t tmpfs none /opt",
        "mount -t proc none /opt",
        "mount --bind /usr /opt",
        "unshare --mount true",
        "unshare --user --map-root-user mount -o remount,rw,bind /usr",
        "unshare --user true",
        "echo x > /proc/sys/kernel/hostname",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1000 > /proc/sys/user/max_user_namespaces",
        "echo b > /proc/sysrq-trigger",
    ],
)
def test_image_and_proc_are_not_writable(
    image: OpenDirectory, tiny_rootfs: Path, attempt: str
) -> None:
    assert image.run(["sh", "-c", attempt]).exit_code != 0
    assert (tiny_rootfs / "etc/os-release").read_text() == 'NAME="Tiny"\n'
    assert not (tiny_rootfs / "usr/new").exists()


def test_capabilities(image: OpenDirectory) -> None:
    lines = sh(image, "while read a b; do echo $a $b; done < /proc/self/status").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    # linux/capability.h: SETPCAP, NET_ADMIN, NET_RAW, SYS_MODULE, SYS_RAWIO, SYS_PTRACE,
    # SYS_ADMIN, SYS_RESOURCE, MKNOD, MAC_ADMIN, SYSLOG, BPF
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        held = int(status[name], 16)
        for number in (8, 12, 13, 16, 17, 19, 21, 24, 27, 33, 34, 39):
            assert not held >> number & 1, f"{name} has capability {number}"
    assert status["NoNewPrivs"].strip() == "1"


def test_tmp_and_dev(image: OpenDirectory) -> None:
    mark = f"mlcheck-{os.getpid()}"
    assert sh(image, f"echo x > /tmp/{mark}; cat /tmp/{mark}; echo y > /dev/shm/{mark}") == "x\n"
    assert not Path("/tmp", mark).exists()
    assert not Path("/dev/shm", mark).exists()
    assert sh(image, "echo x > /dev/null; head -c 3 /dev/zero; ls /dev/fd/ >/dev/null") == "\0\0\0"
    devices = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(sh(image, "ls /dev").split()) == devices
    for line in sh(image, "cat /proc/self/mountinfo").splitlines():
        if " tmpfs " in line:
            assert "size=" in line  # of all memory that commands can fill by writing


def test_network_only_when_asked(image: OpenDirectory, tiny_rootfs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"exec 3<>/dev/tcp/127.0.0.1/{server.getsockname()[1]}"
        # Refused, not "unreachable": the loopback interface is up.
        assert b"Connection refused" in image.run(["bash", "-c", connect]).stderr
        assert "eth" not in sh(image, "cat /proc/net/dev")
        with Sandbox().open(opened(tiny_rootfs), start=Start(network=True)) as online:
            assert online.run(["bash", "-c", connect]).exit_code == 0


def test_an_image_with_one_program_and_nothing_else(tiny_rootfs: Path, tmp_path: Path) -> None:
    root = tmp_path / "image"
    (root / "bin").mkdir(parents=True)
    (root / "bin/cat").write_bytes((tiny_rootfs / "usr/bin/cat").read_bytes())
    (root / "bin/cat").chmod(0o755)
    subprocess.run(["cp", "-a", *tiny_rootfs.glob("lib*"), root], check=True)
    subprocess.run(["cp", "-a", tiny_rootfs / "usr", root], check=True)
    for name in ("sh", "bash"):
        (root / "usr/bin" / name).unlink()
    (root / "file").write_text("at the root")
    (root / "spaced name").mkdir()
    (root / "spaced name/file").write_text("spaced")
    (root / "tmp").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    with Sandbox().open(opened(root)) as image:
        assert image.run(["sh"]).exit_code == 127
        assert image.run(["cat", "/file"]).stdout == b"at the root"
        assert image.run(["cat", "/spaced name/file"]).stdout == b"spaced"
        assert image.run(["cat", "/proc/self/comm"]).stdout == b"cat\n"
        assert image.run(["cat", "/dev/null", "/tmp"]).stderr.endswith(b"Is a directory\n")


# Ends


@pytest.mark.slow
def test_everything_ends_with_the_context(other_rootfs: Path) -> None:
    mark = f"escaped-{os.getpid()}"
    bomb = "i=0; while [ $i -lt 40 ]; do setsid sh -c 'sleep 1000 & sleep 1000' & i=$((i+1)); done"
    with Sandbox().open(opened(other_rootfs)) as image:
        image.run(["sh", "-c", bomb + "; exit 0"], env={"MARK": mark})
        assert processes(mark)  # they left the command's process group
    assert processes(mark) == []
    assert processes(str(other_rootfs)) == []


def test_orphans_are_reaped(other_rootfs: Path) -> None:
    with Sandbox().open(opened(other_rootfs)) as image:
        sh(image, "for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep 0.01 &) ; done; sleep 0.5")
        assert len([name for name in sh(image, "ls /proc").split() if name.isdigit()]) <= 4


TOOL = """
import sys, threading
from mlcheck.engines.sandbox.engine import Sandbox
from mlcheck.model.image_ref import ImageRef
ref = ImageRef.parse(sys.argv[1])
with Sandbox().prepare(ref) as prepared, Sandbox().open(prepared) as image:
    script = ["sh", "-c", "setsid sleep 1000 & sleep 1000"]
    run = lambda: image.run(script, env={"MARK": sys.argv[2]})
    for _ in range(3):
        threading.Thread(target=run, daemon=True).start()
    image.run(["true"])
    FORK
    print("ready", flush=True)
    threading.Event().wait()
"""
# A copy of the caller that holds all its files and outlives it.
FORK = "import os, time; os.fork() or time.sleep(1000)"


@pytest.mark.parametrize("fork", ["", FORK])
def test_kill_9_of_the_caller_leaves_nothing(other_rootfs: Path, fork: str) -> None:
    mark = f"killed-{os.getpid()}-{bool(fork)}"
    tool = subprocess.Popen(
        [sys.executable, "-c", TOOL.replace("FORK", fork), str(other_rootfs), mark],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert tool.stdout is not None
    try:
        with tool.stdout:
            assert tool.stdout.readline() == b"ready\n"
        inside = f"MARK={mark}"
        assert len(processes(inside)) >= 6
        tool.kill()
        tool.wait()
        assert ended(inside)
    finally:
        os.killpg(tool.pid, signal.SIGKILL) if fork else tool.kill()
        tool.wait()
    assert ended(mark)
    assert ended(str(other_rootfs))


def first_process(directory: Path) -> int:
    """The sandbox's PID 1, as this machine numbers it."""
    (found,) = (
        pid
        for pid in processes(str(directory))
        if Path(f"/proc/{pid}/comm").read_text().startswith("python")
    )
    return found


def test_first_process_dies_in_mid_run(other_rootfs: Path) -> None:
    with Sandbox().open(opened(other_rootfs)) as image:
        image.run(["true"])
        timer = threading.Timer(0.3, lambda: os.kill(first_process(other_rootfs), signal.SIGKILL))
        timer.start()
        with pytest.raises(EngineError, match="ended while it ran 'sleep'"):
            image.run(["sleep", "infinity"])
        assert image.run(["echo", "again"]).stdout == b"again\n"
    assert processes(str(other_rootfs)) == []


def test_closing_while_a_command_runs(other_rootfs: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with Sandbox().open(opened(other_rootfs)) as image:
            image.run(["true"])
            running = pool.submit(image.run, ["sleep", "1000"])
            time.sleep(0.2)
        with pytest.raises(EngineError, match="was closed while it ran 'sleep'"):
            running.result(5)
    assert processes(str(other_rootfs)) == []


def test_nothing_is_left_open(other_rootfs: Path) -> None:
    gc.collect()  # what other tests left behind
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    threads = threading.active_count()
    for _ in range(3):
        with Sandbox().open(opened(other_rootfs)) as image:
            image.run(["true"])
    del image
    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before
    assert threading.active_count() == threads


# Opening and showing


def test_nothing_starts_before_the_first_command(other_rootfs: Path) -> None:
    with Sandbox().open(opened(other_rootfs)) as image:
        assert image.rootfs.listdir("/") == sorted(path.name for path in other_rootfs.iterdir())
        assert image.environment.env == {}
        assert (image.engine, image.digest) == ("sandbox", None)
        assert processes(str(other_rootfs)) == []


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "home").mkdir()
    for name, text in {
        "none": "there is no directory",
        "file": "is a file, not a directory",
        "home": "holds no image: it has none of bin, usr, etc, opt",
    }.items():
        with (
            pytest.raises(UsageError, match=text) as caught,
            Sandbox().prepare(opened(tmp_path / name).ref),
        ):
            pass
        assert caught.value.remedy


def test_commands_that_are_shown(tiny_rootfs: Path, tmp_path: Path) -> None:
    root = tmp_path / "it's"
    (root / "etc").mkdir(parents=True)
    (root / "etc/real").write_text("content")
    (root / "etc/link").symlink_to("/etc/real")
    (root / "etc/shadow-link").symlink_to("/../etc/shadow")
    with Sandbox().open(opened(root)) as image:
        shown = image.show_run(["python", "-c", "print('a b')"])
        expected = ["mlcheck", "exec", str(root), "--", "python", "-c", "print('a b')"]
        assert shlex.split(shown) == expected
        shown = image.show_file("cat", "/etc/link")
        assert subprocess.run(shown, shell=True, capture_output=True).stdout == b"content"
        assert shlex.split(image.show_file("cat", "/etc/shadow-link"))[1] == f"{root}/etc/shadow"
        listed = shlex.split(image.show_file("ls -l", "/etc/shadow-link"))[2:]
        assert listed == [f"{root}/etc/shadow-link", f"{root}/etc/shadow"]


def test_the_other_launcher(other_rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcheck.engines.sandbox import process as sandbox_process

    bwrap = sandbox_process._LAUNCHERS[-1]
    monkeypatch.setattr(sandbox_process, "_LAUNCHERS", (bwrap,))
    launcher.cache_clear()
    try:
        why = Sandbox().unusable()
        if why is not None:
            assert "bwrap is not installed" in why.what
            pytest.skip(str(why))
        with Sandbox().open(opened(other_rootfs)) as image:
            assert sh(image, "ls /proc/self/fd").split() == ["0", "1", "2", "3"]
            assert image.run(["touch", "/usr/new"]).exit_code != 0
        assert processes(str(other_rootfs)) == []
    finally:
        launcher.cache_clear()


UNUSABLE = "from mlcheck.engines.sandbox.engine import Sandbox; print(Sandbox().unusable())"


def why_unusable(before: str) -> str:
    """What a tool says that is started after the shell command `before`."""
    script = f"{before} && exec {shlex.join([sys.executable, '-c', UNUSABLE])}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "/bin/sh", "-c", script],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_why_a_machine_cannot_run_commands() -> None:
    missing = why_unusable("PATH=/none")
    assert "unshare is not installed; bwrap is not installed" in missing
    assert "apt install" in missing
    forbidden = why_unusable("echo 0 > /proc/sys/user/max_user_namespaces")
    assert "No space left on device" in forbidden
    assert "sysctl user.max_user_namespaces=" in forbidden


@pytest.mark.root_only
def test_a_mount_that_nobody_inside_can_reach(other_rootfs: Path) -> None:
    """As those of docker's containers in the directory "/" are for an ordinary user."""
    private = other_rootfs / "opt/private"
    (private / "mount").mkdir(parents=True)
    closed = f"chown 65534 {private} && chmod 700 {private}"
    tool = [sys.executable, "-m", "mlcheck.cli", "exec", str(other_rootfs), "--", "echo", "hi"]
    script = f"mount -t tmpfs none {private}/mount && {closed} && exec {shlex.join(tool)}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"hi\n"), done.stderr
