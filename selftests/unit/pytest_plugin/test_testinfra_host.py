"""testinfra's `host` over the channel of an open image. The same on all engines, so that the
modules are tried on one here; test_engines.py runs the channel itself on each."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from mlcheck import reference
from mlcheck.pytest_plugin import testinfra_host as mlcheck_host
from selftests.images import copy_programs, opened, write


@pytest.fixture(scope="module")
def root() -> Path:
    return reference.build("ml-pyroot")


@pytest.fixture(scope="module")
def host(root: Path) -> Iterator[Host]:
    with opened(root) as image:
        yield mlcheck_host.connect(image)


@pytest.mark.slow
def test_file(host: Host, root: Path) -> None:
    release = host.file("/etc/os-release")
    assert release.exists
    assert release.is_file
    assert release.content_string == (root / "etc/os-release").read_text()
    assert release.size == (root / "etc/os-release").stat().st_size
    assert release.mode == stat.S_IMODE((root / "etc/os-release").stat().st_mode)
    assert release.contains("ID=")
    assert not host.file("/etc/no such file").exists
    assert host.file("/bin/sh").is_symlink or host.file("/bin").is_symlink
    assert "python3" in host.file("/opt/conda/bin").listdir()


@pytest.mark.slow
def test_a_check_can_fail(host: Host) -> None:
    assert not host.file("/etc/os-release").is_directory
    assert not host.exists("no-such-program")
    assert host.run("exit 7").rc == 7
    with pytest.raises(AssertionError, match="Unexpected exit code 3"):
        host.check_output("exit 3")


@pytest.mark.slow
def test_command_with_arguments(host: Host) -> None:
    done = host.run("printf '%%s|' %s %s; echo err >&2", "a b", "; touch /x")
    assert (done.rc, done.stdout, done.stderr) == (0, "a b|; touch /x|", "err\n")
    assert host.run("printf '\\377\\000'").stdout_bytes == b"\xff\x00"
    assert host.run("printf '\\377'").stdout.encode("utf-8", "surrogateescape") == b"\xff"


@pytest.mark.slow
def test_a_limit(host: Host) -> None:
    done = host.run("echo before; sleep 100", limit_s=0.2)
    assert (done.rc, done.stdout) == (124, "before\n")
    assert "ended by a limit (timeout): echo before; sleep 100" in done.stderr


@pytest.mark.slow
def test_modules_on_the_reference_image(host: Host, root: Path) -> None:
    assert host.system_info.type == "linux"
    words = dict(
        line.split("=", 1) for line in (root / "etc/os-release").read_text().split("\n") if line
    )
    assert host.system_info.distribution == words["ID"].strip('"')
    assert host.environment()["PATH"].startswith("/opt/conda/bin")
    assert host.exists("python3")
    assert host.find_command("bash").endswith("/bash")
    packages = host.pip.get_packages(pip_path="/opt/conda/bin/pip")
    assert "uproot" in packages
    assert host.pip("uproot", pip_path="/opt/conda/bin/pip").is_installed


DEBIAN = "ps getent cut dpkg-query findmnt sysctl uname cat test readlink stat sha256sum grep ss id"


@pytest.mark.slow
def test_modules_that_need_programs_of_a_distribution(root: Path, tmp_path: Path) -> None:
    """A small Debian: its own programs and its package database, taken from this machine."""
    image = tmp_path / "debian"
    for name in ("usr/bin", "usr/lib", "usr/lib64", "etc", "var/lib/dpkg", "proc"):
        (image / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (image / name).symlink_to(f"usr/{name}")
    copy_programs(image, ["sh", *DEBIAN.split()])
    write(image, "etc/os-release", "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n")
    write(image, "etc/passwd", "root:x:0:0::/root:/bin/sh\njovyan:x:1000:100:J:/home:/bin/sh\n")
    write(image, "etc/group", "root:x:0:\nusers:x:100:jovyan\n")
    for name in ("libnss_files.so.2",):
        shutil.copy(Path("/lib/x86_64-linux-gnu", name), image / "usr/lib")
    write(
        image,
        "var/lib/dpkg/status",
        "Package: zsh\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.9-4\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n",
    )
    with opened(image) as small:
        host = mlcheck_host.connect(small)
        assert host.system_info.codename == "bookworm"
        assert host.package("zsh").is_installed
        assert host.package("zsh").version == "5.9-4"
        assert not host.package("gone").is_installed
        assert not host.package("nothing").is_installed
        assert (host.user("jovyan").uid, host.user("jovyan").shell) == (1000, "/bin/sh")
        assert not host.user("nobody-at-all").exists
        assert (host.group("users").gid, host.group("users").members) == (100, ["jovyan"])
        assert host.process.filter(comm="ps") or host.process.filter(comm="sh")
        assert host.mount_point("/proc").filesystem == "proc"
        assert host.sysctl("kernel.ostype") == "Linux"
        assert not host.socket("tcp://127.0.0.1:1").is_listening
        assert host.file("/etc/group").sha256sum == sha256((image / "etc/group").read_bytes())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.slow
def test_nothing_runs_on_this_machine(host: Host) -> None:
    with pytest.raises(RuntimeError, match="a command of this machine"):
        host.backend.run_local("true")
    marker = f"mlcheck-{os.getpid()}"
    host.run("touch /tmp/%s", marker)
    assert host.file(f"/tmp/{marker}").exists
    assert not Path("/tmp", marker).exists()
