"""What an image must not reach from inside: tried with things that the test itself has made."""

from __future__ import annotations

import errno
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.engines.base import OpenImage, Start
from mlcheck.engines.limits import Limits
from mlcheck.machine import pid_limit
from mlcheck.model.image_ref import ImageRef
from selftests.images import copy_programs, each_engine

_WITH_A_KEY = """
import ctypes, subprocess, sys
libc = ctypes.CDLL(None)
libc.syscall(250, 1, None)  # keyctl: join a session keyring of our own
key = libc.syscall(248, b"user", sys.argv[1].encode(), b"secret", 6, -3)  # add_key: to that
libc.syscall(250, 5, key, 0x3f000000)  # keyctl: only for those who have the keyring
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""
"""Runs a command with a key in its session keyring; the numbers are those of x86_64."""


@pytest.mark.engine("apptainer")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls of x86_64")
def test_the_callers_keyring_is_not_the_images(tmp_path: Path, tiny_rootfs: Path) -> None:
    root = tmp_path / "small:v1"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    copy_programs(root, ["cat"])

    def keys(*before: str) -> str:
        argv = [sys.executable, "-c", _WITH_A_KEY, tmp_path.name, *before, "cat", "/proc/keys"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    if tmp_path.name not in keys():
        pytest.skip("this kernel has no keyrings for this user")
    said = keys(sys.executable, "-m", "mlcheck.cli", "exec", "--engine=apptainer", str(root), "--")
    assert "keyring" in said
    assert tmp_path.name not in said


# Numbers of system calls on x86_64 and aarch64.
_CALLS = {
    "socket": (41, 198),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "pivot_root": (155, 41),
    "swapon": (167, 224),
    "settimeofday": (164, 170),
    "mknodat": (259, 33),
    "init_module": (175, 105),
}
_AF_VSOCK, _NEWNS, _NEWUSER, _BLOCK = 40, 0x20000, 0x10000000, 0o60000

_FORBIDDEN = {
    "a socket of a virtual machine": f"socket, {_AF_VSOCK}, 1, 0",
    "a key": "add_key, $user, $name, $name, 4, -2",
    "a key of another": "request_key, $user, $name, 0, 0",
    "the session keyring": "keyctl, 0, -3, 0",
    "performance events": "perf_event_open, 0, 0, -1, -1, 0",
    "a program in the kernel": "bpf, 5, $name, 4",
    "page faults in user space": "userfaultfd, 0",
    "an io_uring": "io_uring_setup, 1, 0",
    "a mount": "mount, $name, $tmp, $tmpfs, 0, 0",
    "an unmount": "umount2, $proc, 2",
    "a mount namespace": f"unshare, {_NEWNS}",
    "another root": "pivot_root, $tmp, $tmp",
    "swap space": "swapon, $name, 0",
    "the clock": "settimeofday, 0, 0",
    "a disk": f"mknodat, -100, $disk, {_BLOCK | 0o600}, 0x800",
    "a kernel module": "init_module, $name, 0, $name",
}
"""System calls that must be refused before anything else about them is found to be wrong."""

_LEFT_TO_THE_ENGINE = {
    "docker": {"a socket of a virtual machine", "an io_uring"},
    "podman": {"a socket of a virtual machine", "an io_uring", "the session keyring"},
}
"""What not every version's own filter refuses: docker's does since 23 and 25. podman gives a
container a keyring of its own."""

_FILES = (
    *("sys/kernel/core_pattern", "sys/kernel/hostname", "sys/vm/drop_caches", "sysrq-trigger"),
    *("irq/default_smp_affinity", "mtrr", "kcore", "kmsg"),
)

_PROBE = r"""
($user, $name, $tmp, $tmpfs, $proc, $disk) =
    ("user\0", "mlcheck\0", "/tmp\0", "tmpfs\0", "/proc\0", "/tmp/disk\0");
sub told { printf "%s\t%d\n", @_ }
"""


@pytest.fixture(params=each_engine("sandbox", "docker", "podman", "apptainer"))
def image(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Iterator[OpenImage]:
    """A small image with a program that can ask the kernel for anything."""
    way: str = request.param
    copy_programs(root, ["perl", "cat"])
    text = str(root)
    if way in ("docker", "podman"):
        text = f"mlcheck-selftest-{uuid.uuid4().hex[:8]}/isolation"
        tar = tmp_path / "image.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(tar), "."], check=True)
        subprocess.run([way, "import", str(tar), text], check=True, capture_output=True)
        request.addfinalizer(
            lambda: subprocess.run([way, "rmi", "-f", text], check=True, capture_output=True)
        )
    start = Start(limits=Limits(memory=256 << 20, processes=64))
    with select.open_image(ImageRef.parse(text), way, start=start) as opened:
        yield opened


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="numbers of other system calls"
)
def test_what_no_command_can_have(image: OpenImage) -> None:
    column = platform.machine() == "aarch64"
    lines = []
    for what, call in _FORBIDDEN.items():
        name, _, arguments = call.partition(", ")
        number = _CALLS[name][column]
        lines.append(f"told '{what}', syscall({number}, {arguments}) < 0 ? $! + 0 : 0;")
    for file in _FILES:
        # One that is masked is /dev/null.
        opened = f"open($f, '+<', '/proc/{file}')"
        lines.append(f"told '{file}', !{opened} ? $! + 0 : -c $f ? {errno.EPERM} : 0;")
    done = image.run(["perl", "-e", _PROBE + "\n".join(lines)])
    assert done.exit_code == 0, done.stderr
    told = dict(line.split("\t") for line in done.stdout.decode().splitlines())
    assert set(told) == {*_FORBIDDEN, *_FILES}
    errors = {what: int(error) for what, error in told.items()}
    refused = {errno.EPERM, errno.EACCES, errno.ENOSYS}
    had = {what for what in _FORBIDDEN if errors[what] not in refused}
    assert had - _LEFT_TO_THE_ENGINE.get(image.engine, set()) == set(), errors
    assert {file for file in _FILES if errors[file] == 0} == set()

    status = image.run(["cat", "/proc/self/status"]).stdout.decode()
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert int(fields["CapBnd"], 16) & ~_CAPABILITIES == 0
    servers = image.run(["cat", "/etc/resolv.conf"]).stdout.decode().split()
    assert {*servers} <= {"nameserver", "127.0.0.1", "search", "."}

    # Neither the machine nor the next command suffers.
    hog = image.run(["perl", "-e", '$_ = "x" x (1 << 30); sleep 60'], limit_s=60)
    assert (hog.exit_code, b"--limit-memory" in hog.stderr) == (137, True), hog
    if image.engine == "apptainer":  # whose directories in memory have no limit of their own
        filled = image.run(["sh", "-c", "head -c 300000000 /dev/zero >/tmp/zeros; exec sleep 60"])
        assert b"--limit-memory" in filled.stderr, filled
    if image.engine in ("docker", "podman"):  # no more processes than the limit, but until then
        assert image.run(_BOMB, limit_s=2).ended == "timeout"
    else:
        bomb = image.run(_BOMB if pid_limit.is_of_namespaces() else _SLOW_BOMB, limit_s=60)
        assert (bomb.exit_code, b"--limit-processes" in bomb.stderr) == (137, True), bomb
    assert image.run(["cat", "/proc/self/comm"]).stdout == b"cat\n"


_FUSSY = """#!/bin/sh
for word; do
  case $before in -b | --bundle) bundle=$word ;; esac
  before=$word
done
if [ -n "$bundle" ] && grep -q '"memory":{"limit"' "$bundle/config.json"; then
  echo 'the requested cgroup controller `memory` is not available' >&2
  exit 1
fi
exec runc "$@"
"""
"""Stands in for crun of an ordinary user whom systemd has given no cgroup; the words are crun's."""


@pytest.mark.root_only
@pytest.mark.engine("podman")
@pytest.mark.parametrize("shell", [True, False])
def test_without_cgroups_commands_run_without_limits(
    shell: bool, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "fussy"
    runtime.write_text(_FUSSY)
    runtime.chmod(0o755)
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]\n'
        f'[engine]\nruntime = "fussy"\n[engine.runtimes]\nfussy = ["{runtime}"]\n'
    )
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    if not shell:
        (root / "usr/bin/sh").unlink()
    name = f"mlcheck-selftest-{uuid.uuid4().hex[:8]}/fussy"
    tar = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(tar), "."], check=True)
    subprocess.run(["podman", "import", str(tar), name], check=True, capture_output=True)
    try:
        with select.open_image(ImageRef.parse(name), "podman") as image:
            assert image.run(["echo", "ran"]).stdout == b"ran\n"
            assert image.run(["echo", "again"]).stdout == b"again\n"
    finally:
        subprocess.run(["podman", "rmi", "-f", name], check=True, capture_output=True)


_BOMB = ["perl", "-e", "for (;;) { fork // sleep 60 }"]
_SLOW_BOMB = ["perl", "-e", "fork || sleep 60 for 1 .. 200; sleep 60"]
"""For a kernel that keeps no limit in a PID namespace: a bomb may outrun who counts, and takes the
machine's processes from the tests beside this one."""

_CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10, 13, 18))
