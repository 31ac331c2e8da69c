"""What is known of a check: its rule, the reason, the test that asks it, what proves it.

All of it is read where it is used (the rules in `checks`, the tests of the suite, the catalogue of
planted faults), so that an explanation cannot be of another version than the check.
"""

from __future__ import annotations

import ast
import difflib
import dis
import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

from mlcheck import checks, facts
from mlcheck.errors import UsageError
from mlcheck.expectations.keys import meaning
from mlcheck.profile import FILE_NAME, SUITE, Profile
from mlcheck.verdict import Rule

if TYPE_CHECKING:
    from mlcheck.reference.defects import Defect


@dataclass(frozen=True, slots=True)
class SuiteTest:
    """A test of the suite that asks one check.

    Args:
        file: path in the suite ("general/test_rpath.py").
        about: what the file says of itself.
        only: profile whose folder it is in: it runs for images that are, or extend, this one; None:
            for every image.
        facts: what the check is given, name to what it is.
        slow: whether `-m "not slow"` leaves it out.
    """

    file: str
    name: str
    about: str
    only: str | None
    facts: Mapping[str, str]
    slow: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """A check.

    Args:
        group: what the module of the check is about.
        keys: key of a profile that the image is compared with = what it says.
        defects: faults that can be planted to see the check fail.
    """

    rule: Rule
    group: str
    tests: tuple[SuiteTest, ...]
    keys: Mapping[str, str]
    defects: tuple[Defect, ...]


def explain(check: str) -> Explained:
    """All about one check.

    Raises:
        UsageError: there is no check of this name.
    """
    from mlcheck.reference import DEFECTS

    found = rules()
    if check not in found:
        near = difflib.get_close_matches(check, found, n=3, cutoff=0.5)
        near += [name for name in found if check and check in name and name not in near]
        hint = f" Did you mean {' or '.join(near[:5])}?" if near else ""
        raise UsageError(f"There is no check {check!r}.{hint}", "`mlcheck explain` lists them all.")
    rule, group = found[check]
    return Explained(
        rule,
        group,
        tests().get(check, ()),
        {key: meaning(key) or "" for key in rule.keys},
        tuple(defect for defect in DEFECTS.values() if check in defect.caught_by),
    )


def promised(profile: Profile, *, compared: bool) -> Mapping[str, tuple[SuiteTest, ...]]:
    """The tests by the checks that say something about an image with this profile.

    Args:
        compared: whether the image is compared with another.
    """
    return {
        check: asking
        for check, asking in tests().items()
        if _says(profile, rules()[check][0].keys)
        and any(test.only is None or test.only in profile.lineage for test in asking)
        and (compared or any(not test.file.startswith("parity/") for test in asking))
    }


def _says(profile: Profile, keys: tuple[str, ...]) -> bool:
    """Whether a profile has one of these keys; a rule without any is for every image."""
    wanted = [key.split(".") for key in keys]
    return not keys or any(
        len(path) >= len(key)
        and all(want in ("*", part) for want, part in zip(key, path, strict=False))
        for path in profile.sources
        for key in wanted
    )


@functools.cache
def rules() -> Mapping[str, tuple[Rule, str]]:
    """Every rule and what its module is about, by name, module by module."""
    found: dict[str, tuple[Rule, str]] = {}
    for module in _modules().values():
        group = (module.__doc__ or "").partition("\n")[0]
        for value in vars(module).values():
            if isinstance(value, Rule):
                found.setdefault(value.check, (value, group))
    return found


@functools.cache
def tests() -> Mapping[str, tuple[SuiteTest, ...]]:
    """The tests of the suite by the check that they ask."""
    found: dict[str, tuple[SuiteTest, ...]] = {}
    for file in sorted(SUITE.glob("*/test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = _imported(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for check in _asked(node, modules):
                    found[check] = (*found.get(check, ()), _test(file, tree, node))
    return found


@functools.cache
def _modules() -> Mapping[str, ModuleType]:
    names = [module.name for module in pkgutil.iter_modules(checks.__path__)]
    return {name: importlib.import_module(f"mlcheck.checks.{name}") for name in names}


def _imported(tree: ast.Module) -> dict[str, ModuleType]:
    """The modules of checks that a test file imports, by the names that it gives them."""
    return {
        alias.asname or alias.name: _modules()[alias.name]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "mlcheck.checks"
        for alias in node.names
    }


def _asked(test: ast.FunctionDef, modules: Mapping[str, ModuleType]) -> Iterator[str]:
    """The checks whose verdicts a test judges: `judge(elf.hard_coded(...))`."""
    for node in ast.walk(test):
        match node:
            case ast.Call(
                func=ast.Name(id="judge"),
                args=[ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=function)) as call],
            ) if name in modules:
                module = modules[name]
                given = [
                    getattr(module, arg.attr)
                    for arg in call.args
                    if isinstance(arg, ast.Attribute) and hasattr(module, arg.attr)
                ]
                words: set[object] = {
                    arg.value for arg in call.args if isinstance(arg, ast.Constant)
                }
                named = [value.check for value in given if isinstance(value, Rule)]
                yield from named or _rules_of(getattr(module, function), vars(module), words)


def _rules_of(
    function: FunctionType, namespace: Mapping[str, object], words: set[object]
) -> dict[str, None]:
    """The rules that a check's function uses, itself or through helpers of its module."""
    found: dict[str, None] = {}
    seen: set[CodeType] = set()
    words = words | set(filter(_is_text, function.__code__.co_consts))
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        waiting += [const for const in code.co_consts if isinstance(const, CodeType)]
        for instruction in dis.get_instructions(code):
            # Not co_names, which has the names of attributes too.
            if instruction.opname != "LOAD_GLOBAL":
                continue
            value = namespace.get(instruction.argval)
            if isinstance(value, Rule):
                found[value.check] = None
            elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
                waiting.append(value.__code__)
            elif isinstance(value, dict):  # rules by what they are about
                found |= {
                    rule.check: None
                    for word, rule in value.items()
                    if isinstance(rule, Rule) and word in words
                }
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _test(file: Path, tree: ast.Module, node: ast.FunctionDef) -> SuiteTest:
    folder = file.parent
    about = " ".join((ast.get_docstring(tree) or "").split())
    given = [arg for arg in node.args.args if arg.arg not in ("profile", "judge")]
    return SuiteTest(
        file=f"{folder.name}/{file.name}",
        name=node.name,
        about=about,
        only=folder.name if (folder / FILE_NAME).is_file() else None,
        facts={arg.arg: _fact(arg.annotation) or "a value" for arg in given},
        slow="slow" in {ast.unparse(mark).rpartition(".")[2] for mark in _marks(tree, node)},
    )


def _marks(tree: ast.Module, test: ast.FunctionDef) -> Iterator[ast.expr]:
    """pytest's marks of a test, its file's among them."""
    yield from test.decorator_list
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=ast.List(elts=marks)):
                yield from marks
            case ast.Assign(targets=[ast.Name(id="pytestmark")], value=mark):
                yield mark


def _fact(annotation: ast.expr | None) -> str | None:
    """What a fact is, by its type's docstring; None: it is none."""
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Name) and node.id in facts.__all__:
            return (getattr(facts, node.id).__doc__ or "").strip().partition("\n\n")[0]
    return None
