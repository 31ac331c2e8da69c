"""pytest glue: options, and parametrisation by image."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlcheck import cache
from mlcheck.inspect.parity.facts import OtherImage
from mlcheck.inspect.registry import needs_of, with_needs
from mlcheck.inspect.rules import is_about, is_of, promises
from mlcheck.model.errors import UsageError
from mlcheck.pytest_plugin import options, reporting, rule_items
from mlcheck.pytest_plugin.progress import Progress
from mlcheck.pytest_plugin.run import RUN, WHOLE_IMAGES, Run, Target, target_of

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

pytest_plugins = ["mlcheck.pytest_plugin.error_exits", "mlcheck.pytest_plugin.collection"]

_FIXTURES = "mlcheck.pytest_plugin.fixtures"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("mlcheck", options.TITLE)
    # pytest-html has an option --html of its own.
    options.add(group.addoption, html=not pluginmanager.hasplugin("html"))


def pytest_configure(config: pytest.Config) -> None:
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.args += config.getoption("--profiles")
    if config.getoption("--no-cache"):
        os.environ[cache.OFF] = "1"
    workerinput = getattr(config, "workerinput", None)
    try:
        run = config.stash[RUN] = Run(config, workerinput and workerinput["mlcheck"])
        if run.of_suite:
            _ = run.targets, run.compared
        reports = run.of_suite and not _is_worker(config)
        recorder = reporting.Recorder(run) if reports else None
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(reporting)
    config.pluginmanager.register(rule_items)
    config.pluginmanager.register(_OurFixturesLast())
    if recorder is not None:
        config.pluginmanager.register(recorder, "mlcheck-recorder")


class _OurFixturesLast:
    """Registers our fixtures last: of two plugins with a fixture of the same name, the last one
    wins, and testinfra's `host` is this machine. So ours are registered when all plugins are
    there."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        session.config.pluginmanager.register(importlib.import_module(_FIXTURES), _FIXTURES)


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUN in config.stash:
        config.stash[RUN].close()
        if not _is_worker(config):
            _remove_unused_directory(config)


def _remove_unused_directory(config: pytest.Config) -> None:
    """Remove the directory that pytest-xdist makes in TMPDIR for `tmp_path`, if no test used it."""
    base: Path | None = getattr(getattr(config, "_tmp_path_factory", None), "_basetemp", None)
    if base is None or config.option.basetemp:
        return
    with contextlib.suppress(OSError):
        for worker in base.glob("popen-*"):
            worker.rmdir()
        if {one.name for one in base.iterdir()} <= {".lock"}:
            (base / ".lock").unlink(missing_ok=True)
            base.rmdir()
            for link in base.parent.glob("*-current"):
                if not link.exists():
                    link.unlink()
            base.parent.rmdir()  # fails if other runs have theirs in it


def pytest_report_header(config: pytest.Config) -> list[str]:
    run = config.stash[RUN]
    if not run.of_suite:
        return []
    targets = run.targets
    meant = dict.fromkeys((target.ref.text, target.meant) for target in targets if target.meant)
    return (
        [f"mlcheck: {text} is {why}" for text, why in meant]
        + [
            f"mlcheck: {target.ref.text} {_by(target)}, engine {target.engine} ({target.why})"
            for target in targets
        ]
        + [
            f"mlcheck: compared with {other.ref.text}, engine {other.engine} ({other.why})"
            for other in filter(None, [run.compared])
        ]
    )


def _by(target: Target) -> str:
    if not target.without_profile:
        return f"as {target.profile.label}"
    prefix = target.profile.expect.prefix
    where = f"its environment is {prefix}" if prefix else "no environment was found in it"
    return f"by what holds for every image, since no profile knows it ({where})"


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if _is_worker(config) or config.option.collectonly or not config.stash[RUN].of_suite:
        return
    try:
        config.stash[RUN].check_options()
        reporting.check_options(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("dist", "no") != "no":
        # Workers collect by themselves: their needs have to be ready before.
        run = config.stash[RUN]
        _prepare(config, [*run.targets, *filter(None, [run.compared])])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare what the chosen tests need, but no image that -k or -m left out."""
    config = session.config
    if _is_worker(config) or config.option.collectonly or config.getoption("dist", "no") != "no":
        return
    run = config.stash[RUN]
    used = {target.id for item in session.items if (target := target_of(item)) is not None}
    wanted = [target for target in run.targets if target.id in used]
    if run.compared is not None and any(map(_compares, session.items)):
        wanted.append(run.compared)
    if wanted:
        _prepare(config, wanted)


def _compares(item: pytest.Item) -> bool:
    """Return whether a test may use facts of the image of --compare."""
    rule = item.stash.get(rule_items.RULE, None)
    if rule is None:
        return "facts" in getattr(item, "fixturenames", ())
    return OtherImage in with_needs(set(needs_of(rule.check).values()))


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


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Send a worker the chosen engines and the images that are ready."""
    run = node.config.stash[RUN]
    if run.of_suite:
        node.workerinput["mlcheck"] = run.for_workers()
        by_image = node.config.getvalue("dist") == "load"
        enough = len(run.targets) >= node.workerinput["workercount"]
        node.workerinput[WHOLE_IMAGES] = by_image and enough
    else:
        node.workerinput["mlcheck"] = None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Spread the images over the workers, unless the user said how to (--dist)."""
    if config.getvalue("dist") != "load" or not config.stash[RUN].of_suite:
        return None
    from mlcheck.pytest_plugin.xdist_scheduling import ImageScheduling

    return ImageScheduling(config, log, [target.id for target in config.stash[RUN].targets])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Say what to do where -k or -m left nothing to check."""
    chosen = [f"-{o} {config.getoption(n)!r}" for o, n in (("k", "keyword"), ("m", "markexpr"))]
    chosen = [option for option in chosen if not option.endswith("''")]
    for option in ("--rule", "--skip-rule"):
        chosen += [f"{option} {rule}" for rule in config.getoption(option)]
    run = config.stash[RUN]
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and chosen and not run.results:
        terminalreporter.write_line(
            f"mlcheck: nothing was checked: no test fits {' '.join(chosen)}. "
            "--collect-only -q lists the names of all; `mlcheck explain --image IMAGE` tells which "
            "rules the profile of an image promises.",
            red=True,
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on every image that it is about. One that uses no image is about those of its
    folder all the same: its findings must belong to an image."""
    folder, rule = metafunc.definition.path.parent, rule_items.rule_named(metafunc.definition)
    if "mlcheck_target" not in metafunc.fixturenames:
        catalog = metafunc.config.stash[RUN].catalog
        if not any(folder.is_relative_to(place.resolve()) for place in catalog.directories):
            return
        metafunc.fixturenames.append("mlcheck_target")
    targets = metafunc.config.stash[RUN].targets
    if rule is not None:
        targets = [
            target
            for target in targets
            if is_about(rule, target.profile) and promises(target.profile, rule)
        ]
    elif only := is_of(folder):
        targets = [target for target in targets if only in target.profile.lineage]
    metafunc.parametrize(
        "mlcheck_target",
        targets,
        ids=[target.id for target in targets],
        indirect=True,
        scope="session",
    )


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
