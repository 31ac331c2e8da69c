"""Debian's packages that `--real` uses instead of stand-ins: zsh, tcsh, GLVND's libGL, g++,
command-line tools.

They are downloaded and unpacked into the image; nothing is installed on this machine.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mlcheck.model.errors import EngineError
from mlcheck.reference import elf, system, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.python import PREFIX

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_GL = ("libgl1", "libglvnd0", "libglx0", "libx11-6", "libxau6", "libxcb1", "libxdmcp6")
_R = ("r-base-core", "r-cran-irkernel")
_R_FILES = ("etc/R", "usr/lib/R", "usr/share/R")
_GL_NEEDS = ("libbsd0", "libmd0")
_FOR_ROOT = (
    *("g++", "zlib1g-dev", "libsm6", "libice6", "libx11-6", "libxext6"),
    *("libexpat1", "libxrender1"),  # of the fonts that its plug-in for pictures draws with
)
_OF_COMPILER = re.compile(r"(^|-)(as|ld(\.bfd)?|[gc]\+\+|gcc|cpp|ar|nm|ranlib)(-\d+)?$")
_LEFT_OUT = re.compile(r"lib([alt]san|ubsan|[a-z]*crypt|ssl|krb|gssapi|tirpc|nsl)")
"""Libraries that are large and not needed here."""
_SYSTEM = re.compile(r"libc6|libgcc-s1|libstdc\+\+6|gcc-\d+-base")
"""Libraries that any image takes from this machine."""
_WHOLE = re.compile(r"libpython3\S*|libsource-highlight-common")
"""Packages of libraries whose other files their programs read."""
_DOCUMENTS = re.compile(
    r"usr/share/(doc|man|info|locale|lintian|bug|menu|icons|pixmaps|applications|perl5"
    r"|bash-completion|zsh|fish|reportbug|doc-base|vim/vim\d+/(lang|doc|tutor|spell))/"
    r"|etc/(init\.d|cron\..*|logrotate\.d)/"
)
"""Files for people to read, or for desktops only."""
_NEEDED = re.compile(r"Depends: ((?:lib|zlib|[gc]\+\+|gcc|cpp|binutils|linux-libc)\S*)")
"""A line of `apt-cache depends` with a library or a part of a compiler."""


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
            except EngineError:  # an optional module whose library this machine lacks
                module.unlink()
        return versions


def add_lib_gl(root: Path, job: Job) -> None:
    """Put GLVND's libGL and its dependencies into the system's libraries.

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
    """Put R at its places in Debian, with the kernel for Jupyter and the dependencies of both.

    Returns: versions of the R packages, by their names in Debian ("r-cran-irkernel").

    Raises:
        EngineError: apt cannot get them.
    """
    try:
        # Packages that this machine lacks; those that it has are copied from it.
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
        # The package's own script does this at installation.
        settings = top / "usr/lib/R/etc/Renviron.ucf"
        tree.copy(root, "/etc/R/Renviron", settings, 0o644)
        for file in libraries:
            tree.copy(root, f"{system.LIB}/{file.name}", file.resolve(), 0o755)
        for name in ("R", "Rscript"):
            tree.copy(root, f"/usr/bin/{name}", top / "usr/lib/R/bin" / name, 0o755)
        files = [file for file in (top / "usr/lib/R").rglob("*") if file.is_file()]
        elves = [file for file in sorted(files) if not file.is_symlink() and elf.is_elf(file)]
        work = top / "all"  # the loader does not search the libraries' own directories
        work.mkdir()
        for file in [*libraries, *(top / "usr/lib/R/lib").glob("*.so")]:
            if not (work / file.name).exists():
                (work / file.name).symlink_to(file.resolve())
        system.add_libraries(root, job, elves, search=work)
        return versions


def add_programs(root: Path, job: Job, packages: Sequence[str]) -> dict[str, str]:
    """Put the files of packages at their places in Debian, replacing whatever is there.

    Libraries that their programs need go to the system's libraries. Documents and translations are
    left out; terminfo, which many programs read, is included.

    Returns: the packages' upstream versions.

    Raises:
        EngineError: apt cannot get them.
    """
    _link_libraries(root)
    needed = _needed(root, job, packages)
    whole = {*packages, "ncurses-base", *filter(_WHOLE.fullmatch, needed)}
    searched = {name for name in needed - whole if not _SYSTEM.fullmatch(name)}
    with (
        _unpacked(root, job, whole) as (top, versions),
        _unpacked(root, job, searched, "debian-libraries") as (below, _),
    ):
        elves = []
        for source in sorted(top.rglob("*")):
            path = str(source.relative_to(top))
            if (source.is_dir() and not source.is_symlink()) or _DOCUMENTS.match(path):
                continue
            _put(root, path, source)
            if not source.is_symlink() and elf.is_linked(source):
                elves.append(source)
        search = root.parent / "debian-all"
        search.mkdir()
        for file in [*top.rglob("*.so*"), *below.rglob("*.so*")]:
            if not (search / file.name).exists():
                (search / file.name).symlink_to(file.resolve())
        try:
            system.add_libraries(root, job, elves, search=search)
        finally:
            shutil.rmtree(search)
        return versions


def add_gcc(root: Path, job: Job) -> None:
    """Put gcc and g++ with their headers at their places in Debian.

    Raises:
        EngineError: apt cannot get them.
    """
    _link_libraries(root)
    with _unpacked(root, job, _needed(root, job, ("g++",))) as (top, _):
        _put_compiler(root, top)


def add_compiler(root: Path, job: Job) -> str:
    """Put g++ with its headers at their places in Debian.

    zlib's headers and library go to the prefix, and the X11 libraries of ROOT's graphics to the
    system's libraries.

    Returns: the version of zlib.

    Raises:
        EngineError: apt cannot get them.
    """
    _link_libraries(root)
    with _unpacked(root, job, _needed(root, job, _FOR_ROOT)) as (top, versions):
        for name in ("zlib.h", "zconf.h"):
            (top / "usr/include" / name).rename(tree.at(root, f"{PREFIX}/include/{name}"))
        for file in sorted(top.glob("**/x86_64-linux-gnu/libz.*")):
            _copy_library(file, tree.at(root, f"{PREFIX}/lib/{file.name}"))
            file.unlink()
        _put_compiler(root, top)
        return versions["zlib1g-dev"].removesuffix(".dfsg")


def _put_compiler(root: Path, top: Path) -> None:
    for source in ("usr/include", "usr/lib/gcc", "usr/libexec/gcc"):
        if (top / source).is_dir():
            target = tree.at(root, f"/{source}")
            shutil.copytree(top / source, target, symlinks=True, dirs_exist_ok=True)
    for program in sorted((top / "usr/bin").iterdir()):
        if _OF_COMPILER.search(program.name):
            shutil.copy2(program, tree.at(root, f"/usr/bin/{program.name}"), follow_symlinks=False)
    for place in (_LIBRARIES, "lib/x86_64-linux-gnu"):
        for file in sorted((top / place).iterdir()) if (top / place).is_dir() else ():
            if not _LEFT_OUT.match(file.name):
                _copy_library(file, tree.at(root, f"{system.LIB}/{file.name}"))


def _put(root: Path, path: str, source: Path) -> None:
    """Put a file or link of a package in its place, replacing whatever is there; a library only if
    there is none."""
    target = tree.at(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if "/x86_64-linux-gnu/" in path and target.exists():
        return
    if source.is_symlink():
        tree.symlink(root, path, str(source.readlink()))
    else:
        tree.copy(root, path, source, source.stat().st_mode & 0o777)


def _link_libraries(root: Path) -> None:
    """Make Debian's library directory, which its programs search, a link to the image's."""
    if not tree.at(root, f"/{_LIBRARIES}").is_symlink():
        tree.symlink(root, f"/{_LIBRARIES}", "../lib64")


def _copy_library(file: Path, target: Path) -> None:
    """Copy a library, or a link to one, whose target is then the file beside it."""
    if target.exists() or file.is_dir():
        return
    if file.is_symlink():
        target.symlink_to(file.readlink().name)
    else:
        shutil.copy2(file, target)


def _needed(root: Path, job: Job, packages: Sequence[str]) -> set[str]:
    """Return the packages with those of their dependencies that are libraries or compilers."""
    found: set[str] = set()
    asked = set(packages)
    while asked:
        found |= asked
        words = ["apt-cache", "depends", "--important", *sorted(asked)]
        try:
            listed = job.run(words, cwd=root.parent)
        except EngineError as error:
            raise _not_to_be_had(packages, error) from error
        asked = set(_NEEDED.findall(listed)) - found
    return found


@contextlib.contextmanager
def _unpacked(
    root: Path, job: Job, packages: Collection[str], name: str = "debian"
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Unpack the packages; yields the directory of their files, and their upstream versions.

    Args:
        name: name of the directory, beside the image's.
    """
    work = root.parent / name  # removed with the rest of a killed build
    try:
        (work / "files").mkdir(parents=True)
        if packages:
            _fetch(job, sorted(packages), work)
        versions = {}
        for file in sorted(work.glob("*.deb")):
            job.run(["dpkg-deb", "-x", file, work / "files"], cwd=work)
            package, version = file.name.split("_")[:2]
            version = version.rpartition("%3a")[2]  # without Debian's epoch
            versions[package] = version.rpartition("-")[0] or version
        yield work / "files", versions
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(job: Job, packages: Sequence[str], directory: Path) -> None:
    try:
        listed = job.run(["apt-get", "download", "--print-uris", *packages], cwd=directory)
        size = sum(int(line.split()[2]) for line in listed.splitlines())
        job.progress(f"fetching {len(packages)} of Debian's packages, {size / 1e6:.1f} MB ...")
        job.run(["apt-get", "download", *packages], cwd=directory)
    except EngineError as error:
        raise _not_to_be_had(packages, error) from error


def _not_to_be_had(packages: Sequence[str], error: EngineError) -> EngineError:
    return EngineError(
        "This reference image takes " + ", ".join(packages) + " from Debian's "
        f"packages, which could not be had.\n{error.what}",
        "Run apt-get update, or build ml-base and its like without --real: then small stand-ins "
        "take their place.",
    )
