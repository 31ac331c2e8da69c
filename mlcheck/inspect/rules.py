"""The rules of the suite, and of other distributions by the entry point `mlcheck.rules`."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from mlcheck.inspect.registry import about, function_of, needs_of
from mlcheck.model.errors import UsageError
from mlcheck.model.rule import Rule, registered
from mlcheck.profile.catalog import FILE_NAME, SUITE, Profile

PAGES = "docs/rules"
"""Place of the rules' pages in mlcheck's repository. Their addresses in reports begin with it."""

PARITY = "parity"
"""The folder of the suite with rules about two images."""


def all_rules() -> Mapping[str, Rule]:
    """Every rule by its id, file by file.

    Raises:
        UsageError: an entry point names no package, or its rules cannot be imported.
    """
    places = {file: number for number, file in enumerate(_files())}
    known = {rule.file for rule in registered().values()}
    for file, number in places.items():
        if file not in known:
            _import(file, number)
    of_suite = [rule for rule in registered().values() if rule.file in places]
    return {rule.id: rule for rule in sorted(of_suite, key=lambda rule: places[rule.file])}


def promised(profile: Profile, *, compared: bool) -> Mapping[str, Rule]:
    """Return the rules that apply to an image with this profile.

    Args:
        compared: True if the image is compared with another.
    """
    return {
        name: rule
        for name, rule in all_rules().items()
        if promises(profile, rule)
        and is_about(rule, profile)
        and of_this_run(rule, compared=compared)
    }


def of_this_run(rule: Rule, *, compared: bool) -> bool:
    """Return whether a rule is judged in runs with a comparison, or in those without."""
    return compared or rule.file.parent != SUITE / PARITY


def promises(profile: Profile, rule: Rule) -> bool:
    """Return whether a profile has the keys that a rule is about."""
    return not rule.keys or profile.says(*rule.keys)


def is_about(rule: Rule, profile: Profile) -> bool:
    """Return whether a rule applies to images with a profile, whatever that promises."""
    only = only_for(rule)
    return only is None or only in profile.lineage


def page_of(rule: Rule) -> str | None:
    """Return the address of a rule's page; None for a rule of another distribution."""
    return f"{PAGES}/{rule.id}.md" if rule.file.is_relative_to(SUITE) else None


def only_for(rule: Rule) -> str | None:
    """Return the profile in whose folder a rule is, or None if it applies to every image that
    promises it.

    A rule of the suite with keys does so wherever it stands: what any profile says is judged.
    """
    if rule.keys and rule.file.is_relative_to(SUITE):
        return None
    return is_of(rule.file.parent)


def is_of(folder: Path) -> str | None:
    """Return the profile whose folder this is, or None if it is no profile's."""
    return folder.name if (folder / FILE_NAME).is_file() else None


def facts_of(rule: Rule) -> dict[str, str]:
    """Describe the facts that a rule judges: parameter to the description of its fact."""
    needs = needs_of(rule.check)
    return {
        name: about(kind)
        for name, kind in needs.items()
        if name != "return" and function_of(kind) is not None
    }


@functools.cache
def directories() -> tuple[Path, ...]:
    """Yield the directories of other distributions with rules, by the entry point `mlcheck.rules`.

    Raises:
        UsageError: an entry point names no package.
    """
    found: list[Path] = []
    for point in entry_points(group="mlcheck.rules"):
        spec = importlib.util.find_spec(point.module)
        places = spec.submodule_search_locations if spec else None
        if not places:
            distribution = point.dist.name if point.dist else "a distribution"
            raise UsageError(
                f"{distribution}: its entry point mlcheck.rules names {point.value!r}, which is no "
                "package.",
                f"Correct it, or remove it: pip uninstall {distribution}",
            )
        found += map(Path, places)
    return tuple(found)


@functools.cache
def _files() -> tuple[Path, ...]:
    found = sorted(SUITE.glob("*/test_*.py"))
    for directory in directories():
        found += sorted(directory.rglob("test_*.py"))
    return tuple(found)


def explained(name: str) -> Rule:
    """Return the rule of a name.

    Raises:
        UsageError: there is none.
    """
    found = all_rules()
    if name not in found:
        raise UsageError(*unknown(name))
    return found[name]


def unknown(name: str) -> tuple[str, str]:
    """Return the message and the remedy for a name that is no rule's."""
    known = all_rules()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    near += [one for one in known if name and name in one and one not in near]
    hint = f" Did you mean {' or '.join(near[:5])}?" if near else ""
    return f"There is no rule {name!r}.{hint}", "`mlcheck explain` lists them all."


def _import(file: Path, number: int) -> None:
    """Import a file of tests under a unique name: several files have the same name.

    Raises:
        UsageError: it cannot be imported, or one of its rules has the name of another.
    """
    name = f"mlcheck_rules_{number}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(
            f"{file} cannot be imported: {type(error).__name__}: {error}.",
            f"See where: python -m pytest --collect-only {file}",
        ) from error
