"""Images that no profile knows: they are judged by what holds for every image."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
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
from mlcheck.model.errors import MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import Catalog, can_say

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


def expectations(
    ref: ImageRef, engine: str, pull: PullPolicy, progress: Progress, since_ns: int
) -> dict[str, Any]:
    """Return what holds for every image, as the data of a profile: what it has for its users works.

    That is its environment, its programs, its Python's packages, and its kernels. An image that
    cannot be opened has none of them; its rules end with the engine's error.

    Args:
        since_ns: a time before the image is opened.

    Raises:
        UsageError: the image does not exist.
    """
    select.check_exists(ref)
    try:
        with (
            select.prepare(ref, engine, pull=pull, progress=progress) as prepared,
            select.opened(prepared, engine) as image,
        ):
            return _of(image, facts_about(image, cache.asking(image, since_ns)))
    except UsageError:
        raise
    except MlcheckError as error:
        progress(f"what it has for its users is not tried: {error.what}")
        return {}


def _of(image: OpenImage, facts: Facts) -> dict[str, Any]:
    rootfs, environment = image.rootfs, image.environment
    tools = facts.ask(programs.tools, rootfs, environment).paths
    every = facts[Environments]
    commands = {name: argv for name, argv in COMMANDS.items() if name in tools}
    found: dict[str, Any] = {"commands": commands} if commands else {}
    prefix = prefix_of(rootfs, environment, tools, every)
    if prefix is None and tools.get("python3", "").startswith("/usr/local/bin/"):
        prefix = "/usr/local"
    if prefix is None:
        return found
    real = rootfs.resolve(prefix).final_path
    conda = any(one.path == real and one.kind == "conda" for one in every.found)
    # conda's packages work wherever their prefix is put.
    found |= {"prefix": prefix, "rpath": {"forbidden": [prefix]} if conda else {}}
    if not tools.get("python3", "").startswith(f"{prefix}/"):
        return found  # nobody imports or starts anything there without a word of where it is
    if packages := _packages(facts, prefix):
        found |= _required(packages)
    if kernels := _kernels(facts, prefix) if "jupyter" in tools else {}:
        found |= _kernelspecs(kernels)
    return found


def _required(packages: Mapping[str, Any]) -> dict[str, Any]:
    return {"packages": {"required": packages}}


def _kernelspecs(kernels: Mapping[str, Any]) -> dict[str, Any]:
    generations = {"generation": "found", "generations": {"found": kernels}}
    return {"kernelspecs": {**generations, "clean": False}}


def _packages(facts: Facts, prefix: str) -> dict[str, Any]:
    """Return the packages that were asked for and have a module to import."""
    rootfs = facts.image.rootfs
    of = facts.expecting(prefix=prefix)
    asked = asked_for.probe(
        rootfs,
        of[InstalledPackages],
        of[Requested],
        conda_records.read(rootfs, prefix),
        of.ask(distributions.probe, rootfs, prefix),
    )
    modules = {package.name: module_of(package) for package in asked.packages}
    wanted = {
        name: {} if module is True else {"import": module}
        for name, module in modules.items()
        if module
    }
    return {name: one for name, one in wanted.items() if can_say(_required({name: one}))}


def _kernels(facts: Facts, prefix: str) -> dict[str, Any]:
    """Return the kernels of the environment, and those of other languages."""
    specs = facts.ask(kernelspecs.from_files, facts.image.rootfs, facts.image.environment).specs
    there = {
        spec.name: {"argv": spec.argv, "language": spec.language}
        for spec in reversed(specs)
        if spec.language.lower() != "python" or (spec.argv0 or "").startswith(f"{prefix}/")
    }
    return {name: one for name, one in there.items() if can_say(_kernelspecs({name: one}))}
