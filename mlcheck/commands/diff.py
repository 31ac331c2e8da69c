"""`mlcheck diff`: in what two images differ."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mlcheck.checks import differences, parity
from mlcheck.checks.differences import ASPECTS, Compared, Difference
from mlcheck.commands import common
from mlcheck.engines.base import OpenImage
from mlcheck.errors import DIFFERENT
from mlcheck.facts import ImageFiles, Side
from mlcheck.probes import Questions
from mlcheck.probes import parity as parity_probe
from mlcheck.profile import Profile
from mlcheck.report import text


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `diff`."""
    parser = common.add_command(
        commands,
        "diff",
        run,
        "a",
        "b",
        help="compare two images: packages, kernels, tools, environment, files",
        description="Compare two images: operating system, packages (who installed them, in which "
        "version), Jupyter kernels, programs on PATH, variables and start, and files. Nothing runs "
        "in the images but rpm and micromamba, where only they know what is installed. The exit "
        "code is 0 if they are the same, 1 if they differ, 4 for a mistake, 3 if an image could "
        "not be read.",
        epilog="examples:\n  mlcheck diff me/notebook-cpu:v1 me/notebook-gpu:v1\n"
        "  mlcheck diff ./before ./after --no-files --json",
    )
    parser.add_argument(
        "--profile",
        metavar="NAME[:TAG]",
        help="leave out what [parity] in this profile allows to differ (default: nothing)",
    )
    parser.add_argument(
        "--no-files", action="store_true", help="do not read and compare every file"
    )


@dataclass(frozen=True, slots=True)
class _Read:
    side: Side
    files: ImageFiles | None


def run(arguments: argparse.Namespace) -> int:
    """Print the differences; the exit code says if there are any that are not allowed."""
    profile = _profile(arguments)
    with common.opened(arguments, "a") as image:
        a = _read(arguments, image, profile)
    with common.opened(arguments, "b") as image:
        b = _read(arguments, image, profile)
    compared = {aspect: compare(a.side, b.side) for aspect, compare in ASPECTS.items()}
    if a.files is not None and b.files is not None:
        compared["files"] = parity.file_difference(a.side, b.side, a.files, b.files, profile)
    count = 0
    shown = {}
    for aspect, found in compared.items():
        reasons = [(d, parity.allowed(d, profile)) for d in found.differences]
        count += sum(reason is None for _, reason in reasons)
        shown[aspect] = reasons
    if arguments.json:
        _print_json(a.side, b.side, compared, shown)
    else:
        _print(a.side, b.side, compared, shown, count)
    return DIFFERENT if count else 0


_Shown = dict[differences.Aspect, list[tuple[Difference, str | None]]]
_All = dict[differences.Aspect, Compared]


def _print_json(a: Side, b: Side, compared: _All, shown: _Shown) -> None:
    common.print_json(
        {
            "a": a.name,
            "b": b.name,
            "differences": [
                {
                    "aspect": aspect,
                    "subject": text.printable(d.subject),
                    "a": text.printable(d.a),
                    "b": text.printable(d.b),
                    "allowed": reason,
                }
                for aspect, reasons in shown.items()
                for d, reason in reasons
            ],
            "compared": {aspect: found.count for aspect, found in compared.items()},
            "notes": [text.printable(n) for found in compared.values() for n in found.notes],
        }
    )


def _print(a: Side, b: Side, compared: _All, shown: _Shown, count: int) -> None:
    print(text.printable(f"--- {a.name}"))
    print(text.printable(f"+++ {b.name}"))
    for aspect, reasons in shown.items():
        open_ = [d for d, reason in reasons if reason is None]
        may = len(reasons) - len(open_)
        said = f"{len(open_)} of {compared[aspect].count} differ" if open_ else "the same"
        print(f"\n{aspect}: {said}" + (f", {may} more are allowed to" if may else ""))
        for d in open_:
            print(text.printable(f"  {d.subject}"))
            print(common.painted("red", text.printable(f"    - {d.a}")))
            print(common.painted("green", text.printable(f"    + {d.b}")))
        for note in compared[aspect].notes:
            common.progress(f"{aspect}: {note}")
    print(f"\n{count} difference{'s' * (count != 1)}" if count else "\nno difference")


def _read(arguments: argparse.Namespace, image: OpenImage, profile: Profile) -> _Read:
    prefix = profile.expect.prefix or _prefix(arguments, image)
    with common.asking(arguments, image) as static:
        side = parity_probe.probe(image, static, prefix, image.ref.text)
        files = None if arguments.no_files else static(parity_probe.files, image.rootfs, prefix)
    return _Read(side, files)


def _profile(arguments: argparse.Namespace) -> Profile:
    """The profile that says what may differ."""
    if arguments.profile is None:
        return Profile.of({})
    name, _, tag = arguments.profile.partition(":")
    return common.catalog(arguments).load(name, tag or None)


def _prefix(arguments: argparse.Namespace, image: OpenImage) -> str | None:
    """Root of the conda environment: as the image's own profile says, or conda's usual one."""
    catalog = common.catalog(arguments)
    known = catalog.name_of(image.ref.name)
    prefix = catalog.load(known).expect.prefix if known else None
    usual = Questions().prefix
    return prefix or (usual if image.rootfs.resolve(usual).final else None)
