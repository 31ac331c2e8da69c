"""Time a command and 70 testinfra assertions: mlcheck's open shell against one exec per command.

The peer is testinfra's own backend for docker and podman, on the same image: a small Debian made
from this machine's programs. The 70 assertions include the start of the container.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import testinfra
from testinfra.host import Host

from benchmarks.measure import Setting, Table
from benchmarks.measure import seconds as shown
from mlcheck.engines import select
from mlcheck.model.image_ref import ImageRef
from mlcheck.pytest_plugin import testinfra_host
from selftests.images import copy_programs, write

NAME = "mlcheck-benchmark/small"
FILES, PACKAGES = 50, 20
QUICK = 5, 2
ENGINES = ("sandbox", "docker", "podman", "apptainer")


def make_image(root: Path) -> None:
    """Make a small Debian with files and packages to ask about."""
    for name in ("usr/bin", "usr/lib", "usr/lib64", "etc", "opt", "proc", "dev", "tmp", "sys"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    programs = [
        "sh",
        "dpkg-query",
        "setsid",
        "sleep",
        "true",
        "uname",
        "cat",
        "test",
        "cut",
        "grep",
    ]
    copy_programs(root, programs)
    write(root, "etc/os-release", "ID=debian\nVERSION_ID=12\n")
    for number in range(FILES):
        write(root, f"opt/file-{number}", "content\n")
    write(
        root,
        "var/lib/dpkg/status",
        "".join(
            f"Package: package-{number}\nStatus: install ok installed\nArchitecture: amd64\n"
            f"Version: 1.{number}\n\n"
            for number in range(PACKAGES)
        ),
    )


def assertions(machine: Host, files: int, packages: int) -> None:
    for number in range(files):
        assert machine.file(f"/opt/file-{number}").exists
    for number in range(packages):
        assert machine.package(f"package-{number}").is_installed


@contextlib.contextmanager
def imported(engine: str, root: Path) -> Iterator[None]:
    tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    subprocess.run([engine, "import", "-", NAME], stdin=tar.stdout, check=True, capture_output=True)
    tar.wait()
    try:
        yield
    finally:
        subprocess.run([engine, "rmi", "-f", NAME], check=True, capture_output=True)


def ref_for(engine: str, root: Path) -> ImageRef:
    return ImageRef.parse(NAME if engine in ("docker", "podman") else f"{root}/")


def ours(engine: str, root: Path, files: int, packages: int) -> float:
    """Time the assertions with mlcheck, including start and end of the container."""
    started = time.perf_counter()
    with select.open_image(ref_for(engine, root), engine) as image:
        assertions(testinfra_host.connect(image), files, packages)
    return time.perf_counter() - started


def testinfras(engine: str, files: int, packages: int) -> float:
    """Time the assertions with testinfra's own backend."""
    started = time.perf_counter()
    run = [engine, "run", "-d", "--rm", NAME, "sleep", "1000"]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    try:
        assertions(testinfra.get_host(f"{engine}://{container}"), files, packages)
    finally:
        subprocess.run([engine, "rm", "-f", container], check=True, capture_output=True)
    return time.perf_counter() - started


def command(engine: str, root: Path) -> tuple[float, float]:
    """Return seconds until the first command has ended, and the median of the commands after it."""
    with select.open_image(ref_for(engine, root), engine) as image:
        first = timed(lambda: image.run(["true"]))
        return first, statistics.median(timed(lambda: image.run(["true"])) for _ in range(300))


def one_exec(engine: str) -> float:
    """Return the median seconds of `ENGINE exec CONTAINER true`."""
    run = [engine, "run", "-d", "--rm", NAME, "sleep", "1000"]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    try:
        execute = [engine, "exec", container, "true"]
        return statistics.median(
            timed(lambda: subprocess.run(execute, check=True)) for _ in range(15)
        )
    finally:
        subprocess.run([engine, "rm", "-f", container], check=True, capture_output=True)


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def tables(setting: Setting) -> Iterator[Table]:
    """Measure each engine that works here."""
    root = setting.work / "small"
    make_image(root)
    asked = files, packages = QUICK if setting.quick else (FILES, PACKAGES)
    table = Table(
        "Commands",
        f'A small Debian image. "{files + packages} assertions" are {files} existing files and '
        f"{packages} installed packages, tested through testinfra's `host`, including start and "
        "end of the container; testinfra's own backends start one exec for each. testinfra has no "
        "backend for apptainer, and a directory needs none.",
        (
            *("engine", "start and first command", "a command", "`ENGINE exec`"),
            *(f"{files + packages} assertions, mlcheck", "testinfra itself", "ratio"),
        ),
    )
    for engine in ENGINES:
        if (reason := select.engine(engine).unusable()) is not None:
            table.rows.append((engine, reason.what, *[""] * 5))
            continue
        has_peer = engine in ("docker", "podman")
        with imported(engine, root) if has_peer else contextlib.nullcontext():
            first, median = command(engine, root)
            row = [engine, shown(first), f"{median * 1000:.2f} ms"]
            row += [shown(one_exec(engine)) if has_peer else ""]
            # Take turns, so that a change in the machine's load affects both.
            pairs = [
                (ours(engine, root, *asked), testinfras(engine, *asked) if has_peer else 0.0)
                for _ in range(setting.rounds)
            ]
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            row += [shown(mine)]
            row += [shown(theirs), f"{mine / theirs:.2f}"] if has_peer else ["", ""]
            table.rows.append(row)
    yield table
