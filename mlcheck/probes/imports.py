"""Which Python modules can be imported in an image."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcheck.engines.base import OpenImage
from mlcheck.facts import ImportResult, Imports
from mlcheck.probes.reading import TOKEN_BYTES, command_result, how_it_ended

LIMIT_S = 120.0
"""Seconds for one module."""

OUTPUT_LIMIT = 4 * 1024 * 1024
"""Bytes that a module may print while it is imported."""

# Works with Python 3.6 and later. The answer goes to the descriptor, because a module may have
# replaced sys.stdout; os._exit, because a module's threads may never end.
_PROGRAM = """\
import importlib, os, sys, traceback
sys.path[:] = [entry for entry in sys.path if entry]
answer = "imported"
try:
    importlib.import_module({module!r})
except BaseException as error:
    lines = traceback.format_exception_only(type(error), error)[-1].strip().splitlines()
    answer = "raised " + (lines[-1] if lines else type(error).__name__)[:2000]
os.write(1, ("\\n{token} " + answer + "\\n").encode("utf-8", "backslashreplace"))
os._exit(0)
"""


def probe(image: OpenImage, modules: Sequence[str], python: str = "python3") -> Imports:
    """Import each module in an interpreter of its own, side by side.

    Args:
        modules: names as in an `import` statement.
        python: found on the image's PATH.

    Raises:
        EngineError: the engine could not run the interpreter.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = pool.map(lambda module: _import(image, module, python), modules)
        return Imports(tuple(results))


def _import(image: OpenImage, module: str, python: str) -> ImportResult:
    token = secrets.token_hex(TOKEN_BYTES)
    program = _PROGRAM.format(module=module, token=token)
    result = command_result(
        image.run([python, "-c", program], limit_s=LIMIT_S, output_limit=OUTPUT_LIMIT)
    )
    answer = result.stdout.rpartition(f"\n{token} ")[2].partition("\n")[0]
    error: str | None
    if result.ended == "exited" and result.exit_code == 127:
        error = f"{python} is not on the image's PATH"
    elif result.ended != "exited" or result.exit_code != 0 or token not in result.stdout:
        error = f"{python} {how_it_ended(result, LIMIT_S)}"
        if result.ended == "exited" and result.exit_code == 0:
            error += ", and did not say that the import was done"
    else:
        error = None if answer == "imported" else answer.removeprefix("raised ")
    return ImportResult(module, error, result.seconds)
