"""`mlcheck diff`: list the differences between two images."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mlcheck.cli import common
from mlcheck.engines.base import OpenImage
from mlcheck.inspect.parity import allowances, differences
from mlcheck.inspect.parity.differences import ASPECTS, Compared, Difference
from mlcheck.inspect.parity.facts import ImageFiles, Side
from mlcheck.inspect.prefix.facts import KIND_WORDS, Prefixes
from mlcheck.inspect.probe_catalog import facts_about, to_json
from mlcheck.model.errors import DIFFERENT, NOTHING_JUDGED
from mlcheck.profile.catalog import Profile
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
        description="Compare two images: operating system, environments of conda and Python, "
        "packages (installers and versions), Jupyter kernels, programs on PATH, variables and "
        "start, and files. All environments in the images are compared, wherever they are. "
        "Nothing runs in the images except rpm and micromamba, if only they know what is "
        "installed. The exit code is 0 if the images are the same, 1 if they differ, 4 for a "
        "mistake, 3 if an image could not be read, 5 if there was nothing to compare.",
        epilog="examples:\n  mlcheck diff me/notebook-cpu:v1 me/notebook-gpu:v1\n"
        "  mlcheck diff ./before ./after --no-files --json",
    )
    common.add_profile(
        parser, "leave out differences that [parity] in this profile allows (default: none)"
    )
    parser.add_argument(
        "--no-files", action="store_true", help="do not read and compare every file"
    )


@dataclass(frozen=True, slots=True)
class _Read:
    side: Side
    files: ImageFiles | None


def run(arguments: argparse.Namespace) -> int:
    """Print the differences; the exit code says whether any of them is not allowed."""
    profile = common.chosen_profile(arguments) or Profile.of({})
    with common.opened(arguments, "a") as image:
        a = _read(arguments, image)
    with common.opened(arguments, "b") as image:
        b = _read(arguments, image)
    compared = {aspect: compare(a.side, b.side) for aspect, compare in ASPECTS.items()}
    if a.files is not None and b.files is not None:
        compared["files"] = allowances.compare_files(a.side, b.side, a.files, b.files, profile)
    count = 0
    shown = {}
    for aspect, found in compared.items():
        reasons = [(d, allowances.reason(d, profile)) for d in found.differences]
        count += sum(reason is None for _, reason in reasons)
        shown[aspect] = reasons
    if arguments.json:
        _print_json(a.side, b.side, compared, shown)
    else:
        _print(a.side, b.side, compared, shown, count)
    if not count and not any(found.count for found in compared.values()):
        common.progress("nothing was compared: neither image has anything of what was looked for")
        return NOTHING_JUDGED
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
            "not_compared": [
                text.printable(m) for found in compared.values() for m in found.missed
            ],
            "environments": {
                name: [to_json(one) for one in side.environments.found]
                for name, side in (("a", a), ("b", b))
            },
            "notes": [text.printable(n) for found in compared.values() for n in found.notes],
        }
    )


def _print(a: Side, b: Side, compared: _All, shown: _Shown, count: int) -> None:
    print(text.line(f"--- {a.name}"))
    print(text.line(f"+++ {b.name}"))
    for side in (a, b):
        common.progress(f"{side.name}: {_environments(side.environments)}")
    for aspect, reasons in shown.items():
        open_ = [d for d, reason in reasons if reason is None]
        may = len(reasons) - len(open_)
        found = compared[aspect]
        said = f"{len(open_)} of {found.count} differ" if open_ else "the same"
        if not open_ and not found.count:
            said = "nothing was compared" if found.missed else "neither image has any"
        print(f"\n{aspect}: {said}" + (f", {may} more are allowed to" if may else ""))
        for d in open_:
            print(text.line(f"  {d.subject}"))
            print(common.painted("red", text.line(f"    - {d.a}")))
            print(common.painted("green", text.line(f"    + {d.b}")))
        for missed in found.missed:
            print(text.line(f"  not compared: {missed}"))
        for note in found.notes:
            common.progress(f"{aspect}: {note}")
    if count:
        print(f"\n{count} difference{'s' * (count != 1)}")
    elif any(found.count for found in compared.values()):
        whole = not any(found.missed for found in compared.values())
        print("\nno difference" + ("" if whole else " in what was compared"))


def _environments(found: Prefixes) -> str:
    if not found.found:
        return f"no environment of conda or Python: {found.searched}"
    return ", ".join(f"{one.path} ({KIND_WORDS[one.kind]})" for one in found.found)


def _read(arguments: argparse.Namespace, image: OpenImage) -> _Read:
    with common.asking(arguments, image) as static:
        facts = facts_about(image, static)
        return _Read(facts[Side], None if arguments.no_files else facts[ImageFiles])
