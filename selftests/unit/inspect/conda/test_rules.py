"""The rules of integrity and of deployed images, on literal facts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlcheck.inspect.conda.facts import (
    ByteCode,
    CondaRecord,
    CondaRecords,
    FileContents,
    FileDifference,
    FilePresence,
    RecordedFile,
    Replacement,
    Replacements,
    StaleByteCode,
)
from mlcheck.inspect.deployed.facts import (
    SINGULARITY_FILES,
    SINGULARITY_LINKS,
    UnreadableFiles,
)
from mlcheck.inspect.files.facts import Files
from mlcheck.inspect.packages import package_list
from mlcheck.inspect.packages.facts import (
    Distribution,
    Distributions,
    ListedPackage,
    PackageList,
)
from mlcheck.model.files import File, Problem, ResolvedFile
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.checkout import CHECKOUT
from selftests.rules import judge

SSL = "/opt/conda/lib/libssl.so.3"


def found(verdict: Verdict) -> dict[str, tuple[str, str]]:
    return {finding.subject: (finding.found, finding.expected) for finding in verdict.findings}


def conda(name: str, version: str = "1.0", *depends: str, subdir: str = "linux-64") -> CondaRecord:
    return CondaRecord(name, version, "0", subdir, depends, f"/opt/conda/conda-meta/{name}.json")


def recorded(*records: CondaRecord, files: tuple[str, ...] = ()) -> CondaRecords:
    listed = tuple(RecordedFile(path, "openssl", "/record", "hardlink") for path in files)
    return CondaRecords("/opt/conda", records, listed)


def different(*paths: str) -> tuple[FileDifference, ...]:
    return tuple(FileDifference(path, ("openssl",), "another", "the one") for path in paths)


def contents(*changed: str) -> FileContents:
    return FileContents(10, 10, 1000, different(*changed))


def profile(**integrity: object) -> Profile:
    return Profile.of({"integrity": integrity})


def test_missing_files_and_broken_records() -> None:
    fact = FilePresence(2, different("/opt/conda/a"), uncompiled=3)
    verdict = judge("conda-files-present", fact, recorded(), profile())
    assert found(verdict) == {"/opt/conda/a": ("another", "the one of openssl")}
    assert "3 files of byte code" in verdict.notes[0]
    broken = CondaRecords("/opt/conda", (), (), (Problem("/record", "is no JSON"),))
    assert set(found(judge("conda-files-present", FilePresence(1, ()), broken, profile()))) == {
        "/record"
    }
    assert (
        judge("conda-files-present", FilePresence(1, ()), recorded(), profile()).outcome == "passed"
    )
    assert (
        judge("conda-files-present", FilePresence(0, ()), recorded(), profile()).outcome == "failed"
    )


def test_edited_files_are_noted_and_others_are_findings() -> None:
    verdict = judge(
        "conda-files-unchanged",
        "/opt/conda",
        contents("/opt/conda/bin/root.exe", SSL, "/opt/conda/lib/x"),
        ByteCode(1, (StaleByteCode("/opt/conda/x.pyc", "/opt/conda/x.py", "is another"),)),
        profile(edited={"/opt/conda/bin/*.exe": "RPATH"}, replaced={SSL: "the system's"}),
    )
    assert set(found(verdict)) == {"/opt/conda/lib/x", "/opt/conda/x.pyc"}
    assert any("2 are edited on purpose" in note for note in verdict.notes)


def replaced(*files: Replacement, different: tuple[str, ...] = (SSL,), owned: bool = True) -> Any:
    """The rule's findings, of libssl.so.3 that is replaced by the system's."""
    promise = profile(replaced={SSL: {"why": "the system's", "by": "/usr/lib64"}})
    there = recorded(files=(SSL,) if owned else ())
    facts = contents(*different), there, Replacements(files), promise
    return found(judge("conda-files-replaced", *facts))


def test_what_must_be_replaced_is_the_packages_own() -> None:
    good = Replacement(SSL, "/usr/lib64/libssl.so.3", "")
    assert replaced(good) == {}
    assert replaced(good, different=()) == {
        SSL: ("the file of the package openssl", "another one: the system's")
    }
    assert replaced(good, owned=False)[SSL][0] == "a file of no conda package"
    text = Replacement(SSL, "/usr/lib64/libssl.so.3", "neither of them")
    assert replaced(text) == {
        SSL: ("neither of them", "the same as /usr/lib64/libssl.so.3: the system's")
    }
    assert replaced(Replacement(SSL, "", "a text")) == {SSL: ("a text", "a library: the system's")}


def test_what_an_image_does_not_replace_must_be_the_packages_own() -> None:
    promise = profile(replaced={SSL: False})
    facts = contents(), recorded(files=(SSL,)), Replacements(()), promise
    assert judge("conda-files-replaced", *facts).outcome == "skipped"
    assert set(
        found(judge("conda-files-unchanged", "/opt/conda", contents(SSL), ByteCode(0), promise))
    ) == {SSL}


def test_files_that_are_removed_on_purpose() -> None:
    fact = FilePresence(3, different("/opt/conda/lib/libz.a", "/opt/conda/lib/libz.so"))
    promise = profile(removed={"/opt/conda/lib/*.a": "nobody links here"})
    verdict = judge("conda-files-present", fact, recorded(), promise)
    assert set(found(verdict)) == {"/opt/conda/lib/libz.so"}
    assert any("1 are removed on purpose" in note for note in verdict.notes)


def test_missing_files_that_are_not_named_are_counted() -> None:
    fact = FilePresence(9, different("/opt/conda/lib/libz.a"), more=8)
    promise = profile(removed={"/opt/conda/lib/*.a": "nobody links here"})
    verdict = judge("conda-files-present", fact, recorded(), promise)
    assert found(verdict) == {
        "/opt/conda": ("8 more recorded files are missing", "the files of its packages")
    }


def test_what_could_not_be_judged_is_no_pass() -> None:
    fact = replace(contents(), unjudged=different("/opt/conda/bin/a", "/opt/conda/bin/b"))
    verdict = judge("conda-files-unchanged", "/opt/conda", fact, ByteCode(0), profile())
    assert verdict.untried is not None
    assert verdict.untried.startswith("2 files could not be judged")
    promise = profile(edited={"/opt/conda/bin/*": "on purpose"})
    assert judge("conda-files-unchanged", "/opt/conda", fact, ByteCode(0), promise).untried is None


def dist(name: str, version: str, *requires: str) -> Distribution:
    return Distribution(name, version, requires, f"/site-packages/{name}")


def unmet(*there: Distribution, records: tuple[CondaRecord, ...] = ()) -> dict[str, str]:
    verdict = judge("python-requirements", Distributions("3.11", there), recorded(*records))
    return {subject: what for subject, (what, _) in found(verdict).items()}


def test_requirements_by_name_and_version() -> None:
    a = dist("a", "1", "B_x>=2", "ghost", "c[extra]<3 ; python_version >= '3.8'")
    assert unmet(a, dist("b-X", "1.9"), dist("c", "3.0")) == {
        "a -> B_x": "B_x 1.9",
        "a -> ghost": "ghost is not installed",
        "a -> c": "c 3.0",
    }
    assert unmet(dist("a", "1", "b>=2"), dist("b", "3.0rc1")) == {}


def test_markers_are_the_images() -> None:
    a = dist(
        "a",
        "1",
        "windows; sys_platform == 'win32'",
        "old; python_version < '3.10'",
        "arm; platform_machine == 'aarch64'",
        "test; extra == 'test'",
        "b",
    )
    b = dist("b", "1")
    assert unmet(a, b, records=(conda("python", "3.11.4"),)) == {}
    there = unmet(a, b, records=(conda("python", "3.9.2", subdir="linux-aarch64"),))
    assert set(there) == {"a -> old", "a -> arm"}


def test_conda_packages_without_dist_info_fulfil_requirements() -> None:
    a = dist("a", "1", "torch>=2", "opencv-python", "thing>=1")
    records = (conda("pytorch", "2.5.1"), conda("opencv", "4.8"), conda("thing", "2024a_weird"))
    assert unmet(a, records=records) == {}
    assert unmet(dist("a", "1", "torch>=3"), records=records) == {
        "a -> torch": "torch is not installed"
    }


def test_requirements_of_long_ago_are_noted() -> None:
    there = (dist("a", "1", "b (>=1.0.*)", "b"), dist("b", "1"))
    verdict = judge("python-requirements", Distributions("3.11", there), recorded())
    assert verdict.outcome == "passed"
    assert "a: b (>=1.0.*)" in verdict.notes[0]


MANY_DIGITS = "1" * 5000
"""Python makes no number of so many digits (sys.set_int_max_str_digits)."""


@pytest.mark.parametrize(
    ("requirement", "version", "why"),
    [
        ("b; 'a' in extras", "1", "its marker asks for 'extras'"),
        ("b; 'a' in dependency_groups", "1", "its marker asks for 'dependency_groups'"),
        (f"b>={MANY_DIGITS}", "1", "cannot be compared: Exceeds the limit"),
        ("b>=1", MANY_DIGITS, "b 1111"),
    ],
)
def test_requirements_on_which_pip_breaks_off(requirement: str, version: str, why: str) -> None:
    (what,) = unmet(dist("a", "1", requirement), dist("b", version)).values()
    assert why in what


def test_conda_versions_of_thousands_of_digits() -> None:
    assert unmet(dist("a", "1", "b>=1"), records=(conda("b", MANY_DIGITS),)) == {}
    for version in (MANY_DIGITS, f"{MANY_DIGITS}!1"):
        there = recorded(conda("a", "1", "b >=2"), conda("b", version))
        (what,) = found(judge("conda-depends", "/opt/conda", there)).values()
        assert "a number in it is too long" in what[0]


def test_dependencies_of_conda_packages() -> None:
    there = recorded(
        conda("a", "1", "b >=2,<3.0a0", "__glibc >=2.17", "ghost", "conda-forge::c 1.* *_cp311"),
        conda("b", "3.1"),
        conda("c", "1.5"),
    )
    assert found(judge("conda-depends", "/opt/conda", there)) == {
        "a -> b": ("b 3.1", "a 1 depends on b >=2,<3.0a0"),
        "a -> ghost": ("ghost is not installed", "a 1 depends on ghost"),
        "a -> c": ("c 1.5 0", "a 1 depends on conda-forge::c 1.* *_cp311"),
    }


@pytest.mark.parametrize(
    ("version", "spec", "fits"),
    [
        ("3.11.9", "3.11.*", True),
        ("3.11.9", ">=3.11,<3.12.0a0", True),
        ("3.1.9", "3.11.*", False),
        ("1.26.4", ">=1.22.4,<2.0a0", True),
        ("2.0.0", ">=1.22.4,<2.0a0", False),
        ("2.0.0", "1.*|2.*", True),
        ("2.0.0", "!=2.0.0", False),
        ("2.0.0", "==2.0.0", True),
        ("2.0.0", ">2,<=1", False),
        ("2.0.0", "<1|>1.5", True),
        ("1.0", "", True),
        ("1.0", "*", True),
        ("3.12.4", "=3.12", True),
        ("3.11.9", "=3.12", False),
        ("2.1.3", "~=2.1", True),
        ("1.0", "~=2.1", False),
        ("9e", ">=10", False),
        ("1.1.1w", ">=3.0.7,<4.0a0", False),
        ("1.1.1w", ">=1.1.1a,<1.1.2a", True),
        ("2024a", "2024a", True),
        ("2024a", "2023d", False),
        ("1.0", "1.0 h_0", False),
        ("1.0", "1.0 0", True),
        ("1.0", "* *_cp312", False),
        ("1.0", "1.*.2", False),
        ("1.0", "@1", False),
        ("not a version", ">=1", False),
    ],
)
def test_versions_of_conda(version: str, spec: str, fits: bool) -> None:
    there = recorded(conda("a", "1", f"b {spec}"), conda("b", version))
    assert (judge("conda-depends", "/opt/conda", there).findings == ()) is fits


def listed(*names: str, path: str = "/list") -> PackageList:
    entries = [ListedPackage(name, "1", number) for number, name in enumerate(names, 1)]
    return PackageList(path, tuple(entries))


def test_a_derived_image_has_what_its_base_has() -> None:
    promise = Profile.of({"packages": {"contains_base": True}})
    base = listed("Numpy", "asdf_standard", "git.x86_64", path="/base")
    image = listed("numpy", "asdf-standard", "git.x86_64", "root")
    assert judge("packages-of-base", image, base, promise).outcome == "passed"
    assert found(judge("packages-of-base", listed("numpy"), base, promise)) == {
        "asdf_standard": ("not in the list", "a line, as the base has it (/base:2)"),
        "git.x86_64": ("not in the list", "a line, as the base has it (/base:3)"),
    }
    assert judge("packages-of-base", image, listed(), promise).outcome == "failed"


def real_lists() -> list[Path]:
    """Real lists of derived images, which are not part of this repository."""
    top = Path(os.environ.get("MLCHECK_DATA", CHECKOUT.parent / "shared/data"))
    pattern = "ml-containers/alma9/*/*/list-of-pkgs-inside.txt"
    return sorted(path for path in top.glob(pattern) if path.parts[-3] != "ml-base")


@pytest.mark.skipif(not real_lists(), reason="no real lists here (MLCHECK_DATA names their folder)")
def test_the_real_derived_images_have_what_their_base_has() -> None:
    promise = Profile.of({"packages": {"contains_base": True}})
    for path in real_lists():
        base = path.parents[2] / "ml-base" / path.parts[-2] / path.name
        verdict = judge(
            "packages-of-base",
            package_list.read_host_file(path),
            package_list.read_host_file(base),
            promise,
        )
        assert found(verdict) == {}, path
        assert verdict.checked > 100


def a_file(path: str, mode: int, type_: str = "file") -> File:
    return File(path, type_, mode, 0, 0, 1)  # type: ignore[arg-type]


def singularity_d(**changed: File | None) -> Files:
    paths = [*SINGULARITY_FILES, *SINGULARITY_LINKS]
    there: dict[str, File | None] = {path: a_file(path, 0o755) for path in paths}
    there["/.singularity.d/libs"] = a_file("/.singularity.d/libs", 0o755, "directory")
    there |= {f"/.singularity.d/{name}": file for name, file in changed.items()}
    return Files({path: ResolvedFile(path, file, file, path) for path, file in there.items()})


def test_singularity_d() -> None:
    assert judge("singularity-d", singularity_d()).outcome == "passed"
    fact = singularity_d(
        startscript=None, runscript=a_file("runscript", 0o644), libs=a_file("libs", 0o755)
    )
    assert found(judge("singularity-d", fact)) == {
        "/.singularity.d/startscript": ("missing", "a file"),
        "/.singularity.d/runscript": ("mode 0644", "an executable file"),
        "/.singularity.d/libs": ("a file", "a directory"),
    }


def test_what_others_may_read() -> None:
    promise = Profile.of({"deployed": {"private": ["/etc/shadow*"]}})
    shadow, data = a_file("/etc/shadow-", 0), a_file("/data", 0o750, "directory")
    fact = UnreadableFiles(100, (shadow, data))
    assert found(judge("deployed-readable", fact, promise)) == {
        "/data": ("a directory, mode 0750", "r-x for others")
    }
    private = UnreadableFiles(9, (shadow,))
    assert judge("deployed-readable", private, promise).outcome == "passed"
    assert judge("deployed-readable", UnreadableFiles(0, ()), promise).outcome == "failed"
