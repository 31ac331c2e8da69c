"""A command, and 70 testinfra assertions: mlcheck's channel against one exec per command.

    python -m benchmarks.commands

The peer is testinfra's own backend for docker and for podman, on the same image: a small Debian
made from this machine's programs. The container's start is part of the 70 assertions.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import testinfra
from testinfra.host import Host

from mlcheck import host, opening
from mlcheck.image import ImageRef
from selftests.images import copy_programs, write

NAME = "mlcheck-benchmark/small"
FILES, PACKAGES = 50, 20
ENGINES = ("sandbox", "docker", "podman", "apptainer")
ROUNDS = 3


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


def assertions(machine: Host) -> None:
    for number in range(FILES):
        assert machine.file(f"/opt/file-{number}").exists
    for number in range(PACKAGES):
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


def ours(engine: str, root: Path) -> float:
    """Seconds for the assertions, start and end of the container included."""
    started = time.perf_counter()
    with opening.open_image(ref_for(engine, root), engine) as image:
        assertions(host.connect(image))
    return time.perf_counter() - started


def testinfras(engine: str) -> float:
    """The same with testinfra's own backend."""
    started = time.perf_counter()
    run = [engine, "run", "-d", "--rm", NAME, "sleep", "1000"]
    container = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
    try:
        assertions(testinfra.get_host(f"{engine}://{container}"))
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


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mlcheck-benchmark-") as temporary:
        root = Path(temporary, "small")
        make_image(root)
        columns = ["engine", "start and first command", "a command", "`ENGINE exec`"]
        columns += [f"{FILES + PACKAGES} assertions, mlcheck", "testinfra itself", ""]
        print(f"| {' | '.join(columns)} |")
        print("|---|---|---|---|---|---|---|")
        for engine in ENGINES:
            if (reason := opening.engine(engine).unusable()) is not None:
                print(f"| {engine} | {reason.splitlines()[0]} | | | | | |")
                continue
            has_peer = engine in ("docker", "podman")
            with imported(engine, root) if has_peer else contextlib.nullcontext():
                first, median = command(engine, root)
                peer = f"{one_exec(engine) * 1000:.0f} ms" if has_peer else ""
                # In turns, so that a change of the machine's load meets both.
                pairs = [
                    (ours(engine, root), testinfras(engine) if has_peer else 0.0)
                    for _ in range(ROUNDS)
                ]
                mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
                print(
                    f"| {engine} | {first * 1000:.0f} ms | {median * 1000:.2f} ms | {peer} "
                    f"| {mine:.2f} s | "
                    + (f"{theirs:.1f} s | {theirs / mine:.0f} times faster |" if peer else "| |")
                )


if __name__ == "__main__":
    main()
