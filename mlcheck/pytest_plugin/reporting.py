"""pytest glue of the reports: progress, results of all workers, the summary, the files."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.config import create_terminal_writer

from mlcheck.inspect.facts import Facts
from mlcheck.inspect.layers.facts import Layers
from mlcheck.inspect.rules import page_of
from mlcheck.model.errors import (
    DIFFERENT,
    INTERRUPTED,
    MISTAKE,
    NOT_JUDGED,
    MlcheckError,
    Untried,
    UsageError,
)
from mlcheck.profile.catalog import SUITE
from mlcheck.pytest_plugin import options
from mlcheck.pytest_plugin.outcome import RESULT, layer_rows
from mlcheck.pytest_plugin.progress import width_of
from mlcheck.pytest_plugin.quiet import is_quiet
from mlcheck.pytest_plugin.rule_items import NOT_PROMISED, RULE
from mlcheck.pytest_plugin.run import RUN, Run, target_of
from mlcheck.pytest_plugin.selection import Selection
from mlcheck.report import bounds, formats, summary, text
from mlcheck.report.model import LayerModel, Report, ResultModel

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController


def check_options(config: pytest.Config) -> None:
    """Find out before the first test whether anything would keep a report from being written.

    Raises:
        UsageError: there is no such format; a report's directory does not exist, its name is a
            directory's, or it may not be written.
    """
    files = [(output.option, output.file) for output in options.outputs(config) if output.file]
    if waivers := config.stash[RUN].baseline.written:
        files.append((f"--write-waivers {config.getoption('--write-waivers')}", waivers))
    for option, file in files:
        if not file.parent.is_dir():
            raise UsageError(f"{option}: its directory does not exist.")
        if file.is_dir():
            raise UsageError(f"{option}: that is a directory.", "Name a file.")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise UsageError(
                f"{option}: you may not write there, or its file system is read-only.",
                "Name a file in a directory of yours.",
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show our own errors without a traceback (--full-trace has it), and send the verdict with the
    report."""
    report = yield
    target = target_of(item)
    error = call.excinfo.value if call.excinfo else None
    extra = item.stash.get(RESULT, {}).copy() if call.when == "call" else {}
    if isinstance(error, Untried):
        # Not judged, and not a fault; the image does not count as conforming.
        path, line, _ = item.location
        reason = text.printable(" ".join(str(error).splitlines()))
        report.outcome, report.longrepr = "skipped", (path, line or 0, f"Skipped: {reason}")
        extra["untried"] = reason
    elif isinstance(error, MlcheckError):
        extra["error"] = text.printable(str(error))
        if not item.config.option.fulltrace:
            report.longrepr = extra["error"]
    elif call.when == "call" and report.passed and _gave_no_verdict(item):
        report.outcome = "failed"
        report.longrepr = extra["error"] = "the test passed without a verdict: nothing was judged"
    elif report.failed and _gave_no_verdict(item):
        # A rule fails by a verdict alone: this one was stopped, or has a fault.
        ours = item.path.is_relative_to(SUITE)
        whose = "mlcheck itself failed, please report it: " if ours else "the rule itself failed: "
        whose = "" if isinstance(error, pytest.fail.Exception) else whose
        extra["error"] = text.printable(f"{whose}{error or report.longreprtext}")
        report.longrepr = text.printable(report.longreprtext)
    if target is not None:
        if (rule := item.stash.get(RULE, None)) is not None:
            extra.setdefault("check", rule.id)
            extra.setdefault("rule", rule.text)
            extra.setdefault("remedy", rule.fix)
            extra["page"] = page_of(rule)
        extra["image"] = target.id
        used = getattr(item, "funcargs", {})
        facts = used.get("facts")
        notes = [used[name].notes for name in ("image", "static") if name in used]
        if isinstance(facts, Facts):
            notes += [facts.image.notes, facts.ask.notes]
        extra["image_notes"] = [note for some in notes for note in some]
        layers = used["facts"].found(Layers) if "facts" in used else None
        if layers is not None:
            extra["image_layers"] = layer_rows(layers)
    report.mlcheck = extra  # type: ignore[attr-defined]  # travels with the report under xdist
    return report


def _gave_no_verdict(item: pytest.Item) -> bool:
    """Return whether an item is a rule, or a test of the suite, and nothing was judged."""
    return RESULT not in item.stash and (RULE in item.stash or item.path.is_relative_to(SUITE))


_LEFT_OUT = "mlcheck_left_out"
"""Key in a worker's final output of xdist: the tests that were left out."""

_NOT_PROMISED = "mlcheck_not_promised"
"""Key in the same output: the rules that were not collected, by image."""


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Record tests that -k, -m or the like leave out, in the process that collects."""
    for item in items:
        tests = item.config.stash.setdefault(_DESELECTED, [])
        tests.append(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report the tests that a worker left out to the process that the user started."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[_LEFT_OUT] = session.config.stash.get(_DESELECTED, [])
        output[_NOT_PROMISED] = session.config.stash.get(NOT_PROMISED, {})


_DESELECTED = pytest.StashKey[list[str]]()


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show ERROR, not FAILED, for a test whose engine or probe failed in its body: nothing was
    judged."""
    if report.when == "call" and "error" in getattr(report, "mlcheck", {}):
        return "error", "E", "ERROR"
    if report.when == "call" and report.skipped and hasattr(report, "wasxfail"):
        return "xfailed", "w", "WAIVED"
    return None


_LOOK = "what holds for every image"
"""Name of what looks for it, in place of a test's."""

_NOT_OF_RESULT = ("image", "image_notes", "image_layers", "error")


class Recorder:
    """Collector of the results of all workers in the process that the user started; it also
    reports.

    Raises:
        UsageError: there is no such format of a report, or two go to one place.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.outputs = options.outputs(run.config)
        self.report: Report | None = None
        self._selection = Selection(run.targets)
        self._begun: set[str] = set()
        self._commands_stopped = ""
        self._trouble: dict[str, str] = {}
        self._broken_test = False
        self._ended = ""
        self._interrupted = False

    def _terminal(self) -> pytest.TerminalReporter | None:
        found = self.run.config.pluginmanager.get_plugin("terminalreporter")
        return found if isinstance(found, pytest.TerminalReporter) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Leave standard output to a report that goes there, and ensure that from here on nothing
        that is printed can be a command to GitHub's runner."""
        terminal = self._terminal()
        if terminal is not None and any(output.file is None for output in self.outputs):
            # pytest has no public way to say this.
            terminal._tw = create_terminal_writer(self.run.config, sys.stderr)
            terminal.isatty = type(terminal.isatty)(sys.stderr.isatty())
        on_github = os.environ.get("GITHUB_ACTIONS") == "true"
        if on_github and terminal is not None:
            self._commands_stopped = os.urandom(16).hex()
            terminal.write_line(f"::stop-commands::{self._commands_stopped}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record the tests to be judged."""
        self._selection.add(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Record the same for a worker, which has collected all that is spread over the workers."""
        self._selection.add(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController) -> None:
        """Take over the left-out tests of a worker that has ended."""
        output = getattr(node, "workeroutput", {})
        self._selection.leave_out(output.get(_LEFT_OUT, ()))
        for image, names in output.get(_NOT_PROMISED, {}).items():
            self._selection.do_not_promise(image, names)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file of tests that cannot be imported: its rules remain unjudged. One that skips
        itself was looked at."""
        if report.skipped:
            self._selection.leave_out([report.nodeid])
        if report.failed:
            self._broken_test = True
            why = _last_line(report).removeprefix("E").strip()
            self._trouble[report.nodeid] = f"{report.nodeid} cannot be read: {why}"

    def pytest_internalerror(self, excrepr: object) -> None:
        """Record that the run did not come to its end, whatever was judged before."""
        self._trouble["internal error"] = text.printable(str(excrepr)).strip()

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Handle Ctrl-C, or what pytest treats as such: -x on several workers, pytest.exit()."""
        self._interrupted = excinfo.type is KeyboardInterrupt
        self._ended = "the run was interrupted" if self._interrupted else str(excinfo.value)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Report the beginning of the first test of an image, which starts it."""
        targets = self.run.targets
        for target in targets:
            if target.id not in self._begun and target.id in nodeid:
                self._begun.add(target.id)
                count = f"   ({len(self._begun)} of {len(targets)})" if len(targets) > 1 else ""
                terminal = self._terminal()
                if terminal is not None and terminal.verbosity >= 0:
                    line = f"mlcheck: starting and checking {target.id}{count}"
                    terminal.write_line(text.printable(line))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome not in ("passed", "failed", "skipped"):
            return  # a plugin will run it again
        if report.passed and report.when != "call":
            return
        if report.when == "teardown" and not report.failed:
            return
        extra: dict[str, Any] = getattr(report, "mlcheck", {})
        if "image" not in extra:
            # A test without an image, or of a worker that died in it.
            image = self._selection.image_of(report.nodeid)
            if image is None:
                if report.failed:
                    self._trouble[report.nodeid] = f"{report.nodeid} failed, and is of no image"
                return
            extra = {"image": image, "image_notes": [], "error": _last_line(report)}
        fields = {key: extra[key] for key in extra if key not in _NOT_OF_RESULT}
        if "image_layers" in extra:
            layers = tuple(LayerModel(**row) for row in extra["image_layers"])
            self.run.layers[extra["image"]] = layers
        self.run.notes.setdefault(extra["image"], {}).update(dict.fromkeys(extra["image_notes"]))
        said = _message(report, extra)
        self.run.results.append(
            ResultModel(
                test=report.nodeid,
                image=extra["image"],
                outcome=_outcome(report, extra),
                message=said and bounds.message(said),
                seconds=round(report.duration, 4),
                **fields,
            )
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Judge the run: left-out tests, and how it ended. Write the requested reports."""
        if session.config.option.collectonly:
            yield
            return
        deselected: list[str] = session.config.stash.get(_DESELECTED, [])
        self._selection.leave_out(deselected)
        for image, names in session.config.stash.get(NOT_PROMISED, {}).items():
            self._selection.do_not_promise(image, names)
        if session.exitstatus != pytest.ExitCode.USAGE_ERROR:
            self._add_what_was_not_judged(session)
        report = self.run.report(self._left_out(), self._not_promised())
        code = self._exit_code(int(session.exitstatus), report.exit_code)
        self.report = report.model_copy(update={"exit_code": code})
        yield
        session.exitstatus = code
        for output in self.outputs:
            _write(output, self.report)
        if self.report.results and code != INTERRUPTED:
            self._write_waivers(self.report)

    def _write_waivers(self, report: Report) -> None:
        terminal = self._terminal()
        try:
            for line in self.run.baseline.write(report):
                if terminal is not None:
                    terminal.write_line(text.no_command(f"mlcheck: {text.printable(line)}"))
        except OSError as error:
            pytest.exit(
                f"--write-waivers {self.run.baseline.written}: {error.strerror}. Nothing was "
                "written.",
                returncode=NOT_JUDGED,
            )

    def _add_what_was_not_judged(self, session: pytest.Session) -> None:
        """Add a result for each test that was chosen and did not run, and for failures of the run
        as a whole: no image can count as conforming then."""
        why = self._ended or session.shouldfail or session.shouldstop or "the run ended before"
        for target in self.run.targets:
            done = {result.test for result in self.run.results if result.image == target.id}
            missing = dict.fromkeys(
                (test for test in self._selection.of(target.id) if test not in done),
                f"not run: {why}",
            )
            looked = self.run.looked_for(target)
            unread = {
                f"{_LOOK} ({number})": f"not judged, because it could not be looked for: {why}"
                for number, why in enumerate(looked.troubles, 1)
            }
            notes = self.run.notes.setdefault(target.id, {})
            notes.update(dict.fromkeys(looked.notes))
            if self._selection.left_out(target, self.run.catalog, compared=False):
                # It may be nothing that was chosen.
                notes.update(dict.fromkeys(unread.values()))
                unread = {}
            for test, message in (missing | self._trouble | unread).items():
                self.run.results.append(
                    ResultModel(
                        test=test,
                        image=target.id,
                        outcome="error",
                        message=bounds.message(text.printable(message)),
                        seconds=0,
                    )
                )

    def _left_out(self) -> dict[str, tuple[str, ...]]:
        compared = self.run.compared is not None
        return {
            target.id: self._selection.left_out(target, self.run.catalog, compared=compared)
            if self._selection.of(target.id)
            else ()
            for target in self.run.targets
        }

    def _not_promised(self) -> dict[str, tuple[str, ...]]:
        compared = self.run.compared is not None
        return {
            target.id: self._selection.not_promised(target, compared=compared)
            for target in self.run.targets
        }

    def _exit_code(self, status: int, by_verdicts: int) -> int:
        """Return the exit code of the run, where pytest on its own would return `status`."""
        if self._interrupted:
            return INTERRUPTED
        if status not in (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.INTERRUPTED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            return status
        if self._broken_test and by_verdicts != DIFFERENT:
            return MISTAKE
        if by_verdicts == 0 and status not in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED):
            return status
        return by_verdicts

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.report is None or not self.report.results:
            return
        if is_quiet(self.run.config):
            summary.write_verdicts(terminalreporter, self.report)
        else:
            names = terminalreporter.hasopt("skipped")
            width = width_of(terminalreporter)
            summary.write(terminalreporter, self.report, every_rule=names, width=width)

    def pytest_unconfigure(self) -> None:
        """Let GitHub's runner take commands again, last of all ours."""
        terminal = self._terminal()
        if not self._commands_stopped or terminal is None:
            return
        terminal.ensure_newline()
        terminal.write_line(f"::{self._commands_stopped}::")
        if self.report is not None and self.report.results:
            from mlcheck.report import github

            for line in github.errors(self.report):
                terminal.write_line(line)
            github.add_summary(self.report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Wrap the messages of failures on a terminal; files of reports have them already."""
    if width := width_of(terminalreporter):
        for failed in terminalreporter.getreports("failed"):
            if getattr(failed, "mlcheck", {}).get("findings"):
                failed.longrepr = text.wrapped(failed.longreprtext, width)
    yield


def _last_line(report: pytest.CollectReport | pytest.TestReport) -> str:
    lines = report.longreprtext.strip().splitlines()
    return text.printable(lines[-1]) if lines else "no reason was given"


def _write(output: options.Output, report: Report) -> None:
    form = formats.FORMATS[output.format]
    content = form.make(report)
    if output.file is None:
        formats.to_stdout(content, commands=form.commands)
        sys.stdout.flush()
        return
    try:
        output.file.write_text(content, encoding="utf-8")
    except OSError as error:
        # The summary is on the terminal by now; the exit code says that the file is not there.
        message = f"{output.option}: {error.strerror}. Nothing was written."
        pytest.exit(message, returncode=NOT_JUDGED)


def _outcome(report: pytest.TestReport, extra: dict[str, Any]) -> Any:
    if hasattr(report, "wasxfail"):
        return "waived"
    if report.failed and (report.when != "call" or "error" in extra):
        return "error"
    return report.outcome


def _message(report: pytest.TestReport, extra: dict[str, Any]) -> str | None:
    if "error" in extra:
        return str(extra["error"])
    if getattr(report, "wasxfail", None) and "findings" not in extra:
        return text.printable(str(report.wasxfail))
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    if report.failed and "findings" not in extra:
        return text.printable(report.longreprtext)
    return None
