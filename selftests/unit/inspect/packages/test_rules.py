"""The rules of packages, on literal facts."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest

from mlcheck.inspect.packages.facts import (
    HiddenPackage,
    ImportResult,
    Imports,
    InstalledPackage,
    InstalledPackages,
    ListedPackage,
    PackageList,
    PackageSource,
)
from mlcheck.model.files import Problem
from mlcheck.model.verdict import ShowFile, Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

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
    return found(judge("package-list-installed", the_list, there(*installed, BZIP2), profile()))


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
    verdict = judge(
        "package-list-installed",
        listed("numpy 1.26.4"),
        there(conda("numpy", "1.26.4"), rpm("git", "2")),
        profile(),
    )
    assert set(found(verdict)) == {"bzip2"}


def test_a_system_database_that_is_missing_is_said_once() -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-8.el9", "git.x86_64 2.43.5-1.el9_4")
    installed = InstalledPackages(
        (conda("numpy", "1.26.4"),), frozenset({"conda"}), notes=("rpm is not there",)
    )
    assert found(judge("package-list-installed", the_list, installed, profile())) == {
        "system packages": (
            "the image has no database of rpm, dpkg or apk",
            "the packages that the list names with their architecture",
        )
    }


def test_nothing_installed_at_all_is_a_finding() -> None:
    verdict = judge("package-list-installed", listed("a 1"), there(), Profile.of({}))
    assert found(verdict) == {"a": ("not installed", "1 (line 1)")}
    assert judge("package-list-installed", listed(), there(), Profile.of({})).outcome == "skipped"


def test_a_list_with_problems_or_nothing_in_it_is_not_readable() -> None:
    assert judge("package-list-readable", listed("numpy 1.26.4"), profile()).outcome == "passed"
    assert found(judge("package-list-readable", listed(), profile())) == {
        LIST: ("no package in it", "one package per line")
    }
    broken = PackageList(LIST, (), (Problem(f"{LIST}:7", "is no package"),))
    assert found(judge("package-list-readable", broken, profile())) == {
        f"{LIST}:7": ("is no package", "`name version`")
    }


def test_the_checked_in_copy_is_compared_both_ways() -> None:
    checked_in = listed("same 1", "Other 2", "gone 3", path="list.txt")
    verdict = judge("package-list-checked-in", listed("same 1", "other 2.1", "new 4"), checked_in)
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
    assert found(judge("packages-promised", installed, promise)) == {
        "uproot": ("5.1.0 (conda)", "5.0.13"),
        "zsh": ("not installed", "any version"),
    }


def test_a_failing_import_names_module_and_error() -> None:
    required: dict[str, Any] = {"scikit-learn": {"import": "sklearn"}, "zsh": {"import": False}}
    promise = profile(**required)
    results = Imports((ImportResult("sklearn", "ImportError: libgomp.so.1", 0.1),))
    verdict = judge("imports", results, there(), promise)
    assert found(verdict) == {"sklearn": ("ImportError: libgomp.so.1", "imports")}
    good = Imports((ImportResult("sklearn", None, 0.1),))
    assert judge("imports", good, there(), promise).outcome == "passed"
    assert found(judge("imports", Imports(()), there(), promise)) == {
        "sklearn": ("not tried", "imports")
    }


UPROOT = replace(conda("uproot", "5.0.13"), replaced="5.1.0 in /opt/conda/lib/uproot")


@pytest.mark.parametrize(
    ("there_is", "version", "module", "kept"),
    [
        # pip over conda's package, whose record is left
        ((UPROOT, pip("uproot", "5.1.0")), "5.0.13", None, False),
        ((UPROOT, pip("uproot", "5.1.0")), "5.1.*", None, True),
        ((UPROOT, pip("uproot", "5.1.0")), "5.0.13", False, False),
        # conda's record tells the version of its own Python package
        ((conda("torch", "2.5.1"), pip("torch", "2.5.1.post3", "torch")), "2.5.1", None, True),
        # two versions in one directory
        ((pip("numpy", "2.0.0"), pip("numpy", "2.1.0")), "2.1.*", None, False),
        ((pip("numpy", "2.0.0"), pip("numpy", "2.1.0")), "2.*", None, True),
        (
            (conda("numpy", "2.1.0"), pip("numpy", "2.1.0", "numpy"), pip("numpy", "2.0.0")),
            "2.1.*",
            False,
            False,
        ),
        # a library in C of conda's, and a Python package of the same name
        ((conda("xxhash", "0.8.2"), pip("xxhash", "3.5.0")), "3.*", None, True),
        ((conda("xxhash", "0.8.2"), pip("xxhash", "3.5.0")), "0.8.*", None, False),
        ((conda("xxhash", "0.8.2"), pip("xxhash", "3.5.0")), "0.8.*", False, True),
        ((conda("zlib", "1.3.1"),), "1.3.*", None, True),
    ],
)
def test_the_version_that_is_imported_counts(
    there_is: tuple[InstalledPackage, ...], version: str, module: bool | None, kept: bool
) -> None:
    promise: dict[str, Any] = {"version": version}
    if module is not None:
        promise["import"] = module
    verdict = judge("packages-promised", there(*there_is), profile(**{there_is[0].name: promise}))
    assert (verdict.findings == ()) is kept


def test_a_package_that_python_does_not_find_is_told_of() -> None:
    hidden = HiddenPackage("numpy", "1.0", "/usr/lib/numpy", "Python looks in /usr/lib64 alone")
    installed = InstalledPackages((), frozenset(), hidden=(hidden,))
    verdict = judge("packages-promised", installed, profile(numpy={}))
    assert found(verdict) == {
        "numpy": ("1.0 in /usr/lib/numpy, but Python looks in /usr/lib64 alone", "any version")
    }


UNREAD = InstalledPackages(
    (conda("numpy", "1.26.4"),), frozenset({"conda"}), unread={"rpm": "rpm has to be run"}
)


def test_a_system_database_that_cannot_be_read_is_not_empty() -> None:
    the_list = listed("numpy 1.26.4", "bzip2.x86_64 1.0.8-8.el9")
    verdict = judge("package-list-installed", the_list, UNREAD, profile())
    assert (verdict.findings, verdict.untried) == ((), "rpm has to be run")
    ghost = listed("ghost 1", "bzip2.x86_64 1.0.8-8.el9")
    assert set(found(judge("package-list-installed", ghost, UNREAD, profile()))) == {
        "ghost",
        "numpy",
    }


def test_a_package_of_the_system_is_not_missing_where_its_database_cannot_be_read() -> None:
    promises = profile(bzip2={"import": False}, numpy={})
    verdict = judge("packages-promised", UNREAD, promises)
    assert (verdict.findings, verdict.untried) == ((), "rpm has to be run")
    # What is imported has metadata of its own, and an environment is not the system's.
    assert judge("packages-promised", UNREAD, profile(scipy={})).findings
    promises = Profile.of(
        {"prefix": "/opt/conda", "packages": {"required": {"bzip2": {"import": False}}}}
    )
    assert judge("packages-promised", UNREAD, promises).findings


@pytest.mark.parametrize(("version", "finds"), [("1.26.4", True), ("1.0", False), ("", True)])
def test_python_finds_the_installed_version(version: str, finds: bool) -> None:
    results = Imports((ImportResult("numpy", None, 0.1, version),))
    verdict = judge("imports", results, there(pip("numpy", "1.26.4")), profile(numpy={}))
    assert (verdict.findings == ()) is finds
    assert judge("imports", results, there(), profile(numpy={})).findings == ()


@pytest.mark.parametrize(
    "lines",
    [
        ("asdf-standard 1", "Babel 2", "jupyterlab_server 2.27.3", "jupyter_client 8", "zstd 1"),
        ("zstd 1.5.7", "_libgcc_mutex 0.1"),
        ("xxhash 0.8.2", "xxhash 3.5.0"),
        ("zstd 1.5.7", "numpy 1.26.4"),
        ("a 2", "a 1"),
        ("Zlib 1", "b 1", "A 1"),
    ],
)
def test_order_of_a_list_compared_with_sort(lines: tuple[str, ...]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    argv = ["env", "LC_ALL=C", "sort", "-fc"]
    is_sorted = subprocess.run(argv, input=content, capture_output=True).returncode == 0
    promise = Profile.of({"packages": {"sorted": True}})
    verdict = judge("package-list-readable", listed(*lines), promise)
    assert (verdict.findings == ()) is is_sorted
    assert judge("package-list-readable", listed(*lines), Profile.of({})).findings == ()


def test_a_long_list_is_compared_in_steps_that_grow_as_it_does() -> None:
    """The command by hand of each finding names the same directories, looked for once."""
    looked = 0

    class Counted(str):
        __slots__ = ()

        def rpartition(self, mark: str, /) -> tuple[str, str, str]:
            nonlocal looked
            looked += 1
            return super().rpartition(mark)

    many = [replace(conda(f"c{n}", "1"), record=Counted(f"/opt/e{n}/c.json")) for n in range(50)]
    lines = [f"p{n} 1" for n in range(400)]
    verdict = judge("package-list-installed", listed(*lines), there(*many), profile())
    assert looked <= len(many)
    (show,) = {finding.show for finding in verdict.findings if finding.subject.startswith("p")}
    assert isinstance(show, ShowFile)
    assert len(show.others) == 19
