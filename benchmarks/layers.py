"""Time a second image that shares its base with the first: facts of layers are kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import commands, data
from benchmarks.elf import NO_CACHE
from benchmarks.measure import Cost, Setting, Table, amount, in_turns, mlcheck, ratio, run
from benchmarks.measure import seconds as shown
from mlcheck.engines import select

PART = 0.3
NAMES = ("mlcheck-benchmark/first:v1", "mlcheck-benchmark/second:v1")
PROBES = ("--probe", "elf", "--probe", "conda-files")


def facts(setting: Setting, engine: str, image: str, *, fresh: bool) -> Cost:
    """Time ELF facts and hashes of conda's files; `fresh` starts with an empty cache."""
    kept = setting.work / "kept"
    if fresh:
        shutil.rmtree(kept, ignore_errors=True)
    env = {"XDG_CACHE_HOME": str(kept), **dict.fromkeys(NO_CACHE, "")}
    return run(mlcheck("facts", image, "--engine", engine, *PROBES, "--json"), env=env)


def second(setting: Setting, engine: str) -> Cost:
    """Time the second image after the first."""
    facts(setting, engine, NAMES[0], fresh=True)
    return facts(setting, engine, NAMES[1], fresh=False)


def tables(setting: Setting) -> Iterator[Table]:
    """Measure docker and podman, if they work here."""
    table = Table(
        "Layers that images share",
        f"`mlcheck facts IMAGE --engine ENGINE {' '.join(PROBES)} --json` on two images with the "
        "same base (a small Debian, and a part of the prefix with a record of it like conda's) and "
        "a layer with one file each: the second image when nothing is kept, and after the first.",
        ("engine", "base", "second alone", "second after the first", "ratio"),
    )
    roots = _roots(setting)
    size = sum(path.lstat().st_size for path in roots[1].rglob("*") if path.is_file())
    for engine in ("docker", "podman"):
        if (reason := select.engine(engine).unusable()) is not None:
            table.rows.append((engine, reason.what, "", "", ""))
            continue
        try:
            for name, own in zip(NAMES, roots[2:], strict=True):
                archive = setting.work / "image.tar"
                data.docker_archive([*roots[:2], own], archive)
                select.engine(engine).store.keep(archive, name)
                archive.unlink()
            alone, after = in_turns(
                setting.rounds,
                partial(facts, setting, engine, NAMES[1], fresh=True),
                partial(second, setting, engine),
            )
        finally:
            subprocess.run([engine, "rmi", *NAMES], check=False, capture_output=True)
        row = (amount(size / 2**20), shown(alone), shown(after), ratio(after, alone))
        table.rows.append((engine, *row))
    yield table


def _roots(setting: Setting) -> list[Path]:
    """Make the contents of the layers: two that both images have, and one for each image alone."""
    system, packages, *own = (setting.work / name for name in ("system", "packages", "1", "2"))
    commands.make_image(system)
    data.part_of(setting.image, packages, PART)
    prefix = packages / data.PREFIX
    files = [path for path in prefix.rglob("*") if path.is_file() and not path.is_symlink()]
    entries = [
        {
            "_path": str(path.relative_to(prefix)),
            "path_type": "hardlink",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    ]
    record = {"name": "all", "version": "1", "depends": [], "paths_data": {"paths": entries}}
    (prefix / "conda-meta/all-1-0.json").write_text(json.dumps(record))
    for number, root in enumerate(own):
        (root / data.PREFIX / "lib").mkdir(parents=True)
        (root / data.PREFIX / "lib" / f"own-{number}").write_text("own\n")
    return [system, packages, *own]
