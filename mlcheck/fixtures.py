"""Fixtures: the images of a run, their profiles, and the facts that probes found in them.

Every fixture is made once per image. An engine's or a probe's trouble is raised here, so that it
makes the tests that need the fact end as ERROR, not as FAILED.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from testinfra.host import Host

from mlcheck import facts, gpu, kept, opening
from mlcheck.checks.prefix import NAMES, missing
from mlcheck.checks.root_runs import needed_level
from mlcheck.engines import binds
from mlcheck.engines.base import OpenImage
from mlcheck.errors import Untried, UsageError
from mlcheck.expectations.jupyter import Kernelspec
from mlcheck.host import connect
from mlcheck.judge import Judge, show_with
from mlcheck.probes import (
    cpu,
    cuda,
    deployed,
    framework,
    imports,
    installed,
    jupyter,
    kernel_cells,
    kernelspecs,
    package_list,
    prefixes,
    promised_prefix,
    root_config,
    run_server,
    startup,
    system,
)
from mlcheck.probes import gpu as gpu_probe
from mlcheck.profile import Profile
from mlcheck.run import RUN, Target
from mlcheck.side_by_side import Running, running_fact


@pytest.fixture(scope="session")
def mlcheck_target(request: pytest.FixtureRequest) -> Target:
    """The image and engine that this test is about."""
    chosen = request.param
    assert isinstance(chosen, Target)
    return chosen


@pytest.fixture(scope="session")
def profile(mlcheck_target: Target) -> Profile:
    """What the image is expected to be."""
    return mlcheck_target.profile


@pytest.fixture(scope="session")
def image(mlcheck_target: Target, request: pytest.FixtureRequest) -> Iterator[OpenImage]:
    """The image, opened by its engine."""
    run = request.config.stash[RUN]
    engine = opening.engine(mlcheck_target.engine)
    with engine.open(run.prepared(mlcheck_target), start=run.start(mlcheck_target)) as opened:
        yield opened


@pytest.fixture(scope="session")
def static(image: OpenImage, mlcheck_target: Target, request: pytest.FixtureRequest) -> kept.Static:
    """Asks probes that only read: `static(elf.probe, image.rootfs, prefix)`. What they found is
    kept until the image or a probe changes."""
    run = request.config.stash[RUN]
    gpu = run.start(mlcheck_target).gpu
    return kept.asking(image, run.started_ns, gpu=gpu)


@pytest.fixture(scope="session")
def host(image: OpenImage) -> Host:
    """testinfra's host: `host.file("/etc/passwd").exists`, `host.package("zsh").is_installed`."""
    return connect(image)


@pytest.fixture
def judge(
    request: pytest.FixtureRequest,
    mlcheck_target: Target,
    image: OpenImage,
    static: kept.Static,
    running: Running,
) -> Judge:
    """Turns a verdict into the outcome of the test."""
    return Judge(request.node, mlcheck_target, show_with(image, static))


@pytest.fixture(scope="session")
def prefix_found(
    image: OpenImage, static: kept.Static, profile: Profile
) -> facts.PromisedPrefix | None:
    """What is at the profile's prefix; None when it names none."""
    path = profile.expect.prefix
    return None if path is None else static(promised_prefix.probe, image.rootfs, path)


@pytest.fixture(scope="session")
def prefix_or_none(prefix_found: facts.PromisedPrefix | None) -> str | None:
    """The profile's prefix, if it names one. What wants it is skipped where the image has nothing
    there."""
    if prefix_found is None:
        return None
    if not prefix_found.filled:
        raise Untried(missing(prefix_found))
    return prefix_found.path


@pytest.fixture(scope="session")
def prefix(prefix_or_none: str | None) -> str:
    """Root of the environment in the image."""
    if prefix_or_none is None:
        pytest.skip("the profile names no prefix")
    return prefix_or_none


@pytest.fixture(scope="session")
def conda_prefix(image: OpenImage, prefix: str, prefix_found: facts.PromisedPrefix) -> str:
    """The prefix, where it is conda's."""
    variables = ("CONDA_PREFIX", "CONDA_DIR", "MAMBA_ROOT_PREFIX")
    said = {image.environment.env.get(name, "").rstrip("/") for name in variables}
    if prefix_found.kind is None:
        raise Untried(missing(prefix_found))
    if prefix_found.kind != "conda" and (prefix_found.kind == "venv" or prefix not in said):
        pytest.skip(f"{prefix} is {NAMES[prefix_found.kind]}, not conda's")
    return prefix


@pytest.fixture(scope="session")
def python3(prefix_or_none: str | None) -> str:
    """The Python that has Jupyter: the prefix's, or that of PATH."""
    return f"{prefix_or_none}/bin/python3" if prefix_or_none else "python3"


@pytest.fixture(scope="session")
def checked_in_packages(
    mlcheck_target: Target, request: pytest.FixtureRequest
) -> facts.PackageList:
    """The checked-in copy of the package list: --package-list, or the profile's."""
    given = request.config.stash[RUN].package_list
    if given is not None:
        return package_list.read_host_file(given)
    profile = mlcheck_target.profile
    named = profile.expect.packages.checked_in
    source = profile.source("packages", "checked_in")
    if named is None or source is None:
        pytest.skip("no checked-in copy given (--package-list FILE, or packages.checked_in)")
    return package_list.read_host_file(Path(source.file).parent / named)


@pytest.fixture(scope="session")
def installed_packages(
    image: OpenImage, static: kept.Static, prefix_or_none: str | None
) -> facts.InstalledPackages:
    """What conda, pip, the system and micromamba have installed."""
    environments = static(prefixes.at, image.rootfs, prefix_or_none)
    return installed.probe(image, static, environments)


@pytest.fixture(scope="session")
def base_packages(
    mlcheck_target: Target, profile: Profile, request: pytest.FixtureRequest
) -> facts.PackageList | None:
    """The package list of the image that this one extends: of --base-list, or of the base image
    where it is found beside this one. None when it is not asked for."""
    run = request.config.stash[RUN]
    path = profile.expect.packages.list
    if not profile.expect.packages.contains_base or path is None or not profile.bases:
        return None
    if run.base_list is not None:
        return package_list.read_host_file(run.base_list)
    try:
        base, engine = opening.base(mlcheck_target.ref, profile.bases[0], mlcheck_target.engine)
        with opening.open_image(base, engine, pull="never") as opened:
            found = package_list.read(opened.rootfs, path)
    except UsageError as error:
        why = str(error).partition("\n")[0]
        raise Untried(
            f"the base image was not found ({why})", "Give its package list with --base-list FILE."
        ) from None
    return dataclasses.replace(found, path=f"{base.text}{path}")


@pytest.fixture(scope="session")
def deployment(mlcheck_target: Target, request: pytest.FixtureRequest) -> facts.Deployment | None:
    """Where this machine has the image as a directory; None when it has not."""
    if mlcheck_target.ref.kind not in ("directory", "reference"):
        return None
    directory = Path(request.config.stash[RUN].prepared(mlcheck_target).location)
    if not directory.is_absolute() or not directory.is_dir():
        return None
    return deployed.deployment(directory)


@pytest.fixture(scope="session")
def published_digest(
    mlcheck_target: Target, deployment: facts.Deployment | None, request: pytest.FixtureRequest
) -> facts.PublishedDigest:
    """Which image a deployed one should be; only for one on CVMFS is a registry asked."""
    if deployment is None or deployment.flat is None:
        return facts.PublishedDigest(None, "the image is not on CVMFS")
    return request.config.stash[RUN].published_digest(mlcheck_target, deployment.path)


@running_fact()
def python(image: OpenImage) -> facts.PythonProbe:
    """What python3 says of itself."""
    return system.python(image)


@running_fact()
def shells(image: OpenImage, static: kept.Static, profile: Profile) -> facts.Shells:
    """The promised shells, each started once."""
    return system.shells(image, static, profile.expect.shells)


@running_fact()
def commands(image: OpenImage, profile: Profile) -> facts.Commands:
    """The promised commands, each run once."""
    return system.commands(image, profile.expect.commands)


@pytest.fixture(scope="session")
def environment(image: OpenImage) -> facts.Environment:
    """The configuration of the image."""
    return image.environment


@pytest.fixture(scope="session")
def entrypoint_runs(image: OpenImage) -> facts.EntrypointRuns | None:
    """The entrypoint, started with commands behind it."""
    return startup.entrypoint(image)


@running_fact()
def banner(
    image: OpenImage, static: kept.Static, profile: Profile, prefix: str
) -> facts.Banner | None:
    """The banner, sourced by itself."""
    expected = profile.expect.banner
    if expected is None:
        return None
    return startup.banner(image, static, expected.script, expected.silenced_by, prefix)


@pytest.fixture(scope="session")
def jupyter_kernels(image: OpenImage, static: kept.Static) -> facts.Kernelspecs:
    """The kernelspecs that Jupyter finds in the image."""
    return kernelspecs.probe(image, static)


@pytest.fixture(scope="session")
def kernels_to_start(
    image: OpenImage,
    profile: Profile,
    jupyter_kernels: facts.Kernelspecs,
    mlcheck_target: Target,
    request: pytest.FixtureRequest,
) -> Mapping[str, Kernelspec]:
    """The promised kernels that are there, and have there what they need from outside."""
    promised = profile.expect.kernels()
    there = {spec.name for spec in jupyter_kernels.specs}
    bound: set[str] = set()
    if any(kernel.mounts for kernel in promised.values()):
        asked = request.config.stash[RUN].start(mlcheck_target).binds
        bound = {bind.target for bind in binds.usable(image.rootfs, asked)}
    return {
        name: kernel
        for name, kernel in sorted(promised.items())
        if name in there and set(kernel.mounts) <= bound
    }


@running_fact()
def kernel_runs(
    image: OpenImage, python3: str, kernels_to_start: Mapping[str, Kernelspec]
) -> facts.KernelRuns:
    """The promised kernels, started in all surroundings that they must bear."""
    asked = []
    for name, kernel in kernels_to_start.items():
        if kernel.language.lower() not in jupyter.ASKED_IN:  # `notebooks` are for all languages
            continue
        path = ("PATH",) if kernel.ignores_programs else ()
        home = () if kernel.usersite is None else ("~/.local",)
        hazards = (*path, *kernel.ignores_variables, *home)
        programs = kernel.ignores_programs
        asked.append(jupyter.Surroundings(name, hazards, programs, kernel.language))
    return jupyter.kernels(image, python3, asked)


@running_fact()
def kernel_sessions(
    image: OpenImage, python3: str, kernels_to_start: Mapping[str, Kernelspec]
) -> facts.KernelSessions:
    """The promised kernels that source a setup file or have code to run, with both."""
    asked = [
        kernel_cells.Session(
            name,
            kernel.setup.file.removeprefix("~/") if kernel.setup else None,
            tuple(kernel.setup.variables) if kernel.setup else (),
            {title: cell.code for title, cell in kernel.cells.items()},
        )
        for name, kernel in kernels_to_start.items()
        if kernel.setup or kernel.cells
    ]
    return kernel_cells.probe(image, python3, asked)


@running_fact()
def server_run(image: OpenImage, python3: str, profile: Profile) -> facts.JupyterServer | None:
    """The server that the image starts by itself; None where none is promised."""
    promised = profile.expect.run_server
    return run_server.probe(image, python3, promised.url) if promised else None


@pytest.fixture(scope="session")
def sif_size(mlcheck_target: Target, request: pytest.FixtureRequest) -> int | None:
    """Bytes of the image's SIF file; None where it is none."""
    if mlcheck_target.ref.kind != "sif":
        return None
    return Path(request.config.stash[RUN].prepared(mlcheck_target).location).stat().st_size


@running_fact()
def kernel_lists(image: OpenImage, python3: str, profile: Profile) -> facts.KernelLists:
    """The list of kernels with those of a user and of a host present."""
    promised = profile.expect.kernelspecs
    names = sorted(profile.expect.kernels())
    if promised is None or not promised.clean or not names:
        return facts.KernelLists(())
    return jupyter.kernel_lists(image, python3, names)


@running_fact()
def jupyterlab(image: OpenImage, python3: str, profile: Profile) -> facts.JupyterServer:
    """JupyterLab, started once."""
    promised = profile.expect.jupyterlab
    if promised is None:
        pytest.skip("the profile promises no JupyterLab")
    return jupyter.server(image, python3, promised.command, promised.kernel, promised.terminals)


@running_fact()
def speech(image: OpenImage, prefix: str, profile: Profile) -> facts.Speech:
    """What the programs say that must say something."""
    promised = profile.expect.scripts
    return jupyter.speech(image, f"{prefix}/bin", promised.speaking if promised else ())


@running_fact()
def module_imports(image: OpenImage, profile: Profile) -> facts.Imports:
    """The promised modules, each imported in a fresh interpreter."""
    found = imports.probe(image, list(profile.expect.packages.modules().values()))
    if any("SIGILL" in (result.error or "") for result in found.results):
        cpu.require(image, needed_level(profile), "python3")
    return found


@running_fact()
def root_config_libs(image: OpenImage, static: kept.Static) -> facts.RootConfig:
    """`root-config --libs`."""
    return root_config.probe(image, static)


@running_fact()
def framework_said(image: OpenImage, profile: Profile) -> facts.Framework:
    """The promised framework, imported, computing on the CPU."""
    if profile.expect.framework is None:
        pytest.skip("the profile promises no framework")
    return framework.probe(image, profile.expect.framework.module)


@running_fact()
def framework_script(image: OpenImage, profile: Profile) -> facts.CommandResult | None:
    """The image's own check of its framework."""
    promised = profile.expect.framework
    return cuda.script(image, promised.script) if promised and promised.script else None


@pytest.fixture(scope="session")
def cuda_libraries(
    image: OpenImage,
    static: kept.Static,
    prefix: str,
    profile: Profile,
    mlcheck_target: Target,
    request: pytest.FixtureRequest,
) -> facts.CudaLibraries:
    """The framework's CUDA libraries, and those of the driver in the image."""
    promised = profile.expect.framework
    if promised is None:
        pytest.skip("the profile promises no framework")
    asked = request.config.stash[RUN].start(mlcheck_target).gpu
    given = cuda.mount_points(image) if asked else frozenset[str]()
    return static(cuda.probe, image, prefix, promised.module, promised.opens, given)


@running_fact()
def gpu_hints(image: OpenImage, profile: Profile) -> facts.Hints:
    """What the hint scripts say."""
    promised = profile.expect.framework
    return cuda.hints(image, promised.hints if promised else ())


@pytest.fixture(scope="session")
def gpus(
    image: OpenImage, profile: Profile, mlcheck_target: Target, request: pytest.FixtureRequest
) -> facts.Gpus:
    """The GPUs, from the machine up to a computation; as far as there are any."""
    run = request.config.stash[RUN]
    required = bool(request.config.getoption("--require-gpu"))
    host, refused = gpu.host(), run.gpu_refused(mlcheck_target)
    promised = profile.expect.framework
    if refused or promised is None or not promised.cuda:
        return facts.Gpus(host, refused, required)
    return gpu_probe.climb(image, host, promised.module, required=required)
