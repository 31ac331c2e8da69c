"""Parity: in what two images differ, and what a profile allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from mlcheck.inspect.jupyter.facts import Kernelspec, Kernelspecs
from mlcheck.inspect.packages.facts import InstalledPackage, InstalledPackages, PackageSource
from mlcheck.inspect.parity import differences
from mlcheck.inspect.parity.facts import FileContent, ImageFiles, Side, Tools
from mlcheck.inspect.parity.file_differences import SHOWN
from mlcheck.inspect.prefix.facts import Prefix, Prefixes
from mlcheck.inspect.system.facts import OsRelease
from mlcheck.model.environment import Environment
from mlcheck.model.verdict import Finding, Source, Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

SOURCE = Source("image.toml", 7)
NOTHING = Profile.of({})


def environment(**changes: object) -> Environment:
    plain = Environment({"PATH": "/bin"}, ("tini",), ("start",), "jovyan", "/", (), {}, "config")
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def package(name: str, version: str, source: PackageSource, owner: str = "") -> InstalledPackage:
    return InstalledPackage(name, version, source, f"/records/{name}", owner=owner)


def packages(*installed: InstalledPackage) -> InstalledPackages:
    return InstalledPackages(installed, frozenset(p.source for p in installed))


def kernel(name: str, *argv: str, env: Mapping[str, str] | None = None) -> Kernelspec:
    path = f"/kernels/{name}/kernel.json"
    return Kernelspec(name, path, argv, "Python", "python", {}, env or {}, None)


def side(name: str = "a", **changes: object) -> Side:
    plain = Side(
        name,
        OsRelease({"ID": "ubuntu", "VERSION_ID": "20.04"}, None),
        packages(package("numpy", "1.19", "conda")),
        Kernelspecs((kernel("python3", "python3"),), (), None),
        Tools({"git": "/usr/bin/git"}),
        environment(),
        Prefixes(()),
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def file(path: str, content: str = "x", **changes: object) -> FileContent:
    plain = FileContent(path, "file", 0o644, 0, 0, len(content), None, content, "")
    return plain._replace(**changes)  # type: ignore[arg-type]


def directory(path: str) -> FileContent:
    return FileContent(path, "directory", 0o755, 0, 0, 0, None, "", "")


def found(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(f.subject, f.found, f.expected) for f in verdict.findings]


@pytest.mark.parametrize("aspect", differences.ASPECTS)
def test_equal_images_conform(aspect: differences.Aspect) -> None:
    verdict = judge(f"parity-{aspect}", side("a"), side("b"), NOTHING)
    assert verdict.outcome == "passed"
    assert verdict.checked > 0


def test_what_neither_image_has_is_skipped() -> None:
    none = Kernelspecs((), (), None)
    verdict = judge("parity-kernels", side("a", kernels=none), side("b", kernels=none), NOTHING)
    assert verdict.outcome == "skipped"


class TestPackages:
    @staticmethod
    def judge(
        a: InstalledPackages, b: InstalledPackages, profile: Profile = NOTHING
    ) -> list[tuple[str, str, str]]:
        return found(
            judge("parity-packages", side("a", packages=a), side("b", packages=b), profile)
        )

    def test_another_version_and_a_package_on_one_side(self) -> None:
        a = packages(package("torch", "1.6.0", "dist-info"), package("torchtext", "0.7", "conda"))
        b = packages(package("torch", "1.3.1", "dist-info"))
        assert self.judge(a, b) == [
            ("torch", "1.6.0 (pip)", "1.3.1 (pip), as in b"),
            ("torchtext", "0.7 (conda)", "missing, as in b"),
        ]

    def test_who_installed_it_counts(self) -> None:
        a = packages(package("Scikit_Learn", "1.0", "conda"))
        b = packages(package("scikit-learn", "1.0", "dist-info"))
        assert [item[0] for item in self.judge(a, b)] == ["Scikit_Learn"]

    def test_what_conda_owns_is_condas(self) -> None:
        conda = package("numpy", "1.19", "conda")
        a = packages(conda, package("numpy", "1.19", "dist-info", owner="numpy"))
        assert self.judge(a, packages(conda)) == []

    def test_pythons_packages_of_another_system_are_those_of_its_manager(self) -> None:
        system = Prefix("/usr", "system")

        def image(version: str) -> Side:
            found = packages(
                dataclasses.replace(package("six", version, "dist-info"), prefix="/usr"),
                dataclasses.replace(package("torch", version, "dist-info"), prefix="/usr"),
                package("python3-six", version, "dpkg"),
            )
            return side(packages=found, environments=Prefixes((system,)))

        profile = Profile.of({"parity": {"os": "another one"}})
        verdict = judge("parity-packages", image("1"), image("2"), profile)
        assert [finding.subject for finding in verdict.findings] == ["torch"]

    def test_packages_of_r(self) -> None:
        plain = package("numpy", "1", "conda")
        a, b = (packages(plain, package("dplyr", version, "R")) for version in ("1.0", "1.1"))
        assert self.judge(a, b) == [("dplyr", "1.0 (R)", "1.1 (R), as in b")]

    def test_a_database_that_is_not_there_is_told_once(self) -> None:
        a = packages(*(package(f"lib{n}", "1", "dpkg") for n in range(300)))
        b = packages(package("numpy", "1", "conda"))
        assert ("dpkg", "300 packages", "missing, as in b") in self.judge(a, b)

    @pytest.mark.parametrize("glob", ["cudatoolkit", "cuda*", "conda:cuda*"])
    def test_the_profile_allows_a_package(self, glob: str) -> None:
        a = packages(package("numpy", "1", "conda"), package("cudatoolkit", "11", "conda"))
        b = packages(package("numpy", "1", "conda"))
        profile = Profile.of({"parity": {"packages": {glob: "for GPUs"}}})
        assert self.judge(a, b, profile) == []
        assert len(self.judge(a, b)) == 1

    def test_another_ubuntu_explains_versions_of_its_packages_and_no_more(self) -> None:
        a = packages(package("libc6", "2.31", "dpkg"), package("jq", "1.6", "dpkg"))
        b = packages(package("libc6", "2.27", "dpkg"))
        profile = Profile.of({"parity": {"os": "CUDA needs an older Ubuntu"}})
        assert [item[0] for item in self.judge(a, b, profile)] == ["jq"]


@pytest.mark.parametrize(("key", "allowed"), [("VERSION_ID", True), ("ID", False)])
def test_the_profile_allows_another_version_of_the_system_and_no_other(
    key: str, allowed: bool
) -> None:
    profile = Profile.of({"parity": {"os": "CUDA needs an older one"}})
    other = side("b", system=OsRelease({"ID": "ubuntu", "VERSION_ID": "20.04"} | {key: "x"}, None))
    assert judge("parity-os", side(), other, NOTHING).outcome == "failed"
    assert (judge("parity-os", side(), other, profile).outcome == "passed") is allowed


def test_kernels_differ() -> None:
    a = side(kernels=Kernelspecs((kernel("python3", "python3"), kernel("ir", "R")), (), None))
    changed = kernel("python3", "python3", "-I", env={"X": "1"})
    b = side("b", kernels=Kernelspecs((changed,), (), None))
    assert found(judge("parity-kernels", a, b, NOTHING)) == [
        ("ir", "/kernels/ir/kernel.json", "missing, as in b"),
        ("python3", "argv: python3", "argv: python3 -I, as in b"),
        ("python3", "env: none", "env: X=1, as in b"),
    ]


class TestTools:
    @staticmethod
    def judge(a: Mapping[str, str], b: Mapping[str, str], profile: Profile = NOTHING) -> list[str]:
        verdict = judge("parity-tools", side(tools=Tools(a)), side("b", tools=Tools(b)), profile)
        return [finding.subject for finding in verdict.findings]

    def test_missing_and_hidden(self) -> None:
        a = {"git": "/usr/bin/git", "jq": "/usr/bin/jq"}
        assert self.judge(a, {"git": "/opt/conda/bin/git"}) == ["git", "jq"]

    def test_a_merged_usr_is_no_difference(self) -> None:
        assert self.judge({"ls": "/bin/ls"}, {"ls": "/usr/bin/ls"}) == []

    def test_allowed_by_path(self) -> None:
        profile = Profile.of({"parity": {"tools": {"/usr/local/cuda/*": "for GPUs"}}})
        assert self.judge({"git": "/bin/git", "nvcc": "/usr/local/cuda/bin/nvcc"}, {}, profile) == [
            "git"
        ]


def test_environment_differs() -> None:
    a = environment(env={"PATH": "/bin", "TZ": "UTC"}, labels={"v": "1"})
    b = environment(env={"PATH": "/usr/bin"}, user="root", exposed=None)
    profile = Profile.of({"parity": {"environment": {"PATH": "another prefix"}}})
    verdict = judge("parity-environment", side(environment=a), side("b", environment=b), profile)
    assert found(verdict) == [
        ("TZ", "UTC", "not set, as in b"),
        ("label v", "1", "not set, as in b"),
        ("user", "jovyan", "root, as in b"),
    ]
    assert any("exposed" in note for note in verdict.notes)


class TestFiles:
    @staticmethod
    def judge(
        a: list[FileContent],
        b: list[FileContent],
        profile: Profile = NOTHING,
        sides: tuple[Side, Side] | None = None,
    ) -> list[Finding]:
        one, other = sides or (side(), side("b"))
        same = [file("/same")]
        verdict = judge(
            "parity-files", one, other, ImageFiles((*same, *a)), ImageFiles((*same, *b)), profile
        )
        return list(verdict.findings)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"mode": 0o755}, "mode 0755"),
            ({"uid": 1000}, "owner 1000:0"),
            ({"digest": "other"}, "content other..."),
            ({"size": 7}, "7 bytes"),
            ({"type": "fifo"}, "fifo"),
        ],
    )
    def test_each_way_of_differing(self, change: Mapping[str, Any], said: str) -> None:
        (finding,) = self.judge([file("/f", **change)], [file("/f")])
        assert finding.found == said

    def test_owners_of_a_directory_image_are_its_users(self) -> None:
        sides = side(owns=False), side("b")
        assert self.judge([file("/f", uid=1000, mode=0o4644)], [file("/f")], sides=sides) == []

    def test_a_directory_on_one_side_is_told_once(self) -> None:
        (finding,) = self.judge([directory("/d"), file("/d/1"), file("/d/2")], [])
        assert (finding.subject, finding.found) == ("/d", "a directory with 2 files")

    def test_files_of_a_package_that_differs_are_told_by_it(self) -> None:
        sides = side(), side("b", packages=packages(package("numpy", "1.20", "conda")))
        a, b = ([file("/n", text, package="conda:numpy")] for text in ("1", "2"))
        assert self.judge(a, b, sides=sides) == []
        (finding,) = self.judge(a, b)
        assert finding.subject == "conda:numpy"

    @pytest.mark.parametrize("glob", ["/n", "conda:numpy", "/*"])
    def test_allowed_by_path_and_by_package(self, glob: str) -> None:
        profile = Profile.of({"parity": {"files": {glob: "another build"}}})
        a, b = ([file("/n", text, package="conda:numpy")] for text in ("1", "2"))
        assert self.judge(a, b, profile) == []

    def test_60_000_files_are_a_few_findings(self) -> None:
        a = [directory(f"/d{m}") for m in range(60)]
        b = list(a)
        a += [file(f"/d{m}/{n}", "1") for m in range(60) for n in range(1000)]
        b += [file(f"/d{m}/{n}", "2") for m in range(60) for n in range(1000)]
        findings = self.judge(a, b)
        assert 0 < len(findings) <= SHOWN
        assert "60000 paths" in findings[0].found

    def test_groups_are_as_deep_as_there_is_room(self) -> None:
        a = [directory("/d"), *(file(f"/d/{n}", "1") for n in range(100)), file("/e", "1")]
        b = [directory("/d"), *(file(f"/d/{n}", "2") for n in range(100)), file("/e", "2")]
        assert [finding.subject for finding in self.judge(a, b)] == ["/d/", "/e"]


def test_findings_name_the_line_where_differences_are_allowed() -> None:
    profile = Profile.of({"parity": {"tools": {"nvcc": "for GPUs"}}})
    source = dataclasses.replace(profile, sources={("parity", "tools"): SOURCE})
    verdict = judge("parity-tools", side(tools=Tools({"jq": "/bin/jq"})), side("b"), source)
    assert {finding.source for finding in verdict.findings} == {SOURCE}
