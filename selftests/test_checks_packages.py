"""The checks of packages, on literal facts."""

from __future__ import annotations

from typing import Any

import pytest

from mlcheck.checks import packages
from mlcheck.facts import (
    ImportResult,
    Imports,
    InstalledPackage,
    InstalledPackages,
    ListedPackage,
    PackageList,
    PackageSource,
    Problem,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Verdict

LIST = "/list-of-pkgs-inside.txt"


def listed(*lines: str, path: str = LIST) -> PackageList:
    entries = []
    for number, line in enumerate(lines, 1):
        name, version = line.split()
        entries.append(ListedPackage(name, version, number))
    return PackageList(path, tuple(entries))


def there(
    *packages: InstalledPackage, sources: tuple[PackageSource, ...] = ("conda", "rpm")
) -> InstalledPackages:
    return InstalledPackages(packages, frozenset(sources))


def conda(name: str, version: str) -> InstalledPackage:
    return InstalledPackage(name, version, "conda", f"/opt/conda/conda-meta/{name}.json")


def pip(name: str, version: str, owner: str = "") -> InstalledPackage:
    return InstalledPackage(name, version, "dist-info", f"/opt/conda/lib/{name}", owner=owner)


def rpm(name: str, version: str) -> InstalledPackage:
    return InstalledPackage(name, version, "rpm", "/var/lib/rpm/rpmdb.sqlite", "x86_64")


def profile(**required: dict[str, Any]) -> Profile:
    return Profile.of({"packages": {"system": ["bzip2"], "required": required}})


def found(verdict: Verdict) -> dict[str, tuple[str, str]]:
    return {finding.subject: (finding.found, finding.expected) for finding in verdict.findings}


BZIP2 = rpm("bzip2", "1.0.8-8.el9")


def compare(the_list: PackageList, *installed: InstalledPackage) -> dict[str, tuple[str, str]]:
    return found(packages.list_installed(the_list, there(*installed, BZIP2), profile()))


def test_a_list_that_is_true_has_no_finding() -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-8.el9", "micromamba 2.1.0")
    mamba = InstalledPackage("micromamba", "2.1.0", "micromamba", "/bin/micromamba")
    assert compare(the_list, conda("numpy", "1.26.4"), mamba) == {}


def test_a_listed_package_that_is_not_installed() -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-8.el9", "ghost 1.0")
    assert compare(the_list, conda("numpy", "1.26.4")) == {
        "ghost": ("not installed", "1.0 (line 3)")
    }


@pytest.mark.parametrize("extra", [conda("extra", "2.0"), pip("extra", "2.0")])
def test_an_installed_package_that_is_not_listed(extra: InstalledPackage) -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-8.el9")
    assert compare(the_list, conda("numpy", "1.26.4"), extra) == {
        "extra": (f"2.0 ({extra.source})", f"a line in {LIST}")
    }


def test_another_version_is_one_finding_not_two() -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-8.el9")
    assert compare(the_list, conda("numpy", "1.26.5")) == {
        "numpy": ("1.26.5 (conda)", "1.26.4 (line 1)")
    }


def test_one_name_may_rightly_have_two_versions() -> None:
    the_list = listed("xxhash 0.8.3", "xxhash 3.5.0", "bzip2.x86_64 1.0.8-8.el9")
    assert compare(the_list, conda("xxhash", "0.8.3"), pip("xxhash", "3.5.0")) == {}
    assert compare(the_list, conda("xxhash", "0.8.3")) == {
        "xxhash": ("0.8.3 (conda)", "3.5.0 (line 2)")
    }


def test_twins_by_case_hyphen_and_underscore_are_the_same() -> None:
    the_list = listed("asdf-standard 1.1.1", "asdf_standard 1.1.1", "bzip2.x86_64 1.0.8-8.el9")
    twin = conda("asdf-standard", "1.1.1"), pip("ASDF_Standard", "1.1.1", "asdf-standard")
    assert compare(the_list, *twin) == {}


def test_a_dist_info_of_a_conda_package_needs_no_line() -> None:
    the_list = listed("pytorch 2.5.1", "bzip2.x86_64 1.0.8-8.el9")
    assert compare(the_list, conda("pytorch", "2.5.1"), pip("torch", "2.5.1", "pytorch")) == {}
    assert "torch" in compare(the_list, conda("pytorch", "2.5.1"), pip("torch", "2.5.1"))


def test_system_packages_are_compared_with_their_release() -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-10.el9_5")
    assert compare(the_list, conda("numpy", "1.26.4")) == {
        "bzip2.x86_64": ("1.0.8-8.el9 (rpm)", "1.0.8-10.el9_5 (line 2)")
    }


def test_system_packages_that_nobody_promised_need_no_line() -> None:
    the_list = listed("bzip2.x86_64 1.0.8-8.el9")
    assert compare(the_list, rpm("glibc", "2.34-100.el9")) == {}


def test_a_promised_system_package_must_be_installed() -> None:
    verdict = packages.list_installed(
        listed("numpy 1.26.4"), there(conda("numpy", "1.26.4"), rpm("git", "2")), profile()
    )
    assert set(found(verdict)) == {"bzip2"}


def test_a_system_database_that_cannot_be_read_is_said_once() -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-8.el9", "git.x86_64 2.43.5-1.el9_4")
    installed = InstalledPackages(
        (conda("numpy", "1.26.4"),), frozenset({"conda"}), notes=("rpm is not there",)
    )
    assert found(packages.list_installed(the_list, installed, profile())) == {
        "system packages": (
            "no database of rpm or dpkg could be read: rpm is not there",
            "the packages that the list names with their architecture",
        )
    }


def test_nothing_installed_at_all_is_a_finding() -> None:
    verdict = packages.list_installed(listed("a 1"), there(), Profile.of({}))
    assert found(verdict) == {"a": ("not installed", "1 (line 1)")}
    assert packages.list_installed(listed(), there(), Profile.of({})).outcome == "skipped"


def test_a_list_with_problems_or_nothing_in_it_is_not_readable() -> None:
    assert packages.readable(listed("numpy 1.26.4")).outcome == "passed"
    assert found(packages.readable(listed())) == {
        LIST: ("no package in it", "one package per line")
    }
    broken = PackageList(LIST, (), (Problem(f"{LIST}:7", "is no package"),))
    assert found(packages.readable(broken)) == {f"{LIST}:7": ("is no package", "`name version`")}


def test_the_checked_in_copy_is_compared_both_ways() -> None:
    checked_in = listed("same 1", "Other 2", "gone 3", path="list.txt")
    verdict = packages.list_checked_in(listed("same 1", "other 2.1", "new 4"), checked_in)
    assert found(verdict) == {
        "Other": ("2.1", "2"),
        "gone": ("not in the image's list", "3"),
        "new": ("4", "not in list.txt"),
    }
    sources = {finding.subject: str(finding.source) for finding in verdict.findings}
    assert sources == {"Other": "list.txt:2", "gone": "list.txt:3", "new": "None"}


def test_promised_packages_by_name_and_version() -> None:
    promise = profile(
        numpy={}, tensorflow={"version": "2.15.*"}, uproot={"version": "5.0.13"}, zsh={}
    )
    installed = there(
        conda("numpy", "1.26.4"), conda("tensorflow", "2.15.0"), conda("uproot", "5.1.0")
    )
    assert found(packages.promised(installed, promise)) == {
        "uproot": ("5.1.0 (conda)", "5.0.13"),
        "zsh": ("not installed", "any version"),
    }


def test_a_failing_import_names_module_and_error() -> None:
    required: dict[str, Any] = {"scikit-learn": {"import": "sklearn"}, "zsh": {"import": False}}
    promise = profile(**required)
    results = Imports((ImportResult("sklearn", "ImportError: libgomp.so.1", 0.1),))
    verdict = packages.imports(results, promise)
    assert found(verdict) == {"sklearn": ("ImportError: libgomp.so.1", "imports")}
    good = Imports((ImportResult("sklearn", None, 0.1),))
    assert packages.imports(good, promise).outcome == "passed"
    assert found(packages.imports(Imports(()), promise)) == {"sklearn": ("not tried", "imports")}
