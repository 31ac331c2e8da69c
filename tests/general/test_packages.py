"""The package list, what is installed, and what was promised."""

from __future__ import annotations

import pytest

from mlcheck.checks import packages
from mlcheck.facts import Imports, InstalledPackages, PackageList
from mlcheck.judge import Judge
from mlcheck.profile import Profile


def test_package_list_is_readable(listed_packages: PackageList, judge: Judge) -> None:
    judge(packages.readable(listed_packages))


def test_package_list_is_what_is_installed(
    listed_packages: PackageList,
    installed_packages: InstalledPackages,
    profile: Profile,
    judge: Judge,
) -> None:
    judge(packages.list_installed(listed_packages, installed_packages, profile))


def test_package_list_is_the_checked_in_one(
    listed_packages: PackageList, checked_in_packages: PackageList, judge: Judge
) -> None:
    judge(packages.list_checked_in(listed_packages, checked_in_packages))


def test_promised_packages_are_installed(
    installed_packages: InstalledPackages, profile: Profile, judge: Judge
) -> None:
    judge(packages.promised(installed_packages, profile))


@pytest.mark.slow
def test_promised_modules_import(module_imports: Imports, profile: Profile, judge: Judge) -> None:
    judge(packages.imports(module_imports, profile))
