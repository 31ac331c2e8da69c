"""`mlcheck packages`: what is installed in an image."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from mlcheck.checks import packages as checks
from mlcheck.commands import common
from mlcheck.errors import UsageError
from mlcheck.facts import InstalledPackages, PackageList
from mlcheck.image import ImageRef
from mlcheck.probes import Questions, installed, package_list
from mlcheck.profile import Profile
from mlcheck.report import text

_SOURCES = {"dist-info": "pip"}
"""What users call a source of packages, where it is another word than ours."""


@dataclass(frozen=True, slots=True)
class Row:
    """One package.

    Args:
        source: "conda", "pip", "rpm", "dpkg" or "micromamba": whose records say so.
        arch: of rpm and dpkg, else "".
    """

    name: str
    version: str
    source: str
    arch: str


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `packages`."""
    common.add_command(
        commands,
        "packages",
        run,
        "image",
        help="list the packages in an image, as its package managers' own records say",
        description="List what is installed in an image: name, version, and who installed it "
        "(conda, pip, rpm, dpkg). It is read from the records of the package managers in the "
        "image; a note says how the image's own package list differs.",
        epilog="examples:\n  mlcheck packages ml-pyroot:alma9-python311\n"
        "  mlcheck packages --json ./ml-pyroot.sif",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the packages; notes go to stderr, or into the JSON."""
    with common.opened(arguments) as image, common.asking(arguments, image) as static:
        profile = _profile(arguments, image.ref)
        ask = Questions()
        prefix = profile.expect.prefix or ask.prefix
        there = installed.probe(image, static, prefix)
        path = profile.expect.packages.list or ask.package_list
        listed = static(package_list.read, image.rootfs, path)
    found = rows(there)
    notes = [*there.notes, *(f"{p.path} {p.what}" for p in there.problems)]
    notes += [note] if (note := comparison(listed, there, profile)) else []
    if arguments.json:
        common.print_json({"packages": [asdict(row) for row in found], "notes": notes})
        return 0
    widths = [max((len(getattr(row, key)) for row in found), default=0) for key in _COLUMNS]
    for row in found:
        cells = zip((row.name, row.version), widths, strict=True)
        print(text.printable("  ".join([*(f"{cell:{n}}" for cell, n in cells), row.source])))
    for line in notes:
        common.progress(line)
    return 0


_COLUMNS = ("name", "version")


def rows(there: InstalledPackages) -> list[Row]:
    """What is installed, sorted by name; a package of conda is not pip's too."""
    found = [
        Row(p.name, p.version, _SOURCES.get(p.source, p.source), p.arch)
        for p in there.packages
        if not p.owner
    ]
    return sorted(found, key=lambda row: (row.name.lower(), row.source, row.version, row.arch))


def comparison(listed: PackageList, there: InstalledPackages, profile: Profile) -> str | None:
    """How the image's own list differs, in a sentence; None: it does not."""
    if not listed.entries:
        said = "; ".join(problem.what for problem in listed.problems) or "lists no package"
        return f"{listed.path} {said}."
    differing = checks.list_installed(listed, there, profile).findings
    if not differing:
        return None
    count = f"{len(differing)} package{'s' * (len(differing) != 1)}"
    return (
        f"{listed.path} differs from what is installed in {count}: "
        "`mlcheck check` of this image with -k is_what_is_installed says in which."
    )


def _profile(arguments: argparse.Namespace, ref: ImageRef) -> Profile:
    """What is expected of the image; nothing, when its name means no profile."""
    catalog = common.catalog(arguments)
    if catalog.name_of(ref.name) is None:
        return Profile.of({})
    try:
        return catalog.load(ref.name, ref.tag)
    except UsageError:  # no tag of that image
        return catalog.load(ref.name)
