"""Promised files, and scripts."""

from __future__ import annotations

from mlcheck.checks import files
from mlcheck.facts import Deployment, Files, Scripts
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_files_are_there(
    promised_files: Files, profile: Profile, deployment: Deployment | None, judge: Judge
) -> None:
    judge(files.files(promised_files, profile, deployment))


def test_scripts_have_their_interpreter(scripts: Scripts, profile: Profile, judge: Judge) -> None:
    judge(files.shebangs(scripts, profile))
