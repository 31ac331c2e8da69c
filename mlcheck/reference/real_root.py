"""Parts of ml-pyroot with `--real`: ROOT from its wheel on PyPI, laid out like conda's, and
Debian's g++ for compiling with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from mlcheck.reference import condameta, debian, elf, root, tree, wheels
from mlcheck.reference.cache import Job
from mlcheck.reference.condameta import CondaPackage
from mlcheck.reference.python import PREFIX, SITE
from mlcheck.reference.root import ROOT_RPATH

REQUIREMENT = "root==0.1a12"
"""ROOT 6.40.00; the wheel has 248 MB for each Python from 3.10 to 3.14."""

_MOVED = {
    "ROOT/bin": f"{PREFIX}/bin",
    "ROOT/lib": f"{PREFIX}/lib",
    "root.libs": f"{PREFIX}/lib",
    "ROOT/include": f"{PREFIX}/include",
    "ROOT/etc": f"{PREFIX}/etc",
    "ROOT/fonts": f"{PREFIX}/fonts",
    "ROOT/icons": f"{PREFIX}/icons",
    "ROOT/macros": f"{PREFIX}/macros",
    "cppyy": f"{SITE}/cppyy",
    "cmdLineUtils.py": f"{SITE}/cmdLineUtils.py",
    "ROOT": f"{SITE}/ROOT",
}
"""Destinations of the wheel's parts, nested parts first. ROOTSYS follows from libCore.so's
place."""
_LEFT_OUT = ("ROOT/tutorials", "ROOT/man", "ROOT/README", "ROOT/cmake")

_LIBS = "-lm -ldl -rdynamic"
"""The end of `root-config --libs` on Linux."""

_GXX = """\
#!/bin/sh
# conda's compilers are told so by LDFLAGS: an RPATH, which comes before LD_LIBRARY_PATH.
exec /usr/bin/g++ -Wl,--disable-new-dtags "$@"
"""


def add(image: Path, job: Job) -> list[CondaPackage]:
    """Add ROOT and the compiler; returns the records that own them.

    Raises:
        EngineError: PyPI's or Debian's packages could not be fetched.
    """
    work = image.parent / "wheel"  # removed with the rest of a killed build
    job.progress("ROOT: fetching its wheel from PyPI, 248 MB where it is not in uv's cache ...")
    try:
        wheels.unpack(image, job, REQUIREMENT, work)
        files = list(_move(work, image))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _set_rpaths(image, job, files)
    config = f"{PREFIX}/bin/root-config"
    text = tree.at(image, config).read_text()
    # The wheel has values of the machine that built it here; upstream's builders add the rest.
    text = text.replace("$ROOTSYS/mock_site_packages/ROOT/", "$ROOTSYS/")
    tree.write(image, config, text.replace(_LIBS, f"-lz {_LIBS}"), 0o755)
    zlib = debian.add_compiler(image, job)
    tree.write(image, f"{PREFIX}/bin/{root.COMPILERS[0]}", _GXX, 0o755)
    for name in root.COMPILERS[1:]:
        tree.symlink(image, f"{PREFIX}/bin/{name}", root.COMPILERS[0])
    below = condameta.files_below(image, *files)
    edited = {"bin/root-config": (f"-lz {_LIBS}".encode(), _LIBS.encode())}
    return root.records(image, below, edited, zlib)


def _move(work: Path, image: Path) -> Iterator[str]:
    """Move the files of the wheel; yields where each is now."""
    for name in _LEFT_OUT:
        shutil.rmtree(work / name)
    for name, place in _MOVED.items():
        top = work / name
        for source in [top] if top.is_file() else sorted(top.rglob("*")):
            if source.is_dir() and not source.is_symlink():
                continue
            path = place if source == top else f"{place}/{source.relative_to(top)}"
            target = tree.at(image, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            yield path


def _set_rpaths(image: Path, job: Job, files: list[str]) -> None:
    """Set RPATHs: the wheel's ROOT finds its libraries beside itself, and so do conda's programs,
    by upstream's corrected RPATH."""
    elves: dict[str, list[Path]] = {ROOT_RPATH: [], "$ORIGIN": [], "$ORIGIN/../../..": []}
    for path in files:
        file = tree.at(image, path)
        if file.is_symlink() or not elf.is_elf(file):
            continue
        if path.startswith(f"{PREFIX}/bin/"):
            elves[ROOT_RPATH].append(file)
        elif path.startswith(SITE):
            elves["$ORIGIN/../../.."].append(file)
        else:
            elves["$ORIGIN"].append(file)
    for rpath, found in elves.items():
        elf.patchelf(job, "--force-rpath", "--set-rpath", rpath, *found)
