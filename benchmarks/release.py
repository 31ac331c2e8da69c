"""Time a release with several workers, and simulate larger ones from recorded times."""

from __future__ import annotations

import heapq
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from benchmarks import data
from benchmarks.elf import NO_CACHE
from benchmarks.images import TESTS
from benchmarks.measure import Cost, Setting, Table, mlcheck, run
from benchmarks.measure import seconds as shown
from selftests import slurm

IMAGES = 8
WORKERS = {"local": (1, 2), "slurm": (1, 2, 4, 8)}

RECORDED_S: Mapping[str, float] = {
    "atlas-jupyter": 1.6,
    "jupyterlab-cpu": 5.2,
    "jupyterlab-pytorch": 6.3,
    "jupyterlab-tensorflow": 5.4,
    "machine-learning-notebook-cpu": 5.0,
    "machine-learning-notebook-gpu": 4.6,
    "ml-base": 6.6,
    "ml-pyroot": 4.3,
    "ml-tensorflow-cpu": 5.5,
    "ml-tensorflow-gpu": 7.5,
    "ml-torch-gpu": 4.9,
    "remote-desktop": 4.8,
    "rstudio": 5.1,
    "sas": 4.8,
}
"""Seconds of a job of each reference image, without slow tests, as a release has recorded them."""

START_S = 5.0
"""Seconds from a worker's start to its first job, as measured with Slurm on a quiet machine."""

IMAGE_BYTES = 3e9
BANDWIDTH = 1.25e9
"""Bytes of an image in its registry, and bytes that the registry, or a proxy of CVMFS, gives to all
nodes together in a second (10 Gbit/s). Assumptions, unlike the times."""

SIMULATED = (1, 2, 4, 8, 16, 32, 64)


def tables(setting: Setting) -> Iterator[Table]:
    """Measure a release of 8 images with 1 to 8 workers, and simulate 17 and 200 with up to 64."""
    yield _measured(setting)
    yield _simulated()


def _measured(setting: Setting) -> Table:
    build = mlcheck("reference", "build", "ml-pyroot")
    made = Path(subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip())
    images = []
    for number in range(2 if setting.quick else IMAGES):
        image = setting.work / "images" / str(number) / made.name
        image.parent.mkdir(parents=True)
        data.copy_tree(made, image)
        images.append(str(image))
    table = Table(
        "A release",
        f"`MLCHECK_NO_CACHE=1 mlcheck release IMAGES --engine sandbox -k '{TESTS}'` on "
        f"{len(images)} copies of the reference image ml-pyroot as directories, measured once; "
        "Slurm's two nodes are this machine.",
        ("on", "workers", "time", "for each image", "gain"),
    )
    for on, counts in WORKERS.items():
        if on == "slurm" and slurm.missing():
            table.notes.append(f"Slurm: {slurm.missing()}")
            continue
        first = 0.0
        for workers in counts[:1] if setting.quick else counts:
            place = setting.work / f"{on}-{workers}"
            cost = _release(images, on, workers, place)
            first = first or cost.seconds
            gain = f"{first / cost.seconds:.2f}"
            table.rows.append(
                [on, f"{workers}", shown(cost), shown(cost.seconds / len(images)), gain]
            )
    return table


def _release(images: Sequence[str], on: str, workers: int, place: Path) -> Cost:
    words = ["release", *images, "--engine=sandbox", "-k", TESTS]
    place.mkdir()
    words += [f"--on={on}", f"--workers={workers}", f"--to={place}/release"]
    command = [sys.executable, "-m", "mlcheck.cli", *words]
    env = {**NO_CACHE, "MLCHECK_CACHE_DIR": str(place / "cache")}
    if on != "slurm":
        return run(command, env=env, fine=(0, 1))
    with slurm.running(place / "slurm") as cluster:
        return run(command, env={**env, **cluster.environment}, fine=(0, 1))


def _simulated() -> Table:
    table = Table(
        "A larger release, simulated",
        "The jobs have the recorded times of the reference images, over and over; the longest "
        f"start first, and a worker needs {START_S:g} s to start. With a cold store, each image of "
        f"{IMAGE_BYTES / 1e9:g} GB is fetched once on the node that judges it, and all nodes share "
        f"{BANDWIDTH / 1e9:g} GB/s.",
        ("workers", "17 images", "gain", "17, cold", "200 images", "gain", "200, cold"),
    )
    times = list(RECORDED_S.values())
    for workers in SIMULATED:
        row = [f"{workers}"]
        for count in (17, 200):
            jobs = list(islice(cycle(times), count))
            one, warm = simulated(jobs, 1), simulated(jobs, workers)
            cold = simulated(jobs, workers, cold=True)
            row += [_minutes(warm), f"{one / warm:.1f}", _minutes(cold)]
        table.rows.append(row)
    return table


def simulated(jobs: Sequence[float], workers: int, *, cold: bool = False) -> float:
    """Return the seconds that a release takes.

    What is fetched is sent one image after another, each with the whole bandwidth.

    Args:
        jobs: seconds of each.
        cold: whether each image has to be fetched.
    """
    free = [START_S] * min(workers, len(jobs))
    heapq.heapify(free)
    wire = 0.0
    """When the registry has sent what was asked for so far: one image after another."""
    for seconds in sorted(jobs, reverse=True):
        begun = heapq.heappop(free)
        if cold:
            wire = max(wire, begun) + IMAGE_BYTES / BANDWIDTH
            begun = wire
        heapq.heappush(free, begun + seconds)
    return max(free)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"
