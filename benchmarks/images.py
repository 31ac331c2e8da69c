"""Time several images with several workers of pytest-xdist."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.elf import NO_CACHE
from benchmarks.measure import Cost, Setting, Table, in_turns, mlcheck, ratio, run, suite
from benchmarks.measure import seconds as shown

COUNTS = (1, 2, 4, 8)
QUICK_COUNTS = (1, 2)
TESTS = "test_files.py or test_kernelspecs or test_rpath or test_system"
"""Tests of which some read files and some run commands, as in the whole suite."""


def tables(setting: Setting) -> Iterator[Table]:
    """Measure 1 to 8 images with 1 and 2 workers."""
    build = mlcheck("reference", "build", "ml-pyroot")
    made = Path(subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip())
    counts = QUICK_COUNTS if setting.quick else COUNTS
    images = []
    for number in range(max(counts)):
        image = setting.work / "images" / str(number) / made.name
        image.parent.mkdir(parents=True)
        # A different path makes it a different image to mlcheck.
        data.copy_tree(made, image)
        images.append(str(image))
    table = Table(
        "Several images",
        f"`MLCHECK_NO_CACHE=1 pytest -n WORKERS -k '{TESTS}'` on copies of the reference image "
        "ml-pyroot as directories, each measured once. One worker is one process, `-n0`.",
        ("images", "1 worker", "for each image", "2 workers", "for each image", "2 against 1"),
    )
    for count in counts:
        one, two = in_turns(
            1,
            partial(judged, images[:count], 0),
            partial(judged, images[:count], 2),
        )
        row = [f"{count}"]
        for cost in (one, two):
            row += [shown(cost), shown(cost.seconds / count)]
        table.rows.append([*row, ratio(two, one)])
    yield table


def judged(images: Sequence[str], workers: int) -> Cost:
    """Time all the tests on all images."""
    options = [f"--image={image}" for image in images]
    return run(suite(*options, f"-n{workers}", "-k", TESTS), env=NO_CACHE)
