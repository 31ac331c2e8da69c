"""Exits for errors of ours: in whatever hook of pytest one is raised, the run ends with its message
and no traceback, 4 for a mistake of the user's and 3 for trouble of the engine, the machine or a
disk.

An error in a test or a fixture is that test's outcome, and not handled here.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from mlcheck.model.errors import (
    MISTAKE,
    NOT_JUDGED,
    EngineError,
    MlcheckError,
    ProbeError,
    UsageError,
)
from mlcheck.report import text

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_OF_WORKER = "mlcheck_error"
"""Key in a worker's final output of xdist: the error that ended it."""

_KINDS = {kind.__name__: kind for kind in (UsageError, EngineError, ProbeError)}


def _ours(error: BaseException) -> MlcheckError | None:
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return EngineError(f"{where}{error.strerror}.")
    return error if isinstance(error, MlcheckError) else None


def _code(error: MlcheckError) -> int:
    return MISTAKE if isinstance(error, UsageError) else NOT_JUDGED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Wrap a whole run: errors at its beginning or end arrive here."""
    config.pluginmanager.register(_InTheRun(config), "mlcheck-told")
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    try:
        return (yield)
    except (MlcheckError, OSError, pytest.UsageError) as raised:
        if output is not None and isinstance(raised, pytest.UsageError):
            error: MlcheckError | None = UsageError(str(raised))
        else:
            error = _ours(raised)
        if error is None:
            raise
        if output is None:
            print(f"ERROR: {text.printable(str(error))}", file=sys.stderr)
        elif "exitstatus" not in output:  # it ended before it began: nothing has reported its end
            output[_OF_WORKER] = _as_data(error)
            for plugin in config.pluginmanager.get_plugins():
                if hasattr(plugin, "sendevent"):
                    plugin.sendevent("workerfinished", workeroutput=output)
        return _code(error)


def _as_data(error: MlcheckError) -> tuple[str, str, str]:
    return type(error).__name__, error.what, error.remedy


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Keep an error of ours during collection from being blamed on the file with the tests."""
    report = yield
    call: pytest.CallInfo[Any] | None = getattr(report, "call", None)
    if call is not None and call.excinfo and isinstance(call.excinfo.value, MlcheckError):
        raise call.excinfo.value
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """End the run for an error that ended a worker of xdist."""
    kind, what, remedy = getattr(node, "workeroutput", {}).get(_OF_WORKER, ("", "", ""))
    if kind:
        raise _KINDS.get(kind, EngineError)(what, remedy)


class _InTheRun:
    """Handler of errors that pytest would show as its own."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """End the run with the message."""
        error = _ours(excinfo.value)
        if error is None:
            return
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            output[_OF_WORKER] = _as_data(error)
            raise error  # not reported by this process too
        raise pytest.exit.Exception(text.printable(str(error)), _code(error))
