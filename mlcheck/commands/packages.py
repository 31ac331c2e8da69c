"""`mlcheck packages`: what is installed in an image."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import asdict, dataclass

from mlcheck.checks import packages as checks
from mlcheck.commands import common
from mlcheck.errors import UsageError
from mlcheck.facts import KIND_WORDS, InstalledPackages, PackageList, Prefixes
from mlcheck.image import ImageRef
from mlcheck.probes import Questions, installed, package_list, prefixes
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
        environment: root of the environment that it is in; None: it is the system's.
    """

    name: str
    version: str
    source: str
    arch: str
    environment: str | None


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `packages`."""
    parser = common.add_command(
        commands,
        "packages",
        run,
        "image",
        help="list the packages in an image, as its package managers' own records say",
        description="List what is installed in an image: name, version, who installed it (conda, "
        "pip, rpm, dpkg), and in which environment. All environments of conda and Python in the "
        "image are looked for. It is read from the records of the package managers in the image; "
        "a note says how the image's own package list differs.",
        epilog="examples:\n  mlcheck packages ml-pyroot:alma9-python311\n"
        "  mlcheck packages --json ./ml-pyroot.sif",
    )
    common.add_profile(parser, "list the environment alone that this profile names (prefix)")


def run(arguments: argparse.Namespace) -> int:
    """Print the packages; notes go to stderr, or into the JSON."""
    chosen = common.chosen_profile(arguments)
    with common.opened(arguments) as image, common.asking(arguments, image) as static:
        profile = chosen or _profile(arguments, image.ref)
        prefix = profile.expect.prefix
        environments = (
            static(prefixes.at, image.rootfs, prefix)
            if chosen and prefix
            else static(prefixes.find, image.rootfs)
        )
        there = installed.probe(image, static, environments)
        path = profile.expect.packages.list or Questions().package_list
        listed = static(package_list.read, image.rootfs, path)
        is_there = image.rootfs.resolve(path).file is not None
        real = prefix and image.rootfs.resolve(prefix).final_path
    found = rows(there)
    notes = [*there.notes, *(f"{p.path} {p.what}" for p in there.problems)]
    if is_there or profile.expect.packages.list:
        about = _of(there, environments, prefix, real)
        notes += [note] if (note := comparison(listed, about, profile)) else []
    held = [(one, sum(row.environment == one.path for row in found)) for one in environments.found]
    if arguments.json:
        told = [{"path": one.path, "kind": one.kind, "packages": count} for one, count in held]
        rows_ = [asdict(row) for row in found]
        common.print_json({"packages": rows_, "environments": told, "notes": notes})
        return 0
    widths = [max((len(getattr(row, key)) for row in found), default=0) for key in _COLUMNS]
    for row in found:
        cells = [f"{getattr(row, key):{n}}" for key, n in zip(_COLUMNS, widths, strict=True)]
        print(text.printable("  ".join([*cells, row.environment or ""]).rstrip()))
    for one, count in held:
        packages = f"{count} package{'s' * (count != 1)}"
        common.progress(f"{one.path}: {KIND_WORDS[one.kind]}, {packages}")
    for line in notes:
        common.progress(line)
    return 0


_COLUMNS = ("name", "version", "source")


def rows(there: InstalledPackages) -> list[Row]:
    """What is installed, sorted by name; a package of conda is not pip's too."""
    found = [
        Row(p.name, p.version, _SOURCES.get(p.source, p.source), p.arch, p.prefix or None)
        for p in there.packages
        if not p.owner
    ]
    return sorted(
        found,
        key=lambda row: (
            *(row.name.lower(), row.source, row.environment or "", row.version, row.arch),
        ),
    )


def _of(
    there: InstalledPackages, environments: Prefixes, prefix: str | None, real: str | None
) -> InstalledPackages:
    """What a package list is about: the profile's environment, else conda's, else all."""
    about = {prefix, real} - {None}
    if not about:
        about = {one.path for one in environments.found if one.kind == "conda"}
    if not about:
        return there
    packages = tuple(p for p in there.packages if p.prefix in ("", *about))
    return dataclasses.replace(there, packages=packages)


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
