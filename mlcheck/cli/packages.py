"""`mlcheck packages`: list the packages installed in an image."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import asdict, dataclass

from mlcheck.cli import common
from mlcheck.inspect.packages import list_differences
from mlcheck.inspect.packages.facts import InstalledPackages, ListedPackages, PackageList
from mlcheck.inspect.prefix.facts import KIND_WORDS, Environments, Prefixes
from mlcheck.inspect.probe_catalog import facts_about
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import Profile
from mlcheck.report import text

_SOURCES = {"dist-info": "pip"}
"""Sources of packages that users call by another name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One package.

    Args:
        source: the records that list it: "conda", "pip", "rpm", "dpkg", "apk" or
            "micromamba".
        arch: architecture of rpm and dpkg packages, else "".
        environment: root of its environment; None for the system.
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
        help="list the packages in an image, from the records of its package managers",
        description="List the packages in an image: name, version, installer (conda, pip, rpm, "
        "dpkg) and environment. The packages are read from the records of the image's package "
        "managers, in all environments of conda and Python. A note says how the image's own "
        "package list differs.",
        epilog="examples:\n  mlcheck packages ml-pyroot:alma9-python311\n"
        "  mlcheck packages --json ./ml-pyroot.sif",
    )
    common.add_profile(parser, "list only the environment that this profile names (prefix)")


def run(arguments: argparse.Namespace) -> int:
    """Print the packages; notes go to stderr, or into the JSON."""
    chosen = common.chosen_profile(arguments)
    with common.opened(arguments) as image, common.asking(arguments, image) as static:
        profile = chosen or _profile(arguments, image.ref)
        prefix = profile.expect.prefix
        # The prefix counts where it was asked for: else all environments are listed.
        asked = profile.expect.model_copy(update={"prefix": prefix if chosen else None})
        facts = facts_about(image, static, dataclasses.replace(profile, expect=asked))
        environments, there = facts[Environments], facts[InstalledPackages]
        listed, path = facts[ListedPackages], facts.profile.expect.packages.list or ""
        is_there = image.rootfs.resolve(path).file is not None
        real = prefix and image.rootfs.resolve(prefix).final_path
    found = rows(there)
    notes = [*there.notes, *(f"{p.path} {p.what}" for p in there.problems)]
    notes += [f"{p.path} is not listed: {p.why}" for p in there.hidden]
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
        print(text.line("  ".join([*cells, row.environment or ""]).rstrip()))
    for one, count in held:
        packages = f"{count} package{'s' * (count != 1)}"
        common.progress(f"{one.path}: {KIND_WORDS[one.kind]}, {packages}")
    for line in notes:
        common.progress(line)
    return 0


_COLUMNS = ("name", "version", "source")


def rows(there: InstalledPackages) -> list[Row]:
    """List what is installed, sorted by name; a conda package is not listed for pip again."""
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
    """Select the packages that a list covers: the profile's environment, else conda's, else all."""
    about = {prefix, real} - {None}
    if not about:
        about = {one.path for one in environments.found if one.kind == "conda"}
    if not about:
        return there
    packages = tuple(p for p in there.packages if p.prefix in ("", *about))
    return dataclasses.replace(there, packages=packages)


def comparison(listed: PackageList, there: InstalledPackages, profile: Profile) -> str | None:
    """Say how the image's own list differs, in a sentence; None if it does not."""
    if not listed.entries:
        said = "; ".join(problem.what for problem in listed.problems) or "lists no package"
        return f"{listed.path} {said}."
    differing = list_differences.differences(listed, there, profile)
    if not differing:
        return None
    count = f"{len(differing)} package{'s' * (len(differing) != 1)}"
    return (
        f"{listed.path} differs from what is installed in {count}: "
        "`mlcheck check` of this image with --rule package-list-installed says in which."
    )


def _profile(arguments: argparse.Namespace, ref: ImageRef) -> Profile:
    """Return the profile of the image; an empty one if its name has none."""
    catalog = common.catalog(arguments)
    if catalog.name_of(ref.name) is None:
        return Profile.of({})
    try:
        return catalog.load(ref.name, ref.tag)
    except UsageError:  # the image has no such tag
        return catalog.load(ref.name)
