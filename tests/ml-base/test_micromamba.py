"""micromamba: "a tiny statically linked C++ executable [that] does not come with a default
version of Python" (README of ML-Containers)."""

from __future__ import annotations

from mlcheck.checks import system
from mlcheck.facts import ElfFiles, Files
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_micromamba_is_one_static_program(
    micromamba_elf: ElfFiles, promised_files: Files, profile: Profile, judge: Judge
) -> None:
    judge(system.micromamba(micromamba_elf, promised_files, profile))
