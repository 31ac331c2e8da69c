"""The host that an image's own scripts may see: this machine's system and the image, no more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck.engines.sandbox import host as sandbox_host
from mlcheck.engines.sandbox.host import HostSandbox
from mlcheck.inspect.host_use import probe as on_host
from mlcheck.model.errors import EngineError
from selftests import images

if (_why := sandbox_host.unusable()) is not None:
    pytest.skip(str(_why), allow_module_level=True)

SETUP = """\
top=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd -P)
[ "$top" = / ] && { echo inside; return 0; }
export EnvTopDir=$top CONDA_PREFIX=$top/opt/conda
unset PYTHONHOME
PATH=$CONDA_PREFIX/bin:$PATH
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked image whose own name has a colon, reached by a link."""
    top = tmp_path_factory.mktemp("images")
    image = top / "flat:x"
    images.write(image, "setup.sh", SETUP)
    images.script(image, "opt/conda/bin/tool", "echo the image\\'s own")
    images.script(image, "opt/conda/bin/absolute", "echo x")
    images.write(image, "opt/conda/bin/absolute", "#!/opt/conda/bin/tool\n", 0o755)
    images.write(image, "opt/conda/lib/libx.so", "lib")
    (top / "tag").symlink_to("flat:x")
    return top / "tag"


@pytest.fixture(scope="module")
def host(directory: Path) -> Iterator[HostSandbox]:
    with sandbox_host.opened(directory, "/opt/conda") as opened:
        yield opened


def sh(host: HostSandbox, script: str) -> str:
    done = host.run(["sh", "-c", script], limit_s=20)
    return done.stdout.decode() + done.stderr.decode()


def test_nothing_of_the_machine_but_its_programs(host: HostSandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("seen")
    there = set(sh(host, "ls -A /").split())
    assert there <= {
        *("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"),
        *("etc", "dev", "proc", "tmp", "image", "opt"),
    }
    assert "seen" not in sh(host, f"cat {secret}")
    for path in ("/root", "/home", "/etc/shadow", "/etc/passwd", "/run", "/var", "/sys"):
        assert "No such file" in sh(host, f"ls {path}"), path
    assert sh(host, "ls -A /tmp") == ""
    # The processes of the machine: only the sandbox's own.
    assert len(sh(host, "ls -d /proc/[0-9]*").split()) < 6
    assert str(os.getpid()) not in sh(host, "ls /proc").split()


def test_nothing_of_the_machine_can_be_changed(host: HostSandbox, directory: Path) -> None:
    for path in (
        "/usr/x",
        "/etc/x",
        "/image/x",
        "/opt/conda/lib/x",
        "/image/opt/conda/lib/libx.so",
    ):
        assert "Read-only" in sh(host, f"echo x > {path}"), path
    assert "Read-only" in sh(host, "chmod 777 /usr") or os.geteuid() != 0
    assert (directory / "opt/conda/lib/libx.so").read_text() == "lib"
    denied = sh(host, "mount -o remount,rw,bind /usr; echo x > /usr/mlcheck-x")
    assert "mlcheck-x" in denied
    assert not Path("/usr/mlcheck-x").exists()


def test_no_network(host: HostSandbox) -> None:
    devices = [line.split(":")[0].strip() for line in sh(host, "cat /proc/net/dev").splitlines()]
    assert devices[2:] == ["lo"]


def test_the_host_has_libraries_of_the_prefixs_name(host: HostSandbox) -> None:
    assert sh(host, "cat /opt/conda/lib/libx.so") == "lib"
    assert sh(host, "ls /opt/conda") == "lib\n"
    assert "not found" in sh(host, "/image/opt/conda/bin/absolute")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_is_sourced(host: HostSandbox, shell: str) -> None:
    if not on_host.has_shell(host, shell):
        pytest.skip(f"this machine has no {shell}")
    fact = on_host.shell(host, shell, "/setup.sh")
    assert fact.code == 0, fact
    assert fact.variables["EnvTopDir"] == "/image"
    assert fact.variables["PATH"].startswith("/image/opt/conda/bin:")
    assert "PYTHONHOME" not in fact.variables
    assert fact.usable == frozenset()


def test_commands_are_the_images_own(host: HostSandbox) -> None:
    ask = {"own": ("tool", "x"), "hosts": ("ls", "/"), "none": ("no-such",)}
    answers = on_host.commands(host, "/setup.sh", ask).answers
    assert answers["own"].stdout == "the image's own\n"
    assert answers["hosts"].exit_code == 127
    assert answers["none"].exit_code == 127


@pytest.mark.parametrize(
    ("defines", "code", "said"),
    [
        ('tool() { "$CONDA_PREFIX/bin/tool" "$@"; }', 0, "the image's own\n"),
        ('tool() { "/opt/conda/bin/tool" "$@"; }', 127, ""),
        ("tool() { return 3; }", 3, ""),
        ("alias tool=$CONDA_PREFIX/bin/tool", 0, "the image's own\n"),
        ("alias tool=/opt/conda/bin/tool", 127, ""),
        ("ls() { echo the script; }", 0, "the script\n"),
        # No file of the image, and the shell has a command of that name itself.
        ("", 127, ""),
    ],
)
def test_a_word_may_be_a_function_or_an_alias_of_the_script(
    directory: Path, tmp_path: Path, defines: str, code: int, said: str
) -> None:
    image = Path(shutil.copytree(directory, tmp_path / "image", symlinks=True))
    images.write(image, "setup.sh", f"{SETUP}{defines}\n")
    word = "ls" if "ls()" in defines else "tool" if defines else "echo"
    with sandbox_host.opened(image, "/opt/conda") as host:
        answer = on_host.commands(host, "/setup.sh", {"x": (word, "--version")}).answers["x"]
    assert (answer.exit_code, answer.stdout) == (code, said), answer


def test_an_image_without_python_loads_nothing_of_the_image(host: HostSandbox) -> None:
    found = on_host.libraries(
        host, "/setup.sh", "/opt/conda", "/opt/conda", ["os"], ["/opt/conda/bin/tool"]
    )
    assert not [path for path in found.python.paths if path.startswith("/image")]
    assert not [path for path in found.programs[0].paths if path.startswith("/image")]


def test_a_link_in_the_image_is_not_followed_on_the_machine(
    directory: Path, tmp_path: Path
) -> None:
    image = Path(shutil.copytree(directory, tmp_path / "image", symlinks=True))
    shutil.rmtree(image / "opt/conda/lib")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("seen")
    (image / "opt/conda/lib").symlink_to(tmp_path / "secret")
    with sandbox_host.opened(image, "/opt/conda") as host:
        assert "seen" not in sh(host, "cat /opt/conda/lib/file /image/opt/conda/lib/file")


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local", "/tmp/x", "/image/x", "/"])
def test_a_prefix_in_the_system_is_refused(directory: Path, prefix: str) -> None:
    with pytest.raises(EngineError), sandbox_host.opened(directory, prefix):
        pass


def test_inside_a_container(tiny_rootfs: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_rootfs, tmp_path / "image", symlinks=True))
    images.copy_programs(root, ["od", "dirname"])
    images.write(root, "setup.sh", SETUP)
    with images.opened(root) as image:
        fact = on_host.inside(image, "/setup.sh")
        assert (fact.code, fact.output, fact.changed) == (0, "inside\n", ())
        images.write(root, "setup.sh", "EnvTopDir=/x\nreturn 3\n")
        changed = on_host.inside(image, "/setup.sh")
        assert (changed.code, changed.output) == (3, "")
        assert changed.changed
