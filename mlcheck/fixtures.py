"""Fixtures: the images of a run, their profiles, and the facts that probes found in them.

Every fixture is made once per image. An engine's or a probe's trouble is raised here, so that it
makes the tests that need the fact end as ERROR, not as FAILED.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from mlcheck import facts, opening
from mlcheck.engines.base import OpenImage
from mlcheck.host import connect
from mlcheck.judge import Judge, show_with
from mlcheck.probes import (
    elf,
    imports,
    installed,
    jupyter,
    kernelspecs,
    libraries,
    package_list,
    root_config,
    system,
)
from mlcheck.profile import Profile
from mlcheck.run import RUN, Target


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
def host(image: OpenImage) -> Host:
    """testinfra's host: `host.file("/etc/passwd").exists`, `host.package("zsh").is_installed`."""
    return connect(image)


@pytest.fixture
def judge(request: pytest.FixtureRequest, mlcheck_target: Target, image: OpenImage) -> Judge:
    """Turns a verdict into the outcome of the test."""
    return Judge(request.node, mlcheck_target, show_with(image))


@pytest.fixture(scope="session")
def prefix(profile: Profile) -> str:
    """Root of the conda environment in the image."""
    if profile.expect.prefix is None:
        pytest.skip("the profile names no prefix")
    return profile.expect.prefix


@pytest.fixture(scope="session")
def listed_packages(image: OpenImage, profile: Profile) -> facts.PackageList:
    """The package list in the image."""
    if profile.expect.packages.list is None:
        pytest.skip("the profile promises no package list")
    return package_list.read(image.rootfs, profile.expect.packages.list)


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
def installed_packages(image: OpenImage, prefix: str) -> facts.InstalledPackages:
    """What conda, pip, the system and micromamba have installed."""
    return installed.probe(image, prefix)


@pytest.fixture(scope="session")
def elf_files(image: OpenImage, prefix: str) -> facts.ElfFiles:
    """Every ELF file of the prefix."""
    return elf.probe(image.rootfs, prefix)


@pytest.fixture(scope="session")
def needed_libraries(
    image: OpenImage, prefix: str, profile: Profile, elf_files: facts.ElfFiles
) -> facts.Libraries:
    """How the loader resolves the promised libraries and those of the programs in bin/."""
    programs = [path for path in elf_files.files if path.rpartition("/")[0] == f"{prefix}/bin"]
    return libraries.probe(image, profile.expect.libraries.system, programs)


@pytest.fixture(scope="session")
def os_release(image: OpenImage) -> facts.OsRelease:
    """/etc/os-release."""
    return system.os_release(image.rootfs)


@pytest.fixture(scope="session")
def python(image: OpenImage) -> facts.PythonProbe:
    """What python3 says of itself."""
    return system.python(image)


@pytest.fixture(scope="session")
def promised_files(image: OpenImage, profile: Profile) -> facts.Files:
    """What is at the paths that the profile names."""
    expect = profile.expect
    paths = [*expect.files, *(expect.entrypoint.argv[:1] if expect.entrypoint else ())]
    if expect.micromamba:
        paths += [p for p in (expect.micromamba.path, expect.micromamba.link) if p]
    return system.files(image.rootfs, paths)


@pytest.fixture(scope="session")
def micromamba_elf(image: OpenImage, profile: Profile) -> facts.ElfFiles:
    """The names of micromamba as ELF files."""
    expected = profile.expect.micromamba
    paths = [p for p in (expected.path, expected.link) if p] if expected else []
    return elf.probe_files(image.rootfs, paths)


@pytest.fixture(scope="session")
def shells(image: OpenImage, profile: Profile) -> facts.Shells:
    """The promised shells, each started once."""
    return system.shells(image, profile.expect.shells)


@pytest.fixture(scope="session")
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
    return system.entrypoint(image)


@pytest.fixture(scope="session")
def scripts(image: OpenImage, prefix: str) -> facts.Scripts:
    """The scripts in the prefix's bin/."""
    return system.scripts(image.rootfs, prefix, image.environment.env.get("PATH", ""))


@pytest.fixture(scope="session")
def jupyter_kernels(image: OpenImage) -> facts.Kernelspecs:
    """The kernelspecs that Jupyter finds in the image."""
    return kernelspecs.probe(image)


@pytest.fixture(scope="session")
def kernel_runs(
    image: OpenImage, prefix: str, profile: Profile, jupyter_kernels: facts.Kernelspecs
) -> facts.KernelRuns:
    """The promised kernels that are there, started in all surroundings that they must bear."""
    promised = profile.expect.kernels()
    asked = []
    for name in sorted({spec.name for spec in jupyter_kernels.specs} & set(promised)):
        kernel = promised[name]
        path = ("PATH",) if kernel.ignores_programs else ()
        home = () if kernel.usersite is None else ("~/.local",)
        hazards = (*path, *kernel.ignores_variables, *home)
        asked.append(jupyter.Surroundings(name, hazards, kernel.ignores_programs))
    return jupyter.kernels(image, f"{prefix}/bin/python3", asked)


@pytest.fixture(scope="session")
def kernel_lists(image: OpenImage, prefix: str, profile: Profile) -> facts.KernelLists:
    """The list of kernels with those of a user and of a host present."""
    names = sorted(profile.expect.kernels())
    if not names:
        pytest.skip("the profile promises no kernels")
    return jupyter.kernel_lists(image, f"{prefix}/bin/python3", names)


@pytest.fixture(scope="session")
def jupyterlab(image: OpenImage, prefix: str, profile: Profile) -> facts.JupyterServer:
    """JupyterLab, started once."""
    promised = profile.expect.jupyterlab
    if promised is None:
        pytest.skip("the profile promises no JupyterLab")
    python = f"{prefix}/bin/python3"
    return jupyter.server(image, python, promised.command, promised.kernel, promised.terminals)


@pytest.fixture(scope="session")
def speech(image: OpenImage, prefix: str, profile: Profile) -> facts.Speech:
    """What the programs say that must say something."""
    promised = profile.expect.scripts
    return jupyter.speech(image, f"{prefix}/bin", promised.speaking if promised else ())


@pytest.fixture(scope="session")
def module_imports(image: OpenImage, profile: Profile) -> facts.Imports:
    """The promised modules, each imported in a fresh interpreter."""
    return imports.probe(image, list(profile.expect.packages.modules().values()))


@pytest.fixture(scope="session")
def root_config_libs(image: OpenImage) -> facts.RootConfig:
    """`root-config --libs`."""
    return root_config.probe(image)
