"""Resolve libraries as the image's dynamic loader would, without starting it."""

from __future__ import annotations

from collections.abc import Sequence

from mlcheck.engines.base import Ask, Later, OpenImage
from mlcheck.inspect.conda.facts import AllRecords, CondaRecords
from mlcheck.inspect.elf import names
from mlcheck.inspect.elf import probe as elf
from mlcheck.inspect.elf.facts import ElfFiles, Libraries, LibraryNeed
from mlcheck.inspect.elf.loader import Loader
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.profile.catalog import Profile

_ROOT = ("root", "root_base")
"""conda's packages of ROOT: it opens its libraries by name, when a user first needs them."""

_NO_PROGRAM = ("is no ELF file", "is empty")

_NOTHING_KNOWN = ElfFiles({}, 0)


@fact()
def needed_libraries(
    image: OpenImage,
    ask: Ask,
    prefix: PrefixPath,
    profile: Profile,
    elf_files: ElfFiles,
    recorded: AllRecords,
) -> Libraries:
    """Resolve the promised libraries, those of the programs in bin/, and those of ROOT's plug-ins,
    where ROOT is promised."""
    found = ask(names.programs, image.rootfs, prefix)
    there = ask(elf.probe_files, image.rootfs, found.outside) if found.outside else _NOTHING_KNOWN
    damaged = (one.path for one in there.problems if one.what not in _NO_PROGRAM)
    known = {*elf_files.files, *there.files, *damaged}
    programs = [path for path, final in found.files.items() if path in known or final in known]
    wanted = profile.expect.libraries.system
    if profile.expect.root_config is None:
        return ask(probe, image, wanted, programs, elf_files)
    program = found.python
    plugins = ask(owned, recorded, _ROOT) if program else ()
    return ask(probe, image, wanted, programs, elf_files, plugins, program)


def owned(recorded: Later[CondaRecords], packages: Sequence[str]) -> tuple[str, ...]:
    """Return the libraries directly in lib/ that belong to these packages of conda's."""
    place = f"{recorded.answer.prefix}/lib/lib"
    own = (file.path for file in recorded.answer.files if file.package in packages)
    return tuple(
        path
        for path in sorted(own)
        if path.startswith(place) and path.endswith(".so") and "/" not in path[len(place) :]
    )


def probe(
    image: OpenImage,
    wanted: Sequence[str],
    elf_paths: Sequence[str],
    known: ElfFiles = _NOTHING_KNOWN,
    plugins: Sequence[str] = (),
    program: str = "",
) -> Libraries:
    """Resolve `wanted` sonames, and all libraries that the files `elf_paths` need to be loaded.

    Args:
        wanted: sonames such as "libGL.so.1", searched as for a program without any DT_RPATH.
        elf_paths: programs or libraries; each is loaded by itself.
        known: files that were parsed before, by paths without symlinks; they are not read again.
        plugins: libraries that `program` opens.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    loader = Loader(image.rootfs, image.environment.env.get("LD_LIBRARY_PATH", ""), known.files)
    needs: dict[LibraryNeed, None] = {}
    missing: list[tuple[str, LibraryNeed]] = []
    native = loader.native(elf_paths)
    for soname in wanted:
        need, found = loader.find(soname, None, native)
        needs[need] = None
        if found is not None:
            missing += [(soname, one) for one in loader.load(found.path) if one.path is None]
    for path in elf_paths:
        needs.update(dict.fromkeys(loader.load(path)))
    for path in plugins:
        if image.rootfs.resolve(path).final is None:
            continue  # conda-files-present says so
        needs.update(dict.fromkeys(loader.load(path, program)))
    return Libraries(tuple(needs), tuple(loader.problems), tuple(missing))


def opened(image: OpenImage, program: str, by: str, sonames: Sequence[str]) -> Libraries:
    """Resolve the libraries that `by` opens with dlopen(3) in a process of `program`.

    Args:
        program, by: paths of ELF files.

    Raises:
        ProbeError: this machine forbids reading a file.
    """
    loader = Loader(image.rootfs, image.environment.env.get("LD_LIBRARY_PATH", ""))
    return Libraries(tuple(loader.opened(program, by, sonames)), tuple(loader.problems))
