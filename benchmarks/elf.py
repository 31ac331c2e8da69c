"""Time RPATH and RUNPATH of every ELF file of a prefix, against scanelf of pax-utils."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.measure import Cost, Setting, Table, amount, in_turns, missing, mlcheck, ratio, run
from benchmarks.measure import seconds as shown

COUNTS = (10, 100, 1_000, 10_000)
QUICK_COUNTS = (10, 100)
NO_CACHE = {"MLCHECK_NO_CACHE": "1"}


def ours(image: Path, output: Path | None = None) -> Cost:
    """Time all ELF facts of an image's prefix, including Python's start, without a cache."""
    argv = mlcheck("facts", f"{image}/", "--probe", "elf", "--json")
    return run(argv, env=NO_CACHE, output=output)


def scanelf(image: Path, output: Path | None = None) -> Cost:
    """Time the peer on the same prefix."""
    return run(["scanelf", "-qRF", "%F %r", str(image / data.PREFIX)], output=output)


def tables(setting: Setting) -> Iterator[Table]:
    """Measure one prefix, and how the cost grows with the number of ELF files."""
    image, work = setting.image, setting.work
    table = Table(
        "RPATH and RUNPATH of every ELF file of a prefix",
        "`MLCHECK_NO_CACHE=1 mlcheck facts DIR --probe elf --json`, including Python's start, "
        "against `scanelf -qRF '%F %r' DIR/opt/conda`. The first row is the prefix from PyPI; the "
        "others have copies of small libraries and show how the cost grows.",
        ("prefix", "mlcheck", "peak memory", "scanelf", "ratio", "findings"),
    )
    table.rows.append(_row(setting, image, _size(image)))
    for count in QUICK_COUNTS if setting.quick else COUNTS:
        root = work / "copies"
        data.elf_copies(image, root, count)
        table.rows.append(_row(setting, root, f"{count:,} ELF files"))
        shutil.rmtree(root)
    yield table


def _row(setting: Setting, image: Path, label: str) -> tuple[str, ...]:
    if missing("scanelf"):
        (mine,) = in_turns(setting.rounds, partial(ours, image))
        return label, shown(mine), amount(mine.peak_mib), "not installed (pax-utils)", "", ""
    mine, theirs = in_turns(setting.rounds, partial(ours, image), partial(scanelf, image))
    return (
        *(label, shown(mine), amount(mine.peak_mib), shown(theirs), ratio(mine, theirs)),
        _compared(image, setting.work),
    )


def _size(image: Path) -> str:
    """Say how many files there are, how many of them are ELF files, and the size of these."""
    files = elf = size = 0
    for path in (image / data.PREFIX).rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        files += 1
        with path.open("rb") as file:
            if file.read(4) == b"\x7fELF":
                elf += 1
                size += path.stat().st_size
    return f"{files:,} files, {elf:,} ELF files of {size / 2**30:.1f} GiB"


def _compared(image: Path, work: Path) -> str:
    """Say whether both find the same in the same files."""
    output = work / "output"
    ours(image, output)
    found = {
        path: ",".join(dict.fromkeys(text for text in (file["rpath"], file["runpath"]) if text))
        for found in json.loads(output.read_bytes())["elf"].values()
        for path, file in found["files"].items()
    }
    mine = {path: text for path, text in found.items() if text}
    scanelf(image, output)
    lines = output.read_text(errors="surrogateescape").splitlines()
    theirs = {
        path.removeprefix(str(image)): text.strip()
        for path, _, text in (line.partition(" ") for line in lines)
        if text.strip()
    }
    different = {path for path in {*mine, *theirs} if mine.get(path) != theirs.get(path)}
    if not different:
        return f"the same, {len(mine):,}"
    example = sorted(different)[0]
    return (
        f"{len(different)} differ, such as {example}: {mine.get(example)!r} here, "
        f"{theirs.get(example)!r} there"
    )
