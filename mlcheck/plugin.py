"""pytest glue: options, and parametrisation by image."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from mlcheck import kept, opening, reporting
from mlcheck.errors import UsageError
from mlcheck.profile import FILE_NAME
from mlcheck.run import RUN, WHOLE_IMAGES, Run, Target, target_of

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

pytest_plugins = ["mlcheck.told", "mlcheck.collecting"]

_FIXTURES = (
    "mlcheck.side_by_side",
    "mlcheck.fixtures",
    "mlcheck.fixtures_static",
    "mlcheck.fixtures_at_work",
    "mlcheck.fixtures_parity",
    "mlcheck.fixtures_serving",
)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("mlcheck", "mlcheck: which images, and what is expected of them")
    group.addoption(
        "--image",
        action="append",
        default=[],
        metavar="IMAGE",
        help="image to judge; repeat for several. NAME[:TAG] or NAME@DIGEST of docker, podman or a "
        "registry, a directory (./X, /X), FILE.sif, docker-archive:FILE, oci:DIR, "
        "oci-archive:FILE or reference:NAME[:TAG]; the short name of a published image or all "
        "(`mlcheck images` lists them). Default of pytest: the reference images.",
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
    reporting.add_options(group, pluginmanager)


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
        if run.of_suite:
            _ = run.targets, run.compared
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(reporting)
    config.pluginmanager.register(_OurFixturesLast())
    if run.of_suite and not _is_worker(config):
        config.pluginmanager.register(reporting.Recorder(run), "mlcheck-recorder")


class _OurFixturesLast:
    """Of two plugins with a fixture of the same name, the one that is registered last has it, and
    testinfra's `host` is this machine. So ours are registered when all plugins are there."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        for name in _FIXTURES:
            session.config.pluginmanager.register(importlib.import_module(name), name)


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUN in config.stash:
        config.stash[RUN].close()


def pytest_report_header(config: pytest.Config) -> list[str]:
    run = config.stash[RUN]
    if not run.of_suite:
        return []
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
    if _is_worker(config) or config.option.collectonly or not config.stash[RUN].of_suite:
        return
    try:
        config.stash[RUN].check_options()
        reporting.check_options(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("dist", "no") != "no":
        # Workers collect by themselves: what they will need has to be ready before.
        run = config.stash[RUN]
        _prepare(config, [*run.targets, *filter(None, [run.compared])])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have ready what the chosen tests need, and no image that -k or -m left out."""
    config = session.config
    if _is_worker(config) or config.option.collectonly or config.getoption("dist", "no") != "no":
        return
    run = config.stash[RUN]
    used = {target.id for item in session.items if (target := target_of(item)) is not None}
    wanted = [target for target in run.targets if target.id in used]
    if any("compared_target" in getattr(item, "fixturenames", ()) for item in session.items):
        wanted += filter(None, [run.compared])
    if wanted:
        _prepare(config, wanted)


def _prepare(config: pytest.Config, targets: Sequence[Target]) -> None:
    run = config.stash[RUN]
    progress = reporting.Progress(config.pluginmanager.get_plugin("terminalreporter"))
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
    """Tell a worker which engines were chosen and which images are ready."""
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
    from mlcheck.spreading import ImageScheduling

    return ImageScheduling(config, log, [target.id for target in config.stash[RUN].targets])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Say what to do where -k or -m left nothing to check."""
    chosen = [f"-{o} {config.getoption(n)!r}" for o, n in (("k", "keyword"), ("m", "markexpr"))]
    chosen = [option for option in chosen if not option.endswith("''")]
    run = config.stash[RUN]
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and chosen and not run.results:
        terminalreporter.write_line(
            f"mlcheck: nothing was checked: no test fits {' '.join(chosen)}. "
            "--collect-only -q lists the names of all.",
            red=True,
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on every image that it is about. One that uses no image is about those of its
    folder all the same: what it finds must not be nobody's."""
    folder = metafunc.definition.path.parent
    if "mlcheck_target" not in metafunc.fixturenames:
        catalog = metafunc.config.stash[RUN].catalog
        if not any(folder.is_relative_to(place.resolve()) for place in catalog.directories):
            return
        metafunc.fixturenames.append("mlcheck_target")
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


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
