"""The operating system of a reference image: programs and libraries of this machine, laid out as in
Enterprise Linux 9 (one /usr, libraries in /usr/lib64)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from mlcheck.model.errors import EngineError
from mlcheck.reference import elf, tree
from mlcheck.reference.cache import Job
from mlcheck.reference.rpmdb import RpmPackage

LIB = "/usr/lib64"
TERMINAL = "x/xterm"
"""terminfo entry of the terminal that engines provide on request."""

LOADER = "/lib64/ld-linux-x86-64.so.2"

PACKAGES = [
    RpmPackage("almalinux-release", "9.5", "2.el9", "AlmaLinux release files", "GPLv2"),
    RpmPackage("bzip2", "1.0.8", "10.el9_5", "A file compression utility", "BSD"),
    RpmPackage("file", "5.39", "16.el9", "Determines file type", "BSD"),
    RpmPackage("git", "2.43.5", "2.el9_5", "Fast version control system", "GPLv2"),
    RpmPackage("which", "2.21", "29.el9", "Shows where commands are", "GPLv3"),
]
"""Packages in the rpm database."""

_DATA = Path(__file__).parent / "rootfs"

OLD_HOST_LIBRARIES = (
    "libcrypt.so.1",
    "libcrypto.so.10",
    "libffi.so.6",
    "libfreebl3.so",
    "libncursesw.so.5",
    "libssl.so.10",
    "libtinfo.so.5",
)


def lay_out(root: Path, job: Job) -> None:
    """Create the directories, the commands and the libraries that these need."""
    for path in (_DATA / "directories.txt").read_text().split():
        tree.at(root, path).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.at(root, f"/usr/{name}").mkdir(parents=True, exist_ok=True)
        tree.symlink(root, f"/{name}", f"usr/{name}")
    tree.symlink(root, "/var/run", "../run")
    programs = []
    for name in (_DATA / "commands.txt").read_text().split():
        source = _find(name)
        programs.append(source)
        place = "sbin" if name == "ldconfig" else "bin"
        tree.copy(root, f"/usr/{place}/{name}", source, 0o755)
    tree.symlink(root, "/usr/bin/sh", "bash")
    tree.copy(root, f"/usr/share/terminfo/{TERMINAL}", _terminfo(), 0o644)
    add_libraries(root, job, programs)
    locale = Path("/usr/lib/locale/C.utf8")
    if locale.is_dir():  # a C library before 2.35 reads the C.UTF-8 locale from files
        shutil.copytree(locale, tree.at(root, "/usr/lib/locale/C.utf8"))


def add_libraries(
    root: Path, job: Job, programs: Iterable[Path], search: Path | None = None
) -> None:
    """Copy the loader and the libraries that ELF files of this machine need.

    Args:
        search: directory to search for libraries first.

    Raises:
        EngineError: this machine lacks one, or has no glibc.
    """
    loader = _loader(job)
    tree.at(root, LIB).mkdir(parents=True, exist_ok=True)
    needed = {loader}
    for program in programs:
        if elf.is_elf(program):
            needed.update(_libraries_of(job, loader, ["--list", program], search))
    # The place of libpython is the prefix.
    _copy_libraries(root, (file for file in needed if not file.name.startswith("libpython")))


def add_sonames(root: Path, job: Job, files: Iterable[Path]) -> None:
    """Copy this machine's libraries that the ELF `files` need and that are not among them.

    Raises:
        EngineError: this machine lacks one.
    """
    elves = list(files)
    if not elves:
        return
    held = {file.name for file in elves}
    asked = set(elf.patchelf(job, "--print-needed", *elves).split())
    wanted = sorted(name for name in asked - held if not tree.at(root, f"{LIB}/{name}").exists())
    if not wanted:
        return
    loader = _loader(job)
    # Let the loader find them, as for a program that needs them all.
    preload: list[str | Path] = ["--preload", " ".join(wanted), "--list", _find("true")]
    found = _libraries_of(job, loader, preload)
    _copy_libraries(root, found)
    for name in wanted:
        if not tree.at(root, f"{LIB}/{name}").exists():
            asking = [file for file in elves if name in elf.patchelf(job, "--print-needed", file)]
            raise EngineError(
                f"{asking[0].name} needs {name}, which this machine does not have.",
                "Install the package of your distribution that holds it.",
            )


def write_loader_cache(root: Path, job: Job) -> None:
    """Run ldconfig to write /etc/ld.so.cache.

    If that is not allowed (an ordinary user without user namespaces), this machine's loader finds
    the libraries through its own directory names instead.
    """
    tree.write(root, "/etc/ld.so.conf", "include ld.so.conf.d/*.conf\n")
    tree.write(root, "/etc/ld.so.conf.d/lib64.conf", f"{LIB}\n")
    ldconfig: list[str | Path] = [_find("ldconfig"), "-X", "-r", root]
    try:
        try:
            job.run(ldconfig, cwd=root)
        except EngineError:  # only root may chroot, as -r does
            job.run(["unshare", "--map-root-user", *ldconfig], cwd=root)
    except EngineError as error:
        job.progress(f"no /etc/ld.so.cache in the image: {error.what.splitlines()[-1].strip()}")
        tree.symlink(root, "/usr/lib/x86_64-linux-gnu", "../lib64")
    shutil.rmtree(tree.at(root, "/var/cache/ldconfig"), ignore_errors=True)


def add_lib_gl(root: Path, job: Job) -> None:
    """Add the system's libGL."""
    elf.library(
        job, tree.at(root, f"{LIB}/libGL.so.1.7.0"), "libGL.so.1", "glXGetClientString", "1.7.0"
    )
    tree.symlink(root, f"{LIB}/libGL.so.1", "libGL.so.1.7.0")


def add_old_host_libraries(root: Path, job: Job) -> None:
    """Add libraries of older systems that programs of the host may need when they run in here."""
    for soname in OLD_HOST_LIBRARIES:
        if not tree.at(root, f"{LIB}/{soname}").exists():
            function = "reference_" + re.sub(r"\W", "_", soname)
            elf.library(job, tree.at(root, f"{LIB}/{soname}"), soname, function, soname)


def _find(name: str) -> Path:
    path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if path is None:
        raise EngineError(
            f"A reference image needs the command {name}, which is not on this machine.",
            "Install the package of your distribution that holds it.",
        )
    return Path(path).resolve()


def _terminfo() -> Path:
    """Find the terminfo(5) description of the terminal in a directory used by distributions."""
    for place in ("/usr/share/terminfo", "/lib/terminfo", "/etc/terminfo"):
        if (path := Path(place, TERMINAL)).is_file():
            return path
    raise EngineError(
        "A reference image needs the description of the terminal xterm (terminfo), which is not "
        "on this machine.",
        "Install ncurses-base, or the package of your distribution that holds it.",
    )


def _loader(job: Job) -> Path:
    """Return the dynamic loader that this machine's programs request."""
    path = Path(elf.patchelf(job, "--print-interpreter", _find("bash")).strip())
    if path.name != Path(LOADER).name:
        raise EngineError(
            f"A reference image needs a GNU C library, and programs here start with {path}.",
            "Build it on a distribution such as Debian, Ubuntu, Fedora or AlmaLinux.",
        )
    return path


def _libraries_of(
    job: Job, loader: Path, words: list[str | Path], search: Path | None = None
) -> set[Path]:
    """Ask the loader which libraries it would load, by the names under which it searches them."""
    environment = {"LD_PRELOAD": "", "LD_LIBRARY_PATH": str(search or "")}
    listed = job.run([loader, *words], cwd=Path("/"), env=environment)
    found = set()
    for line in listed.splitlines():
        soname, arrow, path = line.strip().partition(" => ")
        if arrow and path.startswith("not found"):
            raise EngineError(
                f"{words[-1]} needs {soname}, which this machine does not have.",
                "Install the package of your distribution that holds it.",
            )
        match = re.match(r"(/\S+) \(0x", path if arrow else soname)
        if match:
            found.add(Path(match[1]))
    return found


def _copy_libraries(root: Path, libraries: Iterable[Path]) -> None:
    for library in sorted(libraries):
        if not tree.at(root, f"{LIB}/{library.name}").exists():
            tree.copy(root, f"{LIB}/{library.name}", library.resolve(), 0o755)
