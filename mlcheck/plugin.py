"""pytest glue: options, parametrisation by image, outcomes, the run's summary and report."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlcheck import kept, opening
from mlcheck.errors import MlcheckError, NothingRuns, UsageError
from mlcheck.facts import Layers
from mlcheck.judge import RESULT, layer_rows
from mlcheck.profile import FILE_NAME, SUITE
from mlcheck.report import summary, text
from mlcheck.report.model import LayerModel, ResultModel
from mlcheck.run import RUN, WHOLE_IMAGES, Run, Target

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

pytest_plugins = [
    "mlcheck.side_by_side",
    "mlcheck.fixtures",
    "mlcheck.fixtures_static",
    "mlcheck.fixtures_at_work",
    "mlcheck.fixtures_parity",
    "mlcheck.fixtures_serving",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mlcheck", "mlcheck: which images, and what is expected of them")
    group.addoption(
        "--image",
        action="append",
        default=[],
        metavar="IMAGE",
        help="image to judge; repeat for several. NAME[:TAG] or NAME@DIGEST of docker, podman or a "
        "registry, a directory (./X, /X), FILE.sif, docker-archive:FILE, oci:DIR, "
        "oci-archive:FILE or reference:NAME[:TAG]; the short name of a published image or all "
        "(`mlcheck images` lists them). Default: the reference images.",
    )
    group.addoption(
        "--engine",
        action=_Engines,
        default=[],
        metavar="ENGINE",
        help=f"what opens the images: {', '.join(opening.ENGINES)}; several, with commas or by "
        "repeating, run every test on each (default: auto, which says what it chose)",
    )
    group.addoption(
        "--pull",
        choices=("missing", "always", "never"),
        default="missing",
        help="when to fetch an image from its registry (default: missing, if it is not here)",
    )
    group.addoption(
        "--nv",
        choices=("auto", "always", "never"),
        default="never",
        metavar="auto|always|never",
        help="ask for NVIDIA GPUs: auto, where this machine has their driver. --nv alone is "
        "--nv=auto (default: never)",
    )
    group.addoption(
        "--require-gpu",
        action="store_true",
        help="for runners that promise a GPU: asks for one as --nv does, and a test that would be "
        "skipped for lack of it is an error",
    )
    group.addoption(
        "--profile",
        metavar="NAME[:TAG]",
        help="what to expect of the images; default: the name and tag of the image itself",
    )
    group.addoption(
        "--profiles",
        action="append",
        default=[],
        metavar="DIR",
        help="directory with folders of your own, each with an image.toml and tests; repeatable",
    )
    group.addoption(
        "--package-list",
        metavar="FILE",
        help="checked-in copy of the package list to compare the image's list with",
    )
    group.addoption(
        "--base-list",
        metavar="FILE",
        help="package list of the image that this one is built from, where that is not found "
        "beside it (default: NAME:TAG in the same directory, registry or engine)",
    )
    group.addoption(
        "--compare",
        metavar="IMAGE",
        help="another image that should hold the same as each --image, but for what [parity] in "
        "the profile allows (see also `mlcheck diff`)",
    )
    group.addoption(
        "--config-digest",
        action="append",
        default=[],
        metavar="[IMAGE=]sha256:...",
        help="digest of the published image's configuration, to compare with the directory that "
        "CVMFS has of it; repeat for several images",
    )
    group.addoption(
        "--bind",
        action="append",
        default=[],
        metavar="DIR:TARGET",
        help="a directory of this machine that commands in the images see at TARGET, read-only, "
        "where an image has a directory for it; repeatable (default: none)",
    )
    group.addoption(
        "--network",
        action="store_true",
        help="let commands in the images use the network (default: none)",
    )
    group.addoption(
        "--no-cache",
        action="store_true",
        help="read every image anew, and keep nothing of it (see `mlcheck cache`)",
    )
    group.addoption("--mlcheck-json", metavar="FILE", help="write a report of all findings as JSON")


class _Engines(argparse.Action):
    """Names with commas between them, added to those before."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        names = [name.strip() for name in str(values).split(",")]
        for name in names:
            if name not in opening.ENGINES:
                known = ", ".join(opening.ENGINES)
                raise argparse.ArgumentError(self, f"there is no engine {name!r}; known: {known}")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), *names])


def pytest_configure(config: pytest.Config) -> None:
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.args += config.getoption("--profiles")
    if config.getoption("--no-cache"):
        os.environ[kept.OFF] = "1"
    workerinput = getattr(config, "workerinput", None)
    try:
        run = config.stash[RUN] = Run(config, workerinput and workerinput["mlcheck"])
        if _runs_suite(config):
            _ = run.targets, run.compared
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if not _is_worker(config):
        config.pluginmanager.register(Recorder(run), "mlcheck-recorder")


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUN in config.stash:
        config.stash[RUN].close()


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not _runs_suite(config):
        return []
    run = config.stash[RUN]
    targets = run.targets
    meant = dict.fromkeys((target.ref.text, target.meant) for target in targets if target.meant)
    return (
        [f"mlcheck: {text} is {why}" for text, why in meant]
        + [
            f"mlcheck: {target.ref.text} as {target.profile.label}, engine {target.engine} "
            f"({target.why})"
            for target in targets
        ]
        + [
            f"mlcheck: compared with {other.ref.text}, engine {other.engine} ({other.why})"
            for other in filter(None, [run.compared])
        ]
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if _is_worker(config) or config.option.collectonly or not _runs_suite(config):
        return
    try:
        config.stash[RUN].check_options()
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("dist", "no") != "no":
        # Workers collect by themselves: what they will need has to be ready before.
        run = config.stash[RUN]
        _prepare(config, [*run.targets, *filter(None, [run.compared])])
    else:
        config.stash[RUN].look_ahead()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have ready what the chosen tests need, and no image that -k or -m left out."""
    config = session.config
    if _is_worker(config) or config.option.collectonly or config.getoption("dist", "no") != "no":
        return
    run = config.stash[RUN]
    used = {target.id for item in session.items if (target := _target(item)) is not None}
    wanted = [target for target in run.targets if target.id in used]
    if any("compared_target" in getattr(item, "fixturenames", ()) for item in session.items):
        wanted += filter(None, [run.compared])
    if wanted:
        _prepare(config, wanted)


def _prepare(config: pytest.Config, targets: Sequence[Target]) -> None:
    run = config.stash[RUN]
    progress = Progress(config.pluginmanager.get_plugin("terminalreporter"))
    try:
        run.prepare(targets, progress)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    finally:
        progress.end()
    for plugin in config.pluginmanager.get_plugins():
        if hasattr(plugin, "add_global_property"):  # pytest's JUnit report
            for name, digest in run.digests().items():
                plugin.add_global_property(f"mlcheck digest of {name}", digest)


class Progress:
    """Shows how images are made ready: a line that changes, or where lines cannot change, one
    now and then."""

    EVERY_S = 5.0

    def __init__(self, terminal: pytest.TerminalReporter | None) -> None:
        self._terminal = terminal
        self._next = 0.0
        self._step = ""

    def __call__(self, line: str) -> None:
        if self._terminal is None:
            return
        shown = f"mlcheck: {text.printable(line)}"
        # "pulling NAME: 1 of 7 layers" and "pulling NAME: 2 of 7 layers" are one step.
        step = " ".join(line.split()[:3])
        if self._terminal.isatty:
            if self._step not in ("", step):
                self._terminal.write_line("")
            self._terminal.rewrite(shown[: shutil.get_terminal_size().columns - 1], erase=True)
        elif step != self._step or time.monotonic() >= self._next:
            self._terminal.ensure_newline()
            self._terminal.write_line(shown)
            self._next = time.monotonic() + self.EVERY_S
        self._step = step

    def end(self) -> None:
        """What comes after this begins on a line of its own."""
        if self._terminal is not None and self._terminal.isatty and self._step:
            self._terminal.write_line("")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker which engines were chosen and which images are ready."""
    run = node.config.stash[RUN]
    if _runs_suite(node.config):
        node.workerinput["mlcheck"] = run.for_workers()
        by_image = node.config.getvalue("dist") == "load"
        enough = len(run.targets) >= node.workerinput["workercount"]
        node.workerinput[WHOLE_IMAGES] = by_image and enough
    else:
        node.workerinput["mlcheck"] = None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Spread the images over the workers, unless the user said how to (--dist)."""
    if config.getvalue("dist") != "load" or not _runs_suite(config):
        return None
    from mlcheck.spreading import ImageScheduling

    return ImageScheduling(config, log, [target.id for target in config.stash[RUN].targets])


def _runs_suite(config: pytest.Config) -> bool:
    """Whether this run collects tests of images at all, and not only other tests."""
    suites = [directory.resolve() for directory in config.stash[RUN].catalog.directories]
    for argument in config.args:
        path = (config.invocation_params.dir / argument.partition("::")[0]).resolve()
        if any(path in (s, *s.parents) or s in path.parents for s in suites):
            return True
    return False


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the folder of an image that no image of this run is or extends, and the
    comparison of two where there is one."""
    if collection_path == SUITE / "parity" and not config.getoption("--compare"):
        return True
    if not (collection_path / FILE_NAME).is_file():
        return None
    lineages = [target.profile.lineage for target in config.stash[RUN].targets]
    return None if any(collection_path.name in lineage for lineage in lineages) else True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses an image on every image that it is about."""
    if "mlcheck_target" not in metafunc.fixturenames:
        return
    folder = metafunc.definition.path.parent
    targets = [
        target
        for target in metafunc.config.stash[RUN].targets
        if not (folder / FILE_NAME).is_file() or folder.name in target.profile.lineage
    ]
    metafunc.parametrize(
        "mlcheck_target",
        targets,
        ids=[target.id for target in targets],
        indirect=True,
        scope="session",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show our own errors without a traceback, and send the verdict with the report."""
    report = yield
    target = _target(item)
    error = call.excinfo.value if call.excinfo else None
    extra = item.stash.get(RESULT, {}).copy() if call.when == "call" else {}
    if isinstance(error, NothingRuns):
        # Not judged, and nobody's fault: a run in which all was skipped is not green either.
        path, line, _ = item.location
        reason = text.printable(" ".join(str(error).splitlines()))
        report.outcome, report.longrepr = "skipped", (path, line or 0, f"Skipped: {reason}")
    elif isinstance(error, MlcheckError):
        report.longrepr = text.printable(str(error))
        extra["error"] = text.printable(str(error))
    if target is not None:
        extra["image"] = target.id
        used = getattr(item, "funcargs", {})
        sources = [used[name] for name in ("image", "static") if name in used]
        extra["image_notes"] = [note for source in sources for note in source.notes]
        if isinstance(used.get("layers"), Layers):
            extra["image_layers"] = layer_rows(used["layers"])
    report.mlcheck = extra  # type: ignore[attr-defined]  # travels with the report under xdist
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """A test whose engine or probe failed in its body has judged nothing: ERROR, not FAILED."""
    if report.when == "call" and "error" in getattr(report, "mlcheck", {}):
        return "error", "E", "ERROR"
    if report.when == "call" and report.skipped and hasattr(report, "wasxfail"):
        return "xfailed", "w", "WAIVED"
    return None


_NOT_OF_RESULT = ("image", "image_notes", "image_layers", "error")


class Recorder:
    """Collects the results of all workers in the process that the user started."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        extra: dict[str, Any] = getattr(report, "mlcheck", {})
        if "image" not in extra or (report.when != "call" and report.passed):
            return
        if report.when == "teardown" and not report.failed:
            return
        fields = {key: extra[key] for key in extra if key not in _NOT_OF_RESULT}
        if "image_layers" in extra:
            layers = tuple(LayerModel(**row) for row in extra["image_layers"])
            self.run.layers[extra["image"]] = layers
        self.run.notes.setdefault(extra["image"], {}).update(dict.fromkeys(extra["image_notes"]))
        self.run.results.append(
            ResultModel(
                test=report.nodeid,
                image=extra["image"],
                outcome=_outcome(report, extra),
                message=_message(report, extra),
                seconds=round(report.duration, 4),
                **fields,
            )
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """A run that judged nothing is not green."""
        yield
        judged = [result for result in self.run.results if result.outcome != "skipped"]
        if self.run.results and not judged and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
        path = session.config.getoption("--mlcheck-json")
        if path:
            report = self.run.report(int(session.exitstatus))
            file = session.config.invocation_params.dir / path
            file.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> None:
        if self.run.results:
            summary.write(terminalreporter, self.run.report(int(exitstatus)))


def _outcome(report: pytest.TestReport, extra: dict[str, Any]) -> Any:
    if hasattr(report, "wasxfail"):
        return "waived"
    if report.failed and (report.when != "call" or "error" in extra):
        return "error"
    return report.outcome


def _message(report: pytest.TestReport, extra: dict[str, Any]) -> str | None:
    if "error" in extra:
        return str(extra["error"])
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    if report.failed and "check" not in extra:
        return text.printable(report.longreprtext)
    return None


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _target(item: pytest.Item) -> Target | None:
    """The image that a test is about."""
    found = item.callspec.params.get("mlcheck_target") if hasattr(item, "callspec") else None
    return found if isinstance(found, Target) else None
