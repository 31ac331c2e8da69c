"""Images that no profile knows: they are judged by what holds for every image."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcheck import cache
from mlcheck.engines import select
from mlcheck.engines.base import OpenImage, Progress, PullPolicy
from mlcheck.inspect import rules
from mlcheck.inspect.conda import records as conda_records
from mlcheck.inspect.facts import Facts
from mlcheck.inspect.jupyter import kernelspecs
from mlcheck.inspect.packages import asked_for, distributions
from mlcheck.inspect.packages.asked_for import module_of
from mlcheck.inspect.packages.facts import InstalledPackages, Requested
from mlcheck.inspect.parity import probe as programs
from mlcheck.inspect.prefix.chosen import prefix_of
from mlcheck.inspect.prefix.facts import Environments
from mlcheck.inspect.probe_catalog import facts_about
from mlcheck.inspect.system.programs import COMMANDS
from mlcheck.model.errors import MlcheckError, ProbeError, UsageError, raising_only
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import Catalog, can_say

_NAMED = 3
"""Directories that are named, of many that cannot be read."""

_NEAR = 0.8
"""Likeness from which a name is taken for a misspelt one of a profile."""


def is_meant(ref: ImageRef, catalog: Catalog, directories: Sequence[str]) -> bool:
    """Return whether an image without a profile is meant to have none.

    Where the user named profiles, a missing one is a mistake: a rule that is not judged must not
    count as one that holds. So is a name that resembles a known one, unless such an image is here.

    Args:
        directories: of --profiles.
    """
    own = set(directories).difference(map(str, rules.directories()))
    if own or catalog.name_of(ref.name) is not None:
        return False
    near = difflib.get_close_matches(ref.name, catalog.names(), 1, _NEAR)
    return not near or ref.kind != "registry" or bool(select.stores_with(ref))


@dataclass(frozen=True, slots=True)
class Found:
    """The expectations that hold for an image without a profile.

    Args:
        data: as of a profile.
        troubles: why something in it could not be looked for: what would be expected of that is
            not judged.
        notes: what may have been missed beside what was found.
    """

    data: dict[str, Any]
    troubles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def expectations(
    ref: ImageRef, engine: str, pull: PullPolicy, progress: Progress, since_ns: int
) -> Found:
    """Return what holds for every image, as the data of a profile: what it has for its users works.

    That is its start, its environment, its programs, its Python's packages, and its kernels. An
    image that cannot be opened has none of them; its rules end with the engine's error.

    Args:
        since_ns: a time before the image is opened.

    Raises:
        UsageError: the image does not exist.
    """
    select.check_exists(ref)
    try:
        with (
            raising_only(ProbeError, "looking at the image"),
            select.prepare(ref, engine, pull=pull, progress=progress) as prepared,
            select.opened(prepared, engine) as image,
        ):
            return _of(image, facts_about(image, cache.asking(image, since_ns)))
    except UsageError:
        raise
    except MlcheckError as error:
        return Found({}, (error.what,))


def _of(image: OpenImage, facts: Facts) -> Found:
    found: dict[str, Any] = {}
    troubles: list[str] = []

    def look(what: str, find: Callable[[], dict[str, Any]]) -> None:
        """Add what is found; what cannot be read keeps nothing else from being judged."""
        try:
            with raising_only(ProbeError, "looking for it"):
                found.update(find())
        except MlcheckError as error:
            troubles.append(f"{what}: {error.what}")

    rootfs, environment = image.rootfs, image.environment
    if environment.entrypoint or environment.cmd or environment.user:
        found["startable"] = True
    tools: dict[str, str] = {}

    def programs_there() -> dict[str, Any]:
        tools.update(facts.ask(programs.tools, rootfs, environment).paths)
        commands = {name: argv for name, argv in COMMANDS.items() if name in tools}
        return {"commands": commands} if commands else {}

    look("programs", programs_there)
    look("the environment", lambda: _environment(image, facts, tools))
    prefix = found.get("prefix")
    # Nobody imports or starts anything in an environment without a word of where it is.
    if prefix is not None and tools.get("python3", "").startswith(_bin(prefix)):
        look("packages", lambda: _packages(facts, prefix))
        if "jupyter" in tools:
            look("kernels", lambda: _kernels(facts, prefix))
    unread = [problem.path for problem in facts[Environments].problems]
    if not unread or any(one.startswith("the environment:") for one in troubles):
        return Found(found, tuple(troubles))
    more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
    said = f"{', '.join(unread[:_NAMED])}{more} cannot be looked into: an environment may be there"
    if prefix is None:
        return Found(found, (*troubles, said))
    return Found(found, tuple(troubles), (said,))


def _environment(image: OpenImage, facts: Facts, tools: Mapping[str, str]) -> dict[str, Any]:
    """Return the environment in which the image's users work: the system's, if there is no other
    and it has a Python."""
    every = facts[Environments]
    prefix = prefix_of(image.rootfs, image.environment, tools, every)
    python = tools.get("python3", "")
    for system in ("/usr/local", "/usr") if prefix is None else ():
        if prefix is None and python.startswith(_bin(system)):
            prefix = system
    if prefix is None:
        return {}
    real = image.rootfs.resolve(prefix).final_path
    conda = any(one.path == real and one.kind == "conda" for one in every.found)
    # conda's packages work wherever their prefix is put.
    return {"prefix": prefix, "rpath": {"forbidden": [prefix]} if conda else {}}


def _bin(prefix: str) -> tuple[str, ...]:
    """Return the beginnings of the names of an environment's programs."""
    return ("/usr/bin/", "/bin/") if prefix == "/usr" else (f"{prefix}/",)


def _required(packages: Mapping[str, Any]) -> dict[str, Any]:
    return {"packages": {"required": packages}}


def _kernelspecs(kernels: Mapping[str, Any]) -> dict[str, Any]:
    generations = {"generation": "found", "generations": {"found": kernels}}
    return {"kernelspecs": {**generations, "clean": False}}


def _packages(facts: Facts, prefix: str) -> dict[str, Any]:
    """Return the packages that were asked for and have a module to import.

    Of the system's Python that is what pip was asked for: nobody knows it of the system's packages.
    """
    rootfs = facts.image.rootfs
    of = facts.expecting(prefix=prefix)
    asked = asked_for.probe(
        rootfs,
        of[InstalledPackages],
        of[Requested],
        conda_records.read(rootfs, prefix),
        of.ask(distributions.probe, rootfs, prefix),
    )
    if prefix == "/usr" and asked.leaves:
        return {}
    modules = {package.name: module_of(package) for package in asked.packages}
    wanted = {
        name: {} if module is True else {"import": module}
        for name, module in modules.items()
        if module
    }
    known = {name: one for name, one in wanted.items() if can_say(_required({name: one}))}
    return _required(known) if known else {}


def _kernels(facts: Facts, prefix: str) -> dict[str, Any]:
    """Return the kernels of the environment, and those of other languages."""
    specs = facts.ask(kernelspecs.from_files, facts.image.rootfs, facts.image.environment).specs
    there = {
        spec.name: {"argv": spec.argv, "language": spec.language}
        for spec in reversed(specs)
        if spec.language.lower() != "python" or (spec.argv0 or "").startswith(f"{prefix}/")
    }
    known = {name: one for name, one in there.items() if can_say(_kernelspecs({name: one}))}
    return _kernelspecs(known) if known else {}
