"""However a run ends, nothing of it is left: no container, process, mount or temporary file."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlcheck.engines import select
from selftests.checkout import CHECKOUT
from selftests.images import build_sif, copy_programs, each_engine
from selftests.waiting import eventually

pytestmark = pytest.mark.slow

ENGINES = ("sandbox", "docker", "podman", "apptainer", "apptainer-sif")
NAME = "mlcheck-selftest/small"
KILLS = 6
"""For each engine, at moments spread over the whole run."""

LONG = f"300.{os.getpid()}"
"""Seconds that tell this worker's processes from others'."""

TESTS = """
import threading
import pytest

@pytest.mark.parametrize("number", range(6))
def test_short_ones(image, number):
    threads = [threading.Thread(target=image.run, args=(["sleep", "0.1"],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert image.run(["sh", "-c", "setsid sleep 300 & echo $!"]).exit_code == 0
    assert image.rootfs.lstat("/etc/os-release") is not None
    for thread in threads:
        thread.join()

def test_a_long_one(image):
    image.run(["sh", "-c", "setsid sleep 300 & sleep 300"])
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite for the image "small" alone."""
    folder = tmp_path_factory.mktemp("profiles") / "small"
    folder.mkdir()
    (folder / "image.toml").write_text("")
    (folder / "test_small.py").write_text(TESTS.replace("sleep 300", f"sleep {LONG}"))
    return folder.parent


@pytest.fixture(scope="module")
def directory(tiny_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "small"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    copy_programs(root, ["setsid"])
    return root


@pytest.fixture(scope="module", params=each_engine(*ENGINES))
def arguments(
    request: pytest.FixtureRequest, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """Options that open the same image by each engine."""
    way: str = request.param
    if way in ("docker", "podman"):
        name = f"{NAME}-{uuid.uuid4().hex[:8]}/small"
        with subprocess.Popen(
            ["tar", "-C", str(directory), "-c", "."], stdout=subprocess.PIPE
        ) as tar:
            subprocess.run([way, "import", "-", name], stdin=tar.stdout, check=True)
        yield [f"--engine={way}", f"--image={name}"]
        subprocess.run([way, "rmi", "-f", name], check=True, capture_output=True)
    elif way == "apptainer-sif":
        sif = build_sif(directory, tmp_path_factory.mktemp("sif") / "small.sif")
        yield ["--engine=apptainer", f"--image={sif}"]
    else:
        yield [f"--engine={way}", f"--image={directory}"]


@dataclass
class Started:
    """A run of the suite with a mark in its environment and temporary files of its own."""

    arguments: list[str]
    temporary: Path
    mark: str = field(default_factory=lambda: f"MLCHECK_TEST_MARK={uuid.uuid4().hex}")

    def __enter__(self) -> Started:
        # Each test module in each worker has an image of its own.
        self.image = self.arguments[1].partition("=")[2]
        self.temporary.mkdir()
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.arguments],
            cwd=CHECKOUT,
            env={**os.environ, name: value, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def processes(self) -> list[str]:
        """Every process of this machine that has the mark, here or in a container."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (directory / "environ").read_bytes():
                    found.append((directory / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
        return found

    def left(self) -> list[str]:
        """What there still is of the run."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            *self.processes(),
            *(line for line in mounts if str(self.temporary) in line),
            *containers(self.image),
            # pytest-of-USER is pytest's own, which it keeps on purpose.
            *(str(p) for p in self.temporary.iterdir() if not p.name.startswith("pytest-of-")),
        ]

    def nothing_left(self) -> list[str]:
        """What there is still after a while: nothing, if all is well."""
        # A server creates what it was asked for before the end, and the janitor waits for it.
        eventually(lambda: not self.left())
        return self.left()


@functools.cache
def stores() -> list[str]:
    """The engines here that have containers."""
    return [name for name in ("docker", "podman") if select.engine(name).unusable() is None]


def containers(image: str) -> list[str]:
    """Our containers of an image on docker and podman, running or not."""
    found = []
    for engine in stores():
        listed = subprocess.run(
            [
                *(engine, "ps", "-a", "--filter", "label=mlcheck.owner"),
                *("--format", "{{.ID}} {{.Image}} {{.Status}}"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        found += [f"{engine} {line}" for line in listed.stdout.splitlines() if image in line]
    return found


@pytest.fixture(scope="module")
def duration(arguments: list[str], suite: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of a whole run, which leaves nothing."""
    started = time.monotonic()
    run = [*arguments, f"--profiles={suite}", "-k", "test_short_ones"]
    with Started(run, tmp_path_factory.mktemp("run") / "tmp") as whole:
        output, _ = whole.process.communicate(timeout=120)
        assert whole.process.returncode == 0, output
        seconds = time.monotonic() - started
        assert whole.nothing_left() == []
    return seconds


@pytest.mark.parametrize("number", range(KILLS))
def test_kill_9_at_any_moment(
    number: int, arguments: list[str], suite: Path, duration: float, tmp_path: Path
) -> None:
    moment = duration * (number + random.Random().random()) / KILLS
    run = [*arguments, f"--profiles={suite}", "-k", "test_short_ones"]
    with Started(run, tmp_path / "tmp") as killed:
        time.sleep(moment)
        killed.process.kill()
        assert killed.nothing_left() == [], f"killed after {moment:.3f} s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_a_long_command(
    number: signal.Signals, arguments: list[str], suite: Path, tmp_path: Path
) -> None:
    run = [*arguments, f"--profiles={suite}", "-k", "test_a_long_one"]
    with Started(run, tmp_path / "tmp") as ended:
        wait_for_command(ended)
        ended.process.send_signal(number)
        ended.process.wait(timeout=60)
        assert ended.nothing_left() == []


def wait_for_command(started: Started) -> None:
    """Until the command that takes long runs."""
    assert eventually(lambda: takes_long() or started.process.poll() is not None)
    assert started.process.poll() is None, started.process.communicate()[0]


def takes_long() -> bool:
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (directory / "cmdline").read_bytes() == f"sleep\0{LONG}\0".encode():
                return True
    return False


def test_kill_9_of_one_worker(arguments: list[str], suite: Path, tmp_path: Path) -> None:
    run = [*arguments, f"--profiles={suite}", "-k", "test_a_long_one", "-n2", "--dist=each"]
    with Started(run, tmp_path / "tmp") as wounded:
        wait_for_command(wounded)
        children = Path(f"/proc/{wounded.process.pid}/task/{wounded.process.pid}/children")
        workers = [
            pid
            for pid in children.read_text().split()
            if b"import sys;exec" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(int(workers[0]), signal.SIGKILL)
        wounded.process.send_signal(signal.SIGINT)
        wounded.process.wait(timeout=60)
        assert wounded.nothing_left() == []
