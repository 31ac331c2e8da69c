"""Fixtures of what is read from an image's files, with nothing run: kept until they change."""

from __future__ import annotations

import pytest

from mlcheck import facts, kept
from mlcheck.checks.deployed import SINGULARITY_FILES, SINGULARITY_LINKS
from mlcheck.engines.base import OpenImage
from mlcheck.probes import conda_files as conda_files_probe
from mlcheck.probes import deployed, elf, libraries, package_list, reading, size, system
from mlcheck.probes import distributions as distributions_probe
from mlcheck.probes import layers as layers_probe
from mlcheck.profile import Profile


@pytest.fixture(scope="session")
def listed_packages(image: OpenImage, static: kept.Static, profile: Profile) -> facts.PackageList:
    """The package list in the image."""
    if profile.expect.packages.list is None:
        pytest.skip("the profile promises no package list")
    return static(package_list.read, image.rootfs, profile.expect.packages.list)


@pytest.fixture(scope="session")
def conda_meta(image: OpenImage, static: kept.Static, prefix: str) -> facts.CondaRecords:
    """What conda-meta says of every file: for probes alone (`Static.later`)."""
    return static.later(conda_files_probe.records, image.rootfs, prefix)


@pytest.fixture(scope="session")
def conda_records(
    static: kept.Static, conda_meta: facts.CondaRecords, profile: Profile
) -> facts.CondaRecords:
    """What conda-meta says of dependencies, and of the files that the profile names."""
    named = list(profile.expect.integrity.replaced)
    return static(conda_files_probe.without_files, conda_meta, named)


@pytest.fixture(scope="session")
def conda_files(
    image: OpenImage, static: kept.Static, conda_meta: facts.CondaRecords, conda_prefix: str
) -> facts.FilePresence:
    """Which of the recorded files are there."""
    return static(conda_files_probe.presence, image.rootfs, conda_meta)


@pytest.fixture(scope="session")
def conda_contents(
    image: OpenImage, static: kept.Static, conda_meta: facts.CondaRecords
) -> facts.FileContents:
    """Which of the recorded files have the recorded content: every one is read."""
    return static(conda_files_probe.contents, image.rootfs, conda_meta)


@pytest.fixture(scope="session")
def distributions(image: OpenImage, static: kept.Static, prefix: str) -> facts.Distributions:
    """What the Python packages require."""
    return static(distributions_probe.probe, image.rootfs, prefix)


@pytest.fixture(scope="session")
def singularity_files(image: OpenImage, static: kept.Static) -> facts.Files:
    """What is at the paths by which apptainer starts an image."""
    libs = "/.singularity.d/libs"
    return static(system.files, image.rootfs, [*SINGULARITY_FILES, libs, *SINGULARITY_LINKS])


@pytest.fixture(scope="session")
def unreadable_files(
    image: OpenImage,
    static: kept.Static,
    deployment: facts.Deployment | None,
    profile: Profile,
) -> facts.UnreadableFiles | None:
    """What others cannot read of a sandbox; None when that is not asked."""
    if deployment is None or deployment.cvmfs or profile.expect.deployed is None:
        return None
    return static(deployed.unreadable, image.rootfs)


@pytest.fixture(scope="session")
def elf_files(image: OpenImage, static: kept.Static, prefix: str) -> facts.ElfFiles:
    """Every ELF file of the prefix."""
    return static(elf.probe, image.rootfs, prefix)


@pytest.fixture(scope="session")
def needed_libraries(
    image: OpenImage,
    static: kept.Static,
    prefix: str,
    profile: Profile,
    elf_files: facts.ElfFiles,
) -> facts.Libraries:
    """How the loader resolves the promised libraries and those of the programs in bin/."""
    place = f"{prefix}/bin"
    files = elf_files.files
    there = static(system.files, image.rootfs, (place,)).files[place].file
    if there is not None and there.type == "symlink":  # below which nobody has looked
        files = static(elf.probe, image.rootfs, place).files
    programs = [path for path in files if path.rpartition("/")[0] == place]
    return static(libraries.probe, image, profile.expect.libraries.system, programs, elf_files)


@pytest.fixture(scope="session")
def os_release(image: OpenImage, static: kept.Static) -> facts.OsRelease:
    """/etc/os-release."""
    return static(system.os_release, image.rootfs)


@pytest.fixture(scope="session")
def promised_files(image: OpenImage, static: kept.Static, profile: Profile) -> facts.Files:
    """What is at the paths that the profile names."""
    expect = profile.expect
    paths = list(expect.files)
    if expect.micromamba:
        paths += [p for p in (expect.micromamba.path, expect.micromamba.link) if p]
    return static(system.files, image.rootfs, paths)


@pytest.fixture(scope="session")
def entrypoint_program(
    image: OpenImage, static: kept.Static, profile: Profile
) -> facts.ResolvedFile | None:
    """The program that the promised entrypoint starts; one without a slash is found on PATH."""
    expected = profile.expect.entrypoint
    if expected is None:
        return None
    path_env = reading.path_of(image.environment.env)
    found = static(reading.on_path, image.rootfs, expected.argv[0], path_env)
    path = found or expected.argv[0]
    return static(system.files, image.rootfs, [path]).files[path]


@pytest.fixture(scope="session")
def unpacked_size(image: OpenImage, static: kept.Static, profile: Profile) -> int | None:
    """Bytes of all files; None where the profile sets no budget."""
    budget = profile.expect.size
    return static(size.probe, image.rootfs).unpacked if budget and budget.unpacked else None


@pytest.fixture(scope="session")
def micromamba_elf(image: OpenImage, static: kept.Static, profile: Profile) -> facts.ElfFiles:
    """The names of micromamba as ELF files."""
    expected = profile.expect.micromamba
    paths = [p for p in (expected.path, expected.link) if p] if expected else []
    return static(elf.probe_files, image.rootfs, paths)


@pytest.fixture(scope="session")
def scripts(image: OpenImage, static: kept.Static, prefix: str) -> facts.Scripts:
    """The scripts in the prefix's bin/."""
    path = image.environment.env.get("PATH", "")
    return static(system.scripts, image.rootfs, prefix, path)


@pytest.fixture(scope="session")
def layers(image: OpenImage, static: kept.Static) -> facts.Layers | None:
    """What the layers of the image hold; None where the engine knows no layers."""
    return None if image.layers is None else static(layers_probe.probe, image.layers)
