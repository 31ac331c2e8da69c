"""Time all static rules on an image: as a directory, as an archive, and a second time.

"Static" are the tests that read files and run nothing: `TESTS`. pytest runs them with a profile
that promises what such an image can have, `PROFILE`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks import data, elf
from benchmarks.measure import (
    MEBIBYTE,
    Cost,
    Setting,
    Table,
    amount,
    in_turns,
    missing,
    ratio,
    run,
    suite,
)
from benchmarks.measure import seconds as shown
from mlcheck.engines import select

TESTS = (
    "test_deployed or test_files or test_integrity or test_rpath or test_os_release or "
    "test_environment or packages_promised"
)
PROFILE = """\
prefix = "/opt/conda"
os = { id = "almalinux", version = "9" }

[packages.required]
numpy = {}
pandas = {}
tensorflow = {}

[libraries]
system = ["libGL.so.1"]

[rpath]
forbidden = ["/opt/conda"]

[environment.starts]
PATH = ["/opt/conda/bin"]

[scripts]
portable = ["jupyter*", "pip*"]

[deployed]
private = ["/etc/shadow"]
"""
PARTS = (0.1, 0.3, 1.0)
FRESH = elf.NO_CACHE
# Such an image fails rules that only a built image meets.
FINE = (0, 1)


def checks(
    setting: Setting, image: str, engine: str, env: Mapping[str, str] = FRESH, *more: str
) -> Cost:
    """Run the static tests once, including the start of Python and pytest."""
    profiles = setting.work / "profiles"
    if not profiles.exists():
        (profiles / "benchmark").mkdir(parents=True)
        (profiles / "benchmark" / "image.toml").write_text(PROFILE)
    options = [f"--image={image}", f"--engine={engine}", "-n0", "-k", TESTS, *more]
    options += [f"--profiles={profiles}", "--profile=benchmark"]
    return run(suite(*options), env=env, fine=FINE)


def tables(setting: Setting) -> Iterator[Table]:
    """Measure a directory, an archive, and a second run."""
    yield directory(setting)
    yield archive(setting)
    yield again(setting)


def directory(setting: Setting) -> Table:
    """Measure a directory, against scanelf, which answers one of the questions."""
    image = setting.image
    table = Table(
        "All static rules on a directory",
        f"`MLCHECK_NO_CACHE=1 pytest -n0 --image=DIR -k '{TESTS}'` on the same image, including "
        "the start of Python and pytest, against the same run of scanelf.",
        ("mlcheck", "peak memory", "scanelf", "ratio"),
    )
    if missing("scanelf"):
        (mine,) = in_turns(setting.rounds, partial(checks, setting, f"{image}/", "sandbox"))
        table.rows.append((shown(mine), amount(mine.peak_mib), "not installed (pax-utils)", ""))
    else:
        mine, theirs = in_turns(
            setting.rounds,
            partial(checks, setting, f"{image}/", "sandbox"),
            partial(elf.scanelf, image),
        )
        row = (shown(mine), amount(mine.peak_mib), shown(theirs), ratio(mine, theirs))
        table.rows.append(row)
    return table


def archive(setting: Setting) -> Table:
    """Measure docker archives of several sizes, against tar."""
    table = Table(
        "All static rules on a docker-archive",
        "The same with `--image=docker-archive:FILE --engine=archive`, without unpacking anything. "
        "`tar tf FILE` reads only the few headers of the outer archive and skips the rest; `tar "
        "xOf FILE layer.tar | tar tf -` reads all of it.",
        (
            *("archive", "mlcheck", "peak memory", "written to disk"),
            *("`tar tf`", "ratio", "`tar xOf \\| tar tf`", "ratio"),
        ),
    )
    if "archive" not in select.engines():
        table.rows.append(("there is no engine archive", *[""] * 7))
        return table
    for part in (0.3, 1.0) if setting.quick else PARTS:
        file = part_as_archive(setting, part)
        listing = ["sh", "-c", 'tar xOf "$0" layer.tar | tar tf -', str(file)]
        mine, outer, inner = in_turns(
            setting.rounds,
            partial(checks, setting, f"docker-archive:{file}", "archive"),
            partial(run, ["tar", "tf", str(file)]),
            partial(run, listing),
        )
        row = [amount(file.stat().st_size / MEBIBYTE), shown(mine), amount(mine.peak_mib)]
        row += [amount(mine.written_mib), shown(outer), ratio(mine, outer)]
        table.rows.append([*row, shown(inner), ratio(mine, inner)])
        if part < 1.0:
            file.unlink()
    return table


def part_as_archive(setting: Setting, part: float) -> Path:
    """Return the image, or about this part of it, as a docker archive; made if missing."""
    file = setting.work / f"part-{part}.tar"
    if part < 1.0:
        root = setting.work / f"part-{part}"
        data.part_of(setting.image, root, part)
        data.docker_archive([root], file)
        shutil.rmtree(root)
    elif not file.exists():
        data.docker_archive([setting.image], file)
    return file


def again(setting: Setting) -> Table:
    """Measure a second run on the same image, with its facts kept."""
    table = Table(
        "A second run on an unchanged image",
        "The same rules with facts kept (no `MLCHECK_NO_CACHE`), the first time and again. "
        "`--collect-only` is the time for pytest itself and the choice of the image.",
        ("image", "first", "again", "`--collect-only`", "again, beyond that"),
    )
    images = [("directory", f"{setting.image}/", "sandbox")]
    if "archive" in select.engines():
        file = part_as_archive(setting, 1.0)
        images.append(("docker-archive", f"docker-archive:{file}", "archive"))
    kept = setting.work / "kept"
    env = {"XDG_CACHE_HOME": str(kept), **dict.fromkeys(FRESH, "")}

    def first(image: str, engine: str) -> Cost:
        shutil.rmtree(kept, ignore_errors=True)
        return checks(setting, image, engine, env)

    for label, image, engine in images:
        costs = in_turns(
            setting.rounds,
            partial(first, image, engine),
            partial(checks, setting, image, engine, env),
            partial(checks, setting, image, engine, env, "--collect-only"),
        )
        beyond = max(0.0, costs[1].seconds - costs[2].seconds)
        table.rows.append((label, *map(shown, costs), shown(beyond)))
    return table
