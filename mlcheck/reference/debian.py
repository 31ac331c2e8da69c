"""What `--real` takes from Debian's packages in place of stand-ins: zsh, tcsh, GLVND's libGL, g++.

Nothing is installed on this machine: the packages are downloaded and unpacked for the image.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlcheck.errors import EngineError
from mlcheck.reference import elf, system, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.python import PREFIX

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_GL = ("libgl1", "libglvnd0", "libglx0", "libx11-6", "libxau6", "libxcb1", "libxdmcp6")
_R = ("r-base-core", "r-cran-irkernel")
_R_FILES = ("etc/R", "usr/lib/R", "usr/share/R")
_GL_NEEDS = ("libbsd0", "libmd0")
_COMPILER = ("g++", "zlib1g-dev", "libsm6", "libice6", "libx11-6", "libxext6")
_OF_COMPILER = re.compile(r"(^|-)(as|ld(\.bfd)?|[gc]\+\+|gcc|cpp|ar|nm|ranlib)(-\d+)?$")
_LEFT_OUT = re.compile(r"lib([alt]san|ubsan|[a-z]*crypt|ssl|krb|gssapi|tirpc|nsl)")
"""Libraries that are large, and that nothing here needs."""


def add_shells(root: Path, job: Job) -> dict[str, str]:
    """Put real zsh and tcsh into the prefix; returns their versions.

    Raises:
        EngineError: apt cannot get them.
    """
    with _unpacked(root, job, ("zsh", "tcsh")) as (top, versions):
        for name in ("zsh", "tcsh"):
            program = top / "bin" / name
            if not program.is_file():  # since Debian 13
                program = top / "usr/bin" / name
            tree.copy(root, f"{PREFIX}/bin/{name}", program.resolve(), 0o755)
            system.add_libraries(root, job, [program])
        _link_libraries(root)
        modules = f"/{_LIBRARIES}/zsh"
        shutil.copytree(top / modules.lstrip("/"), tree.at(root, modules))
        for module in sorted(tree.at(root, modules).rglob("*.so")):
            try:
                system.add_libraries(root, job, [module])
            except EngineError:  # an optional module, whose library this machine does not have
                module.unlink()
        return versions


def add_lib_gl(root: Path, job: Job) -> None:
    """Put GLVND's libGL, and what it needs, into the system's libraries.

    Raises:
        EngineError: apt cannot get them.
    """
    with _unpacked(root, job, (*_GL, *_GL_NEEDS)) as (top, _):
        found = top / _LIBRARIES / "libGL.so.1"
        name = found.resolve().name
        tree.copy(root, f"{system.LIB}/{name}", found.resolve(), 0o755)
        tree.symlink(root, f"{system.LIB}/libGL.so.1", name)
        system.add_libraries(root, job, [found], search=found.parent)


def add_r(root: Path, job: Job) -> dict[str, str]:
    """Put R at its places in Debian, with the kernel for Jupyter and what both need.

    Returns: the versions of R's packages, by their names in Debian ("r-cran-irkernel").

    Raises:
        EngineError: apt cannot get them.
    """
    try:
        # What this machine lacks; what it has is copied from it.
        simulated = job.run(
            ["apt-get", "install", "--simulate", "--no-install-recommends", *_R], cwd=root.parent
        )
    except EngineError as error:
        raise EngineError(
            "The reference images of docker-stacks' kind take R from Debian's packages, which "
            f"could not be had.\n{error.what}",
            "Run apt-get update; on a machine without apt judge the other reference images "
            "(pytest -k pyroot).",
        ) from error
    missing = set(re.findall(r"^Inst (\S+)", simulated, re.MULTILINE))
    with _unpacked(root, job, sorted(missing | {*_R})) as (top, versions):
        libraries = [
            file
            for place in (_LIBRARIES, "lib/x86_64-linux-gnu")
            for file in sorted((top / place).rglob("*.so*"))
            if file.is_file()
        ]
        for source in _R_FILES:
            shutil.copytree(
                top / source,
                tree.at(root, f"/{source}"),
                symlinks=True,
                ignore=shutil.ignore_patterns("i18n", "po", "help", "html", "doc", "tests"),
                dirs_exist_ok=True,
            )
        # As the package's own script does when it is installed.
        settings = top / "usr/lib/R/etc/Renviron.ucf"
        tree.copy(root, "/etc/R/Renviron", settings, 0o644)
        for file in libraries:
            tree.copy(root, f"{system.LIB}/{file.name}", file.resolve(), 0o755)
        for name in ("R", "Rscript"):
            tree.copy(root, f"/usr/bin/{name}", top / "usr/lib/R/bin" / name, 0o755)
        files = [file for file in (top / "usr/lib/R").rglob("*") if file.is_file()]
        elves = [file for file in sorted(files) if not file.is_symlink() and elf.is_elf(file)]
        work = top / "all"  # the loader does not look into libraries' own directories
        work.mkdir()
        for file in [*libraries, *(top / "usr/lib/R/lib").glob("*.so")]:
            if not (work / file.name).exists():
                (work / file.name).symlink_to(file.resolve())
        system.add_libraries(root, job, elves, search=work)
        return versions


def add_compiler(root: Path, job: Job) -> str:
    """Put g++ with its headers at their places in Debian, zlib's headers and library into the
    prefix, and the libraries of X11 that ROOT's graphics need into the system's.

    Returns: the version of zlib.

    Raises:
        EngineError: apt cannot get them.
    """
    _link_libraries(root)
    with _unpacked(root, job, _needed(root, job, _COMPILER)) as (top, versions):
        for name in ("zlib.h", "zconf.h"):
            (top / "usr/include" / name).rename(tree.at(root, f"{PREFIX}/include/{name}"))
        for source in ("usr/include", "usr/lib/gcc", "usr/libexec/gcc"):
            if (top / source).is_dir():
                target = tree.at(root, f"/{source}")
                shutil.copytree(top / source, target, symlinks=True, dirs_exist_ok=True)
        for program in sorted((top / "usr/bin").iterdir()):
            if _OF_COMPILER.search(program.name):
                shutil.copy2(
                    program, tree.at(root, f"/usr/bin/{program.name}"), follow_symlinks=False
                )
        for place in (_LIBRARIES, "lib/x86_64-linux-gnu"):
            for file in sorted((top / place).iterdir()) if (top / place).is_dir() else ():
                name = file.name
                if name.startswith("libz."):
                    _copy_library(file, tree.at(root, f"{PREFIX}/lib/{name}"))
                elif not _LEFT_OUT.match(name):
                    _copy_library(file, tree.at(root, f"{system.LIB}/{name}"))
        return versions["zlib1g-dev"].removesuffix(".dfsg")


def _link_libraries(root: Path) -> None:
    """Have Debian's directory of libraries, where its programs look for theirs, lead to that of
    the image."""
    if not tree.at(root, f"/{_LIBRARIES}").is_symlink():
        tree.symlink(root, f"/{_LIBRARIES}", "../lib64")


def _copy_library(file: Path, target: Path) -> None:
    """Copy a library, or a link to one, which then leads to its neighbour."""
    if target.exists() or file.is_dir():
        return
    if file.is_symlink():
        target.symlink_to(file.readlink().name)
    else:
        shutil.copy2(file, target)


def _needed(root: Path, job: Job, packages: Sequence[str]) -> list[str]:
    """The packages with all that they depend on, as far as it is libraries and compilers."""
    without = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    words = ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in without)]
    try:
        listed = job.run([*words, *packages], cwd=root.parent)
    except EngineError as error:
        raise _not_to_be_had(packages, error) from error
    return sorted(
        set(re.findall(r"^(?:[gc]\+\+|gcc|cpp|binutils|lib|linux-libc|zlib)\S*", listed, re.M))
    )


@contextlib.contextmanager
def _unpacked(
    root: Path, job: Job, packages: Sequence[str]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory with the packages' files, and the packages' upstream versions."""
    work = root.parent / "debian"  # goes away with a killed build
    try:
        (work / "files").mkdir(parents=True)
        try:
            job.run(["apt-get", "download", *packages], cwd=work)
        except EngineError as error:
            raise _not_to_be_had(packages, error) from error
        versions = {}
        for file in sorted(work.glob("*.deb")):
            job.run(["dpkg-deb", "-x", file, work / "files"], cwd=work)
            name, version = file.name.split("_")[:2]
            version = version.rpartition("%3a")[2]  # without Debian's epoch
            versions[name] = version.rpartition("-")[0] or version
        yield work / "files", versions
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _not_to_be_had(packages: Sequence[str], error: EngineError) -> EngineError:
    return EngineError(
        "This reference image takes " + ", ".join(packages) + " from Debian's "
        f"packages, which could not be had.\n{error.what}",
        "Run apt-get update, or build ml-base and its like without --real: then small stand-ins "
        "take their place.",
    )
