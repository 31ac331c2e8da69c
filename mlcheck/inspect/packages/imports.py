"""Imports of Python modules in an image."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.answers import TOKEN_BYTES, command_result, how_it_ended, shortened
from mlcheck.inspect.packages.facts import ImportResult, Imports, ModuleImports
from mlcheck.inspect.registry import fact
from mlcheck.inspect.system import cpu
from mlcheck.profile.catalog import Profile

LIMIT_S = 120.0
"""Seconds for one module."""

OUTPUT_LIMIT = 4 * 1024 * 1024
"""Bytes that a module may print while it is imported."""

# Works with Python 3.6 and later. The answer goes to the descriptor, because a module may have
# replaced sys.stdout; os._exit, because a module's threads may never end.
_PROGRAM = """\
import importlib, os, sys, traceback
sys.path[:] = [entry for entry in sys.path if entry]

def origin(package, top):
    from importlib import metadata
    found = metadata.distribution(package)
    names = [str(file) for file in found.files or ()]
    own = [name for name in names if name in (top + "/__init__.py", top + ".py")
           or (name.startswith(top + ".") and name.endswith(".so"))]
    file = getattr(sys.modules[top], "__file__", None) or ""
    places = [os.path.realpath(str(found.locate_file(name))) for name in own]
    if own and file.endswith((".py", ".so")) and os.path.realpath(file) not in places:
        return "shadowed " + file
    return "imported " + str(found.version)

answer = "imported"
try:
    importlib.import_module({module!r})
    try:
        answer = origin({package!r}, {module!r}.partition(".")[0])
    except Exception:  # there is no metadata of it, or Python is too old to know
        pass
except BaseException as error:
    lines = traceback.format_exception_only(type(error), error)[-1].strip().splitlines()
    answer = "raised " + (lines[-1] if lines else type(error).__name__)[:2000]
os.write(1, ("\\n{token} " + answer + "\\n").encode("utf-8", "backslashreplace"))
os._exit(0)
"""


@fact(runs=True)
def module_imports(image: OpenImage, profile: Profile) -> ModuleImports:
    """The promised modules, each imported in a fresh interpreter."""
    modules = profile.expect.packages.modules()
    found = probe(image, list(modules.values()), packages={m: name for name, m in modules.items()})
    if any("SIGILL" in (result.error or "") for result in found.results):
        cpu.require(image, profile.expect.packages.cpu_level, "python3")
    return ModuleImports(found)


def probe(
    image: OpenImage,
    modules: Sequence[str],
    python: str = "python3",
    packages: Mapping[str, str] | None = None,
) -> Imports:
    """Import each module in an interpreter of its own, side by side.

    Args:
        modules: names as in an `import` statement.
        python: found on the image's PATH.
        packages: module to the package that has it, of which the version is asked for.

    Raises:
        EngineError: the engine could not run the interpreter.
    """
    package_of = packages or {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = pool.map(
            lambda module: _import(image, module, python, package_of.get(module, "")), modules
        )
        return Imports(tuple(results))


def _import(image: OpenImage, module: str, python: str, package: str) -> ImportResult:
    token = secrets.token_hex(TOKEN_BYTES)
    program = _PROGRAM.format(module=module, package=package, token=token)
    result = command_result(
        image.run([python, "-c", program], limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT)
    )
    answer = result.stdout.rpartition(f"\n{token} ")[2].partition("\n")[0]
    said, _, what = answer.partition(" ")
    error: str | None
    version = ""
    if result.ended == "exited" and result.exit_code == 127:
        error = f"{python} is not on the image's PATH"
    elif result.ended != "exited" or result.exit_code != 0 or token not in result.stdout:
        error = f"{python} {how_it_ended(result, LIMIT_S)}"
        if result.ended == "exited" and result.exit_code == 0:
            error += ", and did not say that the import was done"
    elif said == "shadowed":
        error = f"is imported from {shortened(what)}, which is not of the package {package}"
    elif said == "imported":
        error, version = None, what
    else:
        error = what
    return ImportResult(module, error, result.seconds, version)
