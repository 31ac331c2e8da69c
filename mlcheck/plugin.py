"""pytest glue: options, parametrisation by image, outcomes, the run's summary and report."""

from __future__ import annotations

import datetime
import fnmatch
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mlcheck
from mlcheck import opening
from mlcheck.errors import MlcheckError, UsageError
from mlcheck.expectations import Waiver
from mlcheck.image import ImageRef
from mlcheck.profile import FILE_NAME, Catalog, Profile
from mlcheck.report import summary, text
from mlcheck.report.model import FindingModel, ImageModel, Report, ResultModel, WaiverModel
from mlcheck.verdict import Finding, ShowFile, ShowRun, Verdict

pytest_plugins = ["mlcheck.fixtures"]

SUITE = Path(__file__).parents[1] / "tests"
DEFAULT_IMAGES = ("reference:ml-base", "reference:ml-pyroot")


@dataclass(frozen=True)
class Target:
    """One image on one engine, and what it is expected to be.

    Args:
        label: name and tag of the image, or all that the user wrote if two are alike in that.
    """

    ref: ImageRef
    engine: str
    profile: Profile
    label: str

    @property
    def id(self) -> str:
        return f"{self.label}@{self.engine}"

    def model(self, digest: str | None, unused_waivers: Sequence[str]) -> ImageModel:
        return ImageModel(
            id=self.id,
            reference=self.ref.text,
            profile=self.profile.name,
            lineage=self.profile.lineage,
            tag=self.profile.tag,
            engine=self.engine,
            digest=digest,
            unused_waivers=tuple(unused_waivers),
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mlcheck", "mlcheck: which images, and what is expected of them")
    group.addoption(
        "--image",
        action="append",
        default=[],
        metavar="IMAGE",
        help="image to judge; repeat for several. A directory (./X, /X) or reference:NAME[:TAG]. "
        "Default: the reference images.",
    )
    group.addoption(
        "--engine",
        choices=opening.ENGINES,
        default="auto",
        help="what opens the images (default: auto, which says what it chose)",
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
        "--network",
        action="store_true",
        help="let commands in the images use the network (default: none)",
    )
    group.addoption("--mlcheck-json", metavar="FILE", help="write a report of all findings as JSON")


class Run:
    """What one pytest process knows of its run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.started = datetime.datetime.now(datetime.UTC)
        self.clock = time.monotonic()
        self.catalog = Catalog([Path(p) for p in config.getoption("--profiles")] + [SUITE])
        self.targets = self._targets()
        self.package_list = self._file_option("--package-list")
        self.digests: dict[str, str | None] = {}
        self.results: list[ResultModel] = []

    def _targets(self) -> list[Target]:
        option = self.config.getoption
        name, _, tag = (option("--profile") or "").partition(":")
        targets = []
        written = dict.fromkeys(option("--image") or DEFAULT_IMAGES)
        refs = [opening.with_default_tag(ImageRef.parse(text)) for text in written]
        labels = [ref.label for ref in refs]
        for ref in refs:
            engine, _ = opening.choose_engine(ref, option("--engine"))
            profile = self.catalog.load(name or ref.name, (tag or None) if name else ref.tag)
            label = ref.label if labels.count(ref.label) == 1 else ref.text
            targets.append(Target(ref, engine.name, profile, label))
        return targets

    def _file_option(self, option: str) -> Path | None:
        value = self.config.getoption(option)
        if value is None:
            return None
        path: Path = self.config.invocation_params.dir / str(value)
        if not path.is_file():
            raise UsageError(f"{option} {value}: there is no such file.")
        return path

    def check_options(self) -> None:
        """Find mistakes before the first test, in one message.

        Raises:
            UsageError: an image or a directory of an option does not exist.
        """
        for target in self.targets:
            opening.check_exists(target.ref)
        report = self.config.getoption("--mlcheck-json")
        if report and not (self.config.invocation_params.dir / report).parent.is_dir():
            raise UsageError(f"--mlcheck-json {report}: its directory does not exist.")

    def report(self, exit_code: int) -> Report:
        counts = dict.fromkeys(("passed", "failed", "error", "skipped", "waived"), 0)
        for result in self.results:
            counts[result.outcome] += 1
        return Report(
            mlcheck_version=mlcheck.__version__,
            started=self.started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.clock, 3),
            exit_code=exit_code,
            images=tuple(self._image(target) for target in self.targets),
            results=tuple(self.results),
            counts=counts,
        )

    def _image(self, target: Target) -> ImageModel:
        results = [result for result in self.results if result.image == target.id]
        judged = {result.check for result in results if result.outcome != "skipped"}
        used = {waiver.source for result in results for waiver in result.waivers}
        unused = []
        for index, waiver in enumerate(target.profile.expect.waivers):
            source = str(target.profile.source("waivers", index))
            if waiver.check in judged and source not in used:
                unused.append(f"{source}: {waiver.check}")
        return target.model(self.digests.get(target.id), unused)


RUN = pytest.StashKey[Run]()
RESULT = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[RUN] = Run(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if not _is_worker(config):
        config.pluginmanager.register(Recorder(config.stash[RUN]), "mlcheck-recorder")
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.args += config.getoption("--profiles")


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not _runs_suite(config):
        return []
    lines = []
    for target in config.stash[RUN].targets:
        _, why = opening.choose_engine(target.ref, config.getoption("--engine"))
        lines.append(
            f"mlcheck: {target.ref.text} as {target.profile.label}, engine {target.engine} ({why})"
        )
    return lines


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if _is_worker(config) or config.option.collectonly:
        return
    if not _runs_suite(config):
        return
    try:
        config.stash[RUN].check_options()
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


def _runs_suite(config: pytest.Config) -> bool:
    """Whether this run collects tests of images at all, and not only other tests."""
    suites = [directory.resolve() for directory in config.stash[RUN].catalog.directories]
    for argument in config.args:
        path = (config.invocation_params.dir / argument.partition("::")[0]).resolve()
        if any(path in (s, *s.parents) or s in path.parents for s in suites):
            return True
    return False


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the folder of an image that no image of this run is or extends."""
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


class Judge:
    """Turns a check's verdict into the test's outcome."""

    def __init__(self, item: pytest.Item, target: Target, show: Any) -> None:
        self._item = item
        self._target = target
        self._show = show

    def __call__(self, verdict: Verdict) -> None:
        """Pass, fail, skip or xfail, with the verdict kept for the reports."""
        today = datetime.datetime.now(datetime.UTC).date()
        findings: list[tuple[Finding, bool]] = []
        touched: dict[int, Waiver] = {}
        for finding in verdict.findings:
            fitting = _waivers(self._target.profile, verdict.check, finding)
            touched.update(fitting)
            findings.append((finding, any(w.until >= today for w in fitting.values())))
        waivers = tuple(
            WaiverModel(
                source=str(self._target.profile.source("waivers", index) or ""),
                reason=waiver.reason,
                until=waiver.until.isoformat(),
                expired=waiver.until < today,
            )
            for index, waiver in sorted(touched.items())
        )
        self._item.stash[RESULT] = {
            "check": verdict.check,
            "rule": verdict.rule,
            "remedy": verdict.remedy,
            "checked": verdict.checked,
            "findings": [self._model(finding, waived) for finding, waived in findings],
            "waivers": [waiver.model_dump() for waiver in waivers],
            "notes": [text.printable(note) for note in verdict.notes],
        }
        if verdict.not_applicable is not None:
            pytest.skip(verdict.not_applicable)
        remarks = [
            f"waived until {w.until}: {w.reason} ({w.source})"
            + (", which is over: the check fails again" if w.expired else "")
            for w in waivers
        ]
        open_findings = [finding for finding, waived in findings if not waived]
        if open_findings:
            image = f"{self._target.ref.text}, engine {self._target.engine}"
            message = text.failure(verdict, open_findings, image, self._show, remarks)
            pytest.fail(message, pytrace=False)
        if findings:
            pytest.xfail("; ".join(remarks))

    def _model(self, finding: Finding, waived: bool) -> dict[str, Any]:
        return FindingModel(
            subject=text.printable(finding.subject),
            found=text.printable(finding.found),
            expected=text.printable(finding.expected),
            source=str(finding.source) if finding.source else None,
            by_hand=text.printable(self._show(finding.show)) if finding.show else None,
            waived=waived,
        ).model_dump()


def _waivers(profile: Profile, check: str, finding: Finding) -> dict[int, Waiver]:
    return {
        index: waiver
        for index, waiver in enumerate(profile.expect.waivers)
        if waiver.check == check and fnmatch.fnmatchcase(finding.subject, waiver.match)
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show our own errors without a traceback, and send the verdict with the report."""
    report = yield
    target = (
        item.callspec.params.get("mlcheck_target")
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else None
    )
    error = call.excinfo.value if call.excinfo else None
    extra = item.stash.get(RESULT, {}).copy() if call.when == "call" else {}
    if isinstance(error, MlcheckError):
        report.longrepr = text.printable(str(error))
        extra["error"] = text.printable(str(error))
    if isinstance(target, Target):
        extra["image"] = target.id
        extra["digest"] = item.config.stash[RUN].digests.get(target.id)
    report.mlcheck = extra  # type: ignore[attr-defined]  # travels with the report under xdist
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """A test whose engine or probe failed in its body has judged nothing: ERROR, not FAILED."""
    if report.when == "call" and "error" in getattr(report, "mlcheck", {}):
        return "error", "E", "ERROR"
    if report.when == "call" and report.skipped and hasattr(report, "wasxfail"):
        return "xfailed", "w", "WAIVED"
    return None


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
        fields = {key: extra[key] for key in extra if key not in ("image", "digest", "error")}
        self.run.digests[extra["image"]] = extra.get("digest")
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


def show_with(image: Any) -> Any:
    """What turns a finding's `show` into a command for the engine of `image`."""

    def show(what: ShowRun | ShowFile) -> str:
        if isinstance(what, ShowRun):
            return str(image.show_run(what.argv))
        return str(image.show_file(what.tool, what.path))

    return show
