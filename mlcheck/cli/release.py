"""`mlcheck release`: judge many images on several engines, on many machines."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import mlcheck
from mlcheck.cli import common
from mlcheck.engines import select
from mlcheck.engines.resolve import understood
from mlcheck.machine import janitor
from mlcheck.model.errors import INTERRUPTED, NOT_JUDGED, EngineError, UsageError
from mlcheck.pytest_plugin import options
from mlcheck.release import joined, times
from mlcheck.release.directory import Asked, Directory
from mlcheck.release.jobs import Job, absolute, longest_first, of_images
from mlcheck.release.table import Lines, Table
from mlcheck.release.work import Entry, Screen, Work, is_judged, verdict
from mlcheck.report import summary, text

_EXAMPLES = """\
examples:
  mlcheck release all --engine docker,podman
  mlcheck release 'ml-*:alma9-*' --on slurm --engine apptainer --workers 8
  mlcheck release all --on tcp://scheduler:8786
  mlcheck release all --on slurm --dry-run
  mlcheck release --resume              go on after a lost connection or a power cut

An IMAGE is what `mlcheck check` takes, a pattern of published images, all or all-references. What
is named by a path has to be there on every machine that judges.

exit code: 0 everything judged holds; 1 an image does not conform; 3 one could not be judged;
4 a mistake; 5 nothing was judged; 130 interrupted.
"""

_NOT_FOR_RELEASES = {
    "--image",
    "--write-waivers",
    "--until",
    "--reason",
    "--output",
    "--mlcheck-json",
    "--mlcheck-html",
    "--html",
}
_PATHS = {"--profiles", "--package-list", "--base-list", "--waivers"}
_APART = {"--engine", "--require-gpu"}
"""Options that are not the same for all jobs."""

_DEFAULTS: dict[str, Any] = {
    "on": "local",
    "workers": None,
    "gpu_workers": None,
    "gpu_directive": [],
    "job_limit": 7200.0,
    "wait_limit": 86400.0,
    "retries": 2,
}
"""Settings of how a release is carried out, which --resume may change."""

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `release`."""
    parser = commands.add_parser(
        "release",
        help="judge many images on several engines, on this machine or on a cluster",
        description="Judge each image on each engine, on this machine, by a batch system, or by "
        "the workers of Dask's scheduler, and join all reports. What was judged is on disk as it "
        "comes; what could not be judged is tried again, and in the end an ERROR.",
        usage="mlcheck release IMAGE ... [--on WHERE] [OPTION ...]\n"
        "       mlcheck release --resume [--to DIR] [OPTION ...]",
        epilog=_EXAMPLES,
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="images to judge")
    group = parser.add_argument_group("where, and how often")
    group.add_argument(
        "--on",
        metavar="WHERE",
        help="local, slurm, htcondor, pbs, sge, lsf, oar, or the address of Dask's scheduler, as "
        "tcp://HOST:PORT (default: local)",
    )
    group.add_argument(
        "--to",
        type=Path,
        default=Path("release"),
        metavar="DIR",
        help="directory for the reports (default: release)",
    )
    group.add_argument("--resume", action="store_true", help="judge what DIR has no report of")
    group.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="workers at a time (default: one for each job; local: as cores and memory allow)",
    )
    group.add_argument(
        "--gpu-workers",
        type=_count_or_none,
        metavar="N",
        help="workers with a GPU at a time, for images made for one; 0: these images go to the "
        "others (default: one for each such job; local: one, if there is a GPU)",
    )
    group.add_argument(
        "--gpu-directive",
        action="append",
        metavar="LINE",
        help="line of a batch job that asks for a GPU (default for Slurm: --gres=gpu:1); "
        "repeatable",
    )
    group.add_argument(
        "--job-limit",
        type=_span,
        metavar="TIME",
        help="time for one image on one engine, as 90m or 2h; then it is tried again (default: 2h)",
    )
    group.add_argument(
        "--wait-limit",
        type=_span,
        metavar="TIME",
        help="time to wait while no worker is there (default: 1d)",
    )
    group.add_argument(
        "--retries",
        type=_count_or_none,
        metavar="N",
        help="further tries of what was not judged, elsewhere if possible (default: 2)",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print the jobs and what would be submitted, and start nothing",
    )
    suite = parser.add_argument_group(options.TITLE)
    actions: list[argparse.Action] = []

    def option(*names: str, **how: Any) -> None:
        if names[0] not in _NOT_FOR_RELEASES:
            actions.append(suite.add_argument(*names, **how))

    options.add(option)
    option("-k", metavar="WORDS", default="", help="only tests with matching names")
    option("-m", metavar="MARKS", default="", help="-m 'not slow': without slow tests")
    parser.set_defaults(run=run, actions=actions)


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 on")
    return int(word)


def _count_or_none(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 0 on")
    return int(word)


def _span(word: str) -> float:
    found = _SPAN.fullmatch(word)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{word!r} is no time such as 90s, 30m, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2]]


def run(arguments: argparse.Namespace) -> int:
    """Carry out a release, or what is left of one."""
    directory = Directory(arguments.to)
    if arguments.dry_run:
        asked = directory.asked() if arguments.resume else _asked(arguments)
        return _show(arguments, asked)
    fresh = None if arguments.resume else _asked(arguments)
    if arguments.resume and (arguments.images or _words(arguments) or arguments.engine):
        raise UsageError(
            "--resume: the images and the options of the suite are those of the release in "
            f"{arguments.to}.",
            "Leave them out, or begin another release with --to DIR.",
        )
    where = _where()
    with directory.locked():
        if fresh is not None:
            directory.begin(fresh)
        asked = directory.asked()
        if asked.mlcheck_version != mlcheck.__version__:
            common.progress(
                f"this release was begun with mlcheck {asked.mlcheck_version}; this is "
                f"{mlcheck.__version__}"
            )
        entries = _entries(directory, asked.jobs)
        if any(entry.state == "waits" for entry in entries):
            try:
                with _as_interrupts():
                    _work(where, arguments, asked, directory, entries)
            except KeyboardInterrupt:
                common.progress(
                    f"interrupted. What was judged is in {directory.path}; "
                    f"mlcheck release --resume --to {directory.path} judges the rest"
                )
                return INTERRUPTED
        return _join(directory, asked, entries)


def _where() -> ModuleType:
    """Import what speaks to Dask.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from mlcheck.release import where
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "mlcheck":
            raise
        raise UsageError(
            f"mlcheck release needs {error.name}, which is not installed.",
            f"It comes with an extra: pip install '{mlcheck.DISTRIBUTION}[cluster]'",
        ) from None
    return where


def _asked(arguments: argparse.Namespace) -> Asked:
    """Return what the command line asks for.

    Raises:
        UsageError: no image is named, or one cannot be judged.
    """
    if not arguments.images:
        raise UsageError(
            "mlcheck release: no image was given.",
            "Name some: mlcheck release all, or mlcheck release IMAGE ...; `mlcheck images` lists "
            "those that are published.",
        )
    engines = list(dict.fromkeys(arguments.engine)) or [select.AUTO]
    catalog = common.catalog(arguments)
    if arguments.profile is not None:
        common.chosen_profile(arguments)
    jobs = of_images(catalog, arguments.images, engines, arguments.profile)
    settings = _settings(arguments)
    if settings["on"] == "local":
        for job in jobs:
            select.check_exists(understood(job.image))
    _where().check(settings["on"])
    words = _words(arguments)
    if arguments.require_gpu:
        settings["require_gpu"] = True
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Asked(started, tuple(words), tuple(jobs), settings)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how the release is carried out, with defaults."""
    typed = {name: getattr(arguments, name) for name in _DEFAULTS}
    return {
        name: default if typed[name] is None else typed[name] for name, default in _DEFAULTS.items()
    }


def _words(arguments: argparse.Namespace) -> list[str]:
    """Return the options of the suite that were typed, as any machine may read them."""
    found = []
    for action in arguments.actions:
        name = action.option_strings[-1]
        value = getattr(arguments, action.dest)
        if name in _APART or value == action.default:
            continue
        if value is True:
            found.append(name)
        for one in value if isinstance(value, list) else [] if value is True else [value]:
            if name in _PATHS:
                one = Path.cwd() / one
                if not one.exists():
                    raise UsageError(f"{name} {one}: there is no such file or directory.")
            elif name == "--bind":
                one = Path.cwd() / one  # its first part is the directory
            elif name == "--compare":
                one = absolute(understood(one)).text
            found.append(f"{name}={one}")
    return found


def _entries(directory: Directory, jobs: Sequence[Job]) -> list[Entry]:
    """Return the jobs: those that are judged, then the others, the longest first."""
    found = []
    for job in jobs:
        report = directory.report(job)
        if report is not None and is_judged(report):
            found.append(Entry(job, "judged", verdict(report)))
    judged = {entry.job for entry in found}
    rest = longest_first([job for job in jobs if job not in judged], times.known())
    return [*found, *map(Entry, rest)]


def _wanted(where: ModuleType, settings: dict[str, Any], jobs: Sequence[Job], logs: Path) -> Any:
    return where.Wanted(
        on=settings["on"],
        workers=settings["workers"],
        gpu_workers=settings["gpu_workers"],
        gpu_directives=tuple(settings["gpu_directive"]),
        jobs={kind: sum(job.gpu == kind for job in jobs) for kind in (False, True)},
        logs=logs,
    )


def _commands(asked: Asked, gpu_apart: bool) -> dict[Job, list[str]]:
    """Return the words of `mlcheck check` for each job."""
    nv = any(word.startswith("--nv") for word in asked.options)
    found = {}
    for job in asked.jobs:
        words = [job.image, f"--engine={job.engine}", *asked.options]
        if job.gpu and asked.settings.get("require_gpu"):
            words.append("--require-gpu")
        elif job.gpu and gpu_apart and not nv:
            words.append("--nv=auto")  # who has asked for a GPU uses it
        found[job] = words
    return found


def _work(
    where: ModuleType,
    arguments: argparse.Namespace,
    asked: Asked,
    directory: Directory,
    entries: Sequence[Entry],
) -> None:
    from mlcheck.release.pool import DaskPool

    settings = {**asked.settings, **_typed(arguments)}
    todo = [entry.job for entry in entries if entry.state == "waits"]
    logs = directory.workers.absolute()
    wanted = _wanted(where, settings, todo, logs)
    took: dict[tuple[str, str], float] = {}
    judged = len(entries) - len(todo)
    common.progress(
        f"{len(entries)} jobs on {settings['on']}" + (f", {judged} judged before" * (judged > 0))
    )
    with where.quiet(logs), where.groups(wanted) as groups:
        apart = groups[True] is not groups[False]
        pool = DaskPool(groups, _commands(asked, apart), settings["job_limit"])
        work = Work(
            entries,
            pool,
            directory,
            _screen(entries),
            retries=settings["retries"],
            wait_limit_s=settings["wait_limit"],
            judged=lambda job, seconds: took.update({(job.image, job.engine): seconds}),
        )
        try:
            work.run()
        except EngineError as error:
            error.remedy = error.remedy or "`mlcheck release --resume` judges the rest."
            raise
        finally:
            times.keep(took)
            pool.cancel()


def _typed(arguments: argparse.Namespace) -> dict[str, Any]:
    found = {name: getattr(arguments, name) for name in _DEFAULTS}
    return {name: value for name, value in found.items() if value is not None}


def _screen(entries: Sequence[Entry]) -> Screen:
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Table(sys.stderr, lambda: shutil.get_terminal_size())
    done = sum(entry.state == "judged" for entry in entries)
    return Lines(sys.stderr, len(entries), done)


@contextlib.contextmanager
def _as_interrupts() -> Iterator[None]:
    """Have what ends a process in an orderly way (a CI, a lost terminal) end it as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores the second one
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _join(directory: Directory, asked: Asked, entries: Sequence[Entry]) -> int:
    """Write the joined reports, say what was not judged, and return the exit code."""
    states = {entry.job: entry for entry in entries}
    found = [(job, directory.report(job), states[job].reason) for job in asked.jobs]
    report = joined.join(found, asked.started)
    summary.write(summary.Plain(sys.stdout), report)
    missing = [entry for entry in entries if entry.state != "judged"]
    if missing:
        print(f"\nnot judged: {len(missing)} of {len(entries)} jobs")
        for entry in missing:
            reason = text.line(" ".join(entry.reason.split()))
            print(text.line(f"  {entry.job.image} {entry.job.engine}: {reason}"))
        print(text.line(f"mlcheck release --resume --to {directory.path} tries them again"))
    for file in directory.write(joined.written(report)):
        common.progress(str(file))
    return report.exit_code if not missing or report.exit_code == 1 else NOT_JUDGED


def _show(arguments: argparse.Namespace, asked: Asked) -> int:
    """Print the jobs and what would be submitted."""
    settings = {**asked.settings, **_typed(arguments)}
    jobs = longest_first(asked.jobs, times.known())
    width = max(len(job.image) for job in jobs)
    for job in jobs:
        print(text.line(f"{job.image:{width}}  {job.engine}{'  GPU' * job.gpu}"))
    where = _where()
    logs = Directory(arguments.to).workers.absolute()
    with janitor.temporary_directory() as scratch:
        wanted = _wanted(where, settings, jobs, scratch)
        with where.quiet(scratch):
            scripts = where.scripts(wanted)
        for script in scripts:
            print()
            print(text.lines(script.replace(str(scratch), str(logs))).rstrip())
    return 0
