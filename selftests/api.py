"""The API of people who write rules and tests: the reference, and the lists of fixtures and facts.

Usage: python -m selftests.api [DIRECTORY]    writes docs/api.md; and the reference by pdoc
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from _pytest.fixtures import FixtureFunctionDefinition

from mlcheck import inspect as inspected
from mlcheck.inspect import registry

PAGE = Path(__file__).parents[1] / "docs/api.md"

MODULES = {
    "mlcheck.model.rule": "`rule`: a test that is a rule",
    "mlcheck.model.verdict": "`judged`, `Verdict`, `Finding`: the answer of a rule",
    "mlcheck.inspect.registry": "`fact`: a function that finds a fact",
    "mlcheck.inspect.facts": "`Facts`: the facts of an image by their types; `Session`",
    "mlcheck.profile.catalog": "`Profile`: what is expected of an image, and which line says so",
    "mlcheck.profile.schema": "the keys of an `image.toml`",
    "mlcheck.image.api": "`RootFS`: the files of an image",
    "mlcheck.model.files": "a file, and a `Problem` with it",
    "mlcheck.model.command": "`CommandResult`: what a command answered",
    "mlcheck.model.environment": "`Environment`: the configuration of an image",
    "mlcheck.engines.base": "`OpenImage`: an image to read and run commands in; what an engine is",
    "mlcheck.model.errors": "errors that are shown to people",
}
"""The modules that rules and tests import, and what is in them."""

FACTS = tuple(
    f"mlcheck.inspect.{file.parent.name}.facts"
    for file in sorted(Path(inspected.__file__).parent.glob("*/facts.py"))
)
"""What probes find, by subject."""

_HEAD = """\
# API

For tests of your own ([a rule of your own](adding-a-check.md)). `make docs` writes the reference
of these modules, from their docstrings, to `build/api`:

```console
$ make docs
```

| module | |
|---|---|
"""

_FIXTURES = """
## Fixtures

Each is made once for an image. The lists on this page are written by `python -m selftests.api`.

| fixture | |
|---|---|
"""

_FACTS = """
## Facts

A rule gets these by the types of its parameters; a test asks `facts[TYPE]`. Each is found once for
an image.

| type | in `mlcheck.inspect` | |
|---|---|---|
"""


def fixtures() -> Iterator[tuple[str, str]]:
    """The fixtures of mlcheck: their names, and what they give."""
    for name, value in vars(importlib.import_module("mlcheck.pytest_plugin.fixtures")).items():
        if isinstance(value, FixtureFunctionDefinition) and not name.startswith("_"):
            told = inspect.getdoc(value._get_wrapped_function()) or ""
            yield name, " ".join(told.partition("\n\n")[0].split())


def facts() -> Iterator[tuple[str, str, str]]:
    """The facts: type, module, and what it is."""
    for module in FACTS:
        for name, kind in vars(importlib.import_module(module)).items():
            if getattr(kind, "__module__", "") == module and registry.function_of(kind) is not None:
                place = module.removeprefix("mlcheck.inspect.")
                yield name, place, registry.about(kind)


def _about(name: str) -> str:
    return (importlib.import_module(name).__doc__ or "").partition("\n")[0]


def page() -> str:
    """The text of docs/api.md."""
    lines = [_HEAD + "\n".join(f"| `{name}` | {told} |" for name, told in MODULES.items())]
    lines += [f"| `{name}` | {_about(name)} |" for name in FACTS]
    text = "\n".join(lines) + "\n"
    text += _FIXTURES + "".join(f"| `{name}` | {told} |\n" for name, told in fixtures())
    text += _FACTS
    return text + "".join(f"| `{name}` | `{place}` | {told} |\n" for name, place, told in facts())


def without_docstring(module: ModuleType) -> list[str]:
    """The public classes, functions and methods of a module that nobody explains.

    What is plainly data, a field or a property, may be explained by its class.
    """
    missing = [] if module.__doc__ else [module.__name__]
    for name, thing in vars(module).items():
        ours = str(getattr(thing, "__module__", "")).startswith(module.__name__)
        if name.startswith("_") or not ours or not (inspect.isclass(thing) or callable(thing)):
            continue
        told = vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)
        # A dataclass without a docstring gets its signature for one.
        if not told or told.startswith(f"{name}("):
            missing.append(f"{module.__name__}.{name}")
        elif inspect.isclass(thing):
            missing += [f"{module.__name__}.{name}.{member}" for member in _unexplained(thing)]
    return missing


def _unexplained(thing: type) -> Iterator[str]:
    for name, member in vars(thing).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            if not member.__doc__ and f"{name}:" not in (thing.__doc__ or ""):
                yield name
        elif _is_method(member) and not inspect.getdoc(getattr(thing, name)):
            yield name


def _is_method(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, classmethod | staticmethod)


def build(directory: Path) -> None:
    """Write the reference."""
    import pdoc
    import pdoc.render

    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*MODULES, output_directory=directory)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    if sys.argv[1:]:
        build(Path(sys.argv[1]))
