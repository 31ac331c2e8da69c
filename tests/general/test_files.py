"""Promised files, and scripts."""

from __future__ import annotations

from mlcheck.checks import files, size
from mlcheck.facts import Deployment, Files, Scripts
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_files_are_there(
    promised_files: Files, profile: Profile, deployment: Deployment | None, judge: Judge
) -> None:
    judge(files.files(promised_files, profile, deployment))


def test_scripts_have_their_interpreter(scripts: Scripts, profile: Profile, judge: Judge) -> None:
    judge(files.shebangs(scripts, profile))


def test_size_is_within_its_budget(
    unpacked_size: int | None, sif_size: int | None, profile: Profile, judge: Judge
) -> None:
    judge(size.size(unpacked_size, sif_size, profile))
