"""Where the image's programs and libraries look for libraries."""

from __future__ import annotations

from mlcheck.checks import elf
from mlcheck.facts import ElfFiles, Libraries
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_elf_files_are_whole(elf_files: ElfFiles, judge: Judge) -> None:
    judge(elf.readable(elf_files))


def test_rpath_does_not_name_the_prefix(
    elf_files: ElfFiles, profile: Profile, judge: Judge
) -> None:
    judge(elf.hard_coded(elf_files, profile))


def test_rpath_is_not_relative(elf_files: ElfFiles, profile: Profile, judge: Judge) -> None:
    judge(elf.relative(elf_files, profile))


def test_rpath_has_the_promised_entries(
    elf_files: ElfFiles, profile: Profile, judge: Judge
) -> None:
    judge(elf.required(elf_files, profile))


def test_libraries_of_programs_resolve(
    needed_libraries: Libraries, profile: Profile, judge: Judge
) -> None:
    judge(elf.resolve(needed_libraries, profile))


def test_system_libraries_are_found(
    needed_libraries: Libraries, profile: Profile, judge: Judge
) -> None:
    judge(elf.system(needed_libraries, profile))
