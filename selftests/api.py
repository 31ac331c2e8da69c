"""What people use who write tests and checks: the API reference and the list of fixtures.

Usage: python -m selftests.api [DIRECTORY]    writes docs/api.md; and the reference by pdoc
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from _pytest.fixtures import FixtureFunctionDefinition

PAGE = Path(__file__).parents[1] / "docs/api.md"

MODULES = {
    "mlcheck.verdict": "`Rule`, `Verdict`, `Finding`: what a check answers",
    "mlcheck.judge": "`Judge`: from a verdict to a test's outcome, with waivers",
    "mlcheck.profile": "`Profile`: what an image is expected to be, with the line that says so",
    "mlcheck.expectations": "the keys of an `image.toml`",
    "mlcheck.facts": "what probes find",
    "mlcheck.engines.base": "`OpenImage` and its files: commands, reading, what an engine is",
    "mlcheck.errors": "errors that are shown to people",
}
"""The modules that tests and checks import, and what is in them."""

FIXTURES = {
    "fixtures": "The image, and what running something in it found",
    "fixtures_static": "What its files say",
    "fixtures_at_work": "ROOT, new environments, and the image on a host",
    "fixtures_serving": "Notebook servers",
    "fixtures_parity": "The image of `--compare`",
}

_HEAD = """\
# API

For tests of your own ([a check of your own](adding-a-check.md)). `make docs` writes the reference
of these modules, from their docstrings, to `build/api`:

```console
$ make docs
```

| module | |
|---|---|
"""

_FIXTURES = """
## Fixtures

Each is found once for an image. This list is written by `python -m selftests.api`.
"""


def fixtures(name: str) -> Iterator[tuple[str, str]]:
    """The fixtures of one of mlcheck's modules: their names, and what they give."""
    for fixture, value in vars(importlib.import_module(f"mlcheck.{name}")).items():
        if isinstance(value, FixtureFunctionDefinition) and not fixture.startswith("_"):
            told = inspect.getdoc(value._get_wrapped_function()) or ""
            yield fixture, " ".join(told.partition("\n\n")[0].split())


def page() -> str:
    """The text of docs/api.md."""
    lines = [_HEAD + "\n".join(f"| `{name}` | {told} |" for name, told in MODULES.items())]
    lines.append(_FIXTURES)
    for name, title in FIXTURES.items():
        lines += [f"### {title}", "", "| fixture | |", "|---|---|"]
        lines += [f"| `{fixture}` | {told} |" for fixture, told in fixtures(name)]
        lines.append("")
    return "\n".join(lines)


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
    # The package of facts only gathers names, for which pdoc cannot read the types of fields.
    facts = importlib.import_module("mlcheck.facts")
    below = [f"mlcheck.facts.{module.name}" for module in pkgutil.iter_modules(facts.__path__)]
    others = [name for name in MODULES if name != "mlcheck.facts"]
    pdoc.pdoc(*others, *below, output_directory=directory)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    if sys.argv[1:]:
        build(Path(sys.argv[1]))
