"""The CUDA libraries of a framework, the driver's libraries in an image, and hint scripts.

Libraries that belong to the driver, and so to the machine, are listed under "Driver components" in
the NVIDIA container toolkit's documentation (libcuda, libnvidia-*, libnvcuvid, libcudadebugger).
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace

from mlcheck.engines.base import OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.answers import as_configured, command_result, on_path, path_of
from mlcheck.inspect.elf import hwcaps, ld_so_cache, ld_so_conf, libraries
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import LibraryNeed
from mlcheck.inspect.framework.facts import CudaLibraries, CudaLibrary, Hint, Hints
from mlcheck.inspect.prefix.probe import package_directories
from mlcheck.model.command import CommandResult

_CUDA = re.compile(
    r"lib(cudart|cublas(Lt)?|cudnn\w*|cufftw?|curand|cusolver(Mg)?|cusparse(Lt)?|cupti|cufile\w*"
    r"|nvrtc(-builtins)?|nvJitLink|nvToolsExt|nvjpeg|npp\w+|nccl|nvinfer\w*)\.so(\..*)?"
)
_DRIVER = re.compile(r"lib(cuda|nvidia-[\w.-]+|nvcuvid|cudadebugger)\.so(\..*)?")

_DEFAULT_DIRECTORIES = (
    *("/lib64", "/usr/lib64", "/lib", "/usr/lib"),
    *("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"),
)
_ASIDE = ("/usr/local", "/opt")
"""Other directories with libraries of CUDA, searched completely."""

HINT_LIMIT_S = 30.0
SCRIPT_LIMIT_S = 300.0
_OUTPUT_LIMIT = 1024 * 1024


def package_of(rootfs: RootFS, prefix: str, module: str) -> str | None:
    """Return the directory of a Python package in the prefix."""
    paths = (f"{packages}/{module}" for packages in package_directories(rootfs, prefix))
    return next((path for path in paths if rootfs.listdir(path)), None)


def probe(
    image: OpenImage, prefix: str, module: str, opened: Sequence[str], given: Collection[str] = ()
) -> CudaLibraries:
    """Resolve the CUDA libraries of a framework, and look for the driver's.

    Args:
        module: the framework's package.
        opened: sonames that it opens by name (dlopen) at run time.
        given: paths at which the engine put files or directories of the machine.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    rootfs = image.rootfs
    package = package_of(rootfs, prefix, module)
    if package is None:
        found, aside = _driver_files(image, (f"{prefix}/lib",), given)
        return CudaLibraries(None, (), found, aside)
    files = elf.probe(rootfs, package)
    resolved = libraries.probe(image, (), list(files.files), files)
    problems = [*files.problems, *resolved.problems]
    needs = {
        (need.soname, need.by): _library(rootfs, need)
        for need in resolved.needs
        if _CUDA.fullmatch(need.soname)
    }
    searched = dict.fromkeys(place for need in resolved.needs for place in need.searched)
    # It is not recorded which of its files opens them: one that finds the library is enough.
    left = dict.fromkeys(opened)
    tried: tuple[str, ...] = ()
    for by in files.files:
        if not left:
            break
        answers = libraries.opened(image, f"{prefix}/bin/python3", by, list(left))
        problems += [problem for problem in answers.problems if problem not in problems]
        for need in answers.needs:
            if need.by != by:
                # Only the machine's driver is missing rightly.
                if need.path is None and not _DRIVER.fullmatch(need.soname):
                    needs[need.soname, need.by] = _library(rootfs, need)
                continue
            tried = tuple(dict.fromkeys((*tried, *need.searched)))
            if need.path is not None:
                needs[need.soname, ""] = replace(_library(rootfs, need), by="")
                left.pop(need.soname, None)
    needs |= {(soname, ""): CudaLibrary(soname, "", None, tried) for soname in left}
    searched |= dict.fromkeys(tried)
    found, aside = _driver_files(image, (f"{prefix}/lib", *searched), given)
    return CudaLibraries(package, tuple(needs.values()), found, aside, tuple(problems))


def _library(rootfs: RootFS, need: LibraryNeed) -> CudaLibrary:
    says = None
    if need.final_path is not None:
        with contextlib.suppress(Unreadable):
            says = elf.read(rootfs, need.final_path).soname
    return CudaLibrary(need.soname, need.by, need.path, need.searched, need.rejected, says)


def _driver_files(
    image: OpenImage, places: Sequence[str], given: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the driver's libraries where the loader looks, and elsewhere.

    Args:
        places: directories in which it looks besides those for every program.
    """
    rootfs = image.rootfs
    searched = image.environment.env.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":")
    searched += [*places, *_DEFAULT_DIRECTORIES, *ld_so_conf.directories(rootfs)]
    for_some = hwcaps.Directories(rootfs)
    paths = [
        f"{directory.rstrip('/')}/{name}"
        for top in dict.fromkeys(searched)
        if top.startswith("/") and top != ld_so_cache.PATH
        for directory in (top, *for_some.all_below(top))
        for name in rootfs.listdir(directory)
    ]
    try:
        for known in ld_so_cache.read(rootfs).values():
            paths += known
    except Unreadable:
        pass  # libraries-resolve reports it
    looked: dict[str, str] = {}
    for path in paths:
        if _DRIVER.fullmatch(path.rpartition("/")[2]):
            answer = rootfs.resolve(path)
            if answer.file is not None and not _is_given(answer.final_path, given):
                looked.setdefault(answer.final_path, path)
    aside = [
        file.path
        for top in _ASIDE
        for file in rootfs.walk(top)
        if file.type == "file" and _DRIVER.fullmatch(file.path.rpartition("/")[2])
    ]
    others = [path for path in aside if path not in looked and not _is_given(path, given)]
    return tuple(looked.values()), tuple(others)


def _is_given(path: str, given: Collection[str]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in given)


def mount_points(image: OpenImage) -> frozenset[str]:
    """Return the paths inside at which something of the machine is mounted (proc_pid_mountinfo(5)).

    Raises:
        EngineError: the engine could not run cat(1).
    """
    done = image.run(["cat", "/proc/self/mountinfo"], limit_s=30, output_limit=_OUTPUT_LIMIT)
    fields = (line.split() for line in done.stdout.decode("utf-8", "replace").splitlines())
    return frozenset(words[4] for words in fields if len(words) > 4 and words[4].count("/") > 1)


_LOADS = "python3 -I -c 'import ctypes; ctypes.CDLL(\"libcuda.so.1\")'"

# $1 is the script; $2 is "library" when a libcuda.so.1 must be loadable. Its stand-in
# is a library that the image's own Python or shell has loaded anyway: it only has to load.
_TRY = """
script=$1 top=$(mktemp -d /tmp/hint-XXXXXX) || exit 125
trap 'rm -rf "$top"' EXIT
mkdir "$top/bin" "$top/lib"
printf '#!/bin/sh\\necho "01:00.0 3D controller: NVIDIA Corporation"\\n' >"$top/bin/lspci"
chmod 755 "$top/bin/lspci"
if [ "$2" = library ]; then
    cp "$3" "$top/lib/libcuda.so.1" || exit 125
fi
PATH=$top/bin:$PATH LD_LIBRARY_PATH=$top/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PATH LD_LIBRARY_PATH
(. "$script")
"""


def hints(image: OpenImage, scripts: Sequence[str]) -> Hints:
    """Source each script in bash: as it is, on a machine that seems to have an NVIDIA device, and
    on one that also has its driver's library.

    Raises:
        EngineError: the engine could not run bash.
    """
    if not scripts:
        return Hints(())
    if on_path(image.rootfs, "bash", path_of(image.environment.env)) is None:
        return Hints((), "there is no bash on the image's PATH")
    library = _any_library(image)
    if library is None:
        return Hints((), "no library of the image can stand in for libcuda.so.1")

    def answer(*words: str) -> CommandResult:
        argv = [*as_configured(image, {}), "bash", "-c", *words]
        return command_result(image.run(argv, limit_s=HINT_LIMIT_S, output_limit=_OUTPUT_LIMIT))

    # As the engine sets it, to show programs the directory of the driver's library.
    if image.run(["bash", "-c", _LOADS], limit_s=HINT_LIMIT_S).exit_code == 0:
        return Hints((), driver=True)
    return Hints(
        tuple(
            Hint(
                script,
                answer(f". {shlex.quote(script)}"),
                answer(_TRY, "hint", script, "none"),
                answer(_TRY, "hint", script, "library", library),
            )
            for script in scripts
        )
    )


def _any_library(image: OpenImage) -> str | None:
    """Return a small library that every program can load: libdl, libm or libc of the image."""
    found = libraries.probe(image, ("libdl.so.2", "libm.so.6", "libc.so.6"), ())
    return next((need.path for need in found.needs if need.path is not None), None)


def script(image: OpenImage, path: str) -> CommandResult:
    """Run the image's own check of its framework.

    Raises:
        EngineError: the engine could not run it.
    """
    argv = ["python3", path]
    return command_result(image.run(argv, limit_s=SCRIPT_LIMIT_S, output_limit=_OUTPUT_LIMIT))
