"""conda's records against the files, what packages need of each other, and the base's packages."""

from __future__ import annotations

import pytest

from mlcheck.checks import integrity
from mlcheck.facts import CondaRecords, Distributions, FileContents, FilePresence, PackageList
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_files_of_conda_packages_are_there(
    conda_files: FilePresence, conda_records: CondaRecords, judge: Judge
) -> None:
    judge(integrity.present(conda_files, conda_records))


@pytest.mark.slow
def test_files_of_conda_packages_are_unchanged(
    conda_prefix: str, conda_contents: FileContents, profile: Profile, judge: Judge
) -> None:
    judge(integrity.unchanged(conda_contents, profile))


@pytest.mark.slow
def test_files_that_are_replaced_on_purpose(
    conda_contents: FileContents, conda_records: CondaRecords, profile: Profile, judge: Judge
) -> None:
    judge(integrity.replaced(conda_contents, conda_records, profile))


def test_python_packages_have_what_they_require(
    distributions: Distributions, conda_records: CondaRecords, judge: Judge
) -> None:
    judge(integrity.requirements(distributions, conda_records))


def test_conda_packages_have_what_they_depend_on(
    conda_prefix: str, conda_records: CondaRecords, judge: Judge
) -> None:
    judge(integrity.depends(conda_records))


def test_packages_of_the_base_are_there(
    listed_packages: PackageList,
    base_packages: PackageList | None,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(integrity.of_base(listed_packages, base_packages, profile))
