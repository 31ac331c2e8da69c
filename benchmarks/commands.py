"""A command, and 70 testinfra assertions: mlcheck's channel against one exec per command.

The peer is testinfra's own backend for docker and for podman, on the same image: a small Debian
made from this machine's programs. The container's start is part of the 70 assertions.
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
from mlcheck import host, opening
from mlcheck.image import ImageRef
from selftests.images import copy_programs, write

NAME = "mlcheck-benchmark/small"
FILES, PACKAGES = 50, 20
QUICK = 5, 2
ENGINES = ("sandbox", "docker", "podman", "apptainer")


def make_image(root: Path) -> None:
    """A small Debian with files and packages to ask for."""
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
    """Seconds for the assertions, start and end of the container included."""
    started = time.perf_counter()
    with opening.open_image(ref_for(engine, root), engine) as image:
        assertions(host.connect(image), files, packages)
    return time.perf_counter() - started


def testinfras(engine: str, files: int, packages: int) -> float:
    """The same with testinfra's own backend."""
    started = time.perf_counter()
    run = [engine, "run", "-d", "--rm", NAME, "sleep", "1000"]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    try:
        assertions(testinfra.get_host(f"{engine}://{container}"), files, packages)
    finally:
        subprocess.run([engine, "rm", "-f", container], check=True, capture_output=True)
    return time.perf_counter() - started


def command(engine: str, root: Path) -> tuple[float, float]:
    """Seconds until the first command has ended, and the median of a command after that."""
    with opening.open_image(ref_for(engine, root), engine) as image:
        first = timed(lambda: image.run(["true"]))
        return first, statistics.median(timed(lambda: image.run(["true"])) for _ in range(300))


def one_exec(engine: str) -> float:
    """Median seconds of `ENGINE exec CONTAINER true`."""
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
    """Each engine that works here."""
    root = setting.work / "small"
    make_image(root)
    asked = files, packages = QUICK if setting.quick else (FILES, PACKAGES)
    table = Table(
        "Commands",
        f'A small Debian image. "{files + packages} assertions" are {files} files that exist and '
        f"{packages} packages that are installed, through testinfra's `host`, with start and end "
        "of the container; its own backends start one exec for each. testinfra has no backend for "
        "apptainer, and none is needed for a directory.",
        (
            *("engine", "start and first command", "a command", "`ENGINE exec`"),
            *(f"{files + packages} assertions, mlcheck", "testinfra itself", "ratio"),
        ),
    )
    for engine in ENGINES:
        if (reason := opening.engine(engine).unusable()) is not None:
            table.rows.append((engine, reason.splitlines()[0], *[""] * 5))
            continue
        has_peer = engine in ("docker", "podman")
        with imported(engine, root) if has_peer else contextlib.nullcontext():
            first, median = command(engine, root)
            row = [engine, shown(first), f"{median * 1000:.2f} ms"]
            row += [shown(one_exec(engine)) if has_peer else ""]
            # In turns, so that a change of the machine's load meets both.
            pairs = [
                (ours(engine, root, *asked), testinfras(engine, *asked) if has_peer else 0.0)
                for _ in range(setting.rounds)
            ]
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            row += [shown(mine)]
            row += [shown(theirs), f"{mine / theirs:.2f}"] if has_peer else ["", ""]
            table.rows.append(row)
    yield table
