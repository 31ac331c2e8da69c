"""The rules of files, scripts and size, on literal facts."""

from __future__ import annotations

from typing import Any

import pytest

from mlcheck.inspect.deployed.facts import Deployment
from mlcheck.inspect.files.facts import FileContents, Files, ImageSize, Script, Scripts
from mlcheck.model.files import File, ResolvedFile
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

CVMFS = Deployment("/cvmfs/x/name:tag", "/cvmfs/x/.flat/ab/abc", True, "ab/abc")
SANDBOX = Deployment("/data/name", "/data/name", False, None)
KINDS = FileContents({}, {})
BUDGET = Profile.of({"size": {"file": "1.5 MB", "unpacked": "2 GB"}})


def entry(path: str, mode: int = 0o755) -> ResolvedFile:
    file = File(path, "file", mode, 0, 0, 10)
    return ResolvedFile(path, file, file, path)


# --- files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promise", "there", "found"),
    [
        ({}, entry("/f"), None),
        ({"type": "directory"}, entry("/f"), "a file"),
        ({"mode": "0755"}, entry("/f"), None),
        ({"mode": "0755"}, entry("/f", mode=0o644), "mode 0644"),
        ({"mode": "0755"}, entry("/f", mode=0o4755), "mode 4755"),
        ({}, entry("/f", mode=0o600), "mode 0600"),
        ({}, entry("/f", mode=0o646), "mode 0646"),
        ({}, entry("/f", mode=0o664), None),
        ({}, ResolvedFile("/f", None, None, "/f", "is not there"), "is not there"),
        ({"type": "symlink"}, entry("/f"), "a file"),
    ],
)
def test_files(promise: dict[str, Any], there: ResolvedFile, found: str | None) -> None:
    verdict = judge(
        "files", Files({"/f": there}), KINDS, Profile.of({"files": {"/f": promise}}), None
    )
    assert [finding.found for finding in verdict.findings] == ([found] if found else [])


@pytest.mark.parametrize(
    ("target", "good"),
    [("/opt/conda/bin/zsh", True), ("../opt/conda/bin/zsh", True), ("/usr/bin/zsh", False)],
)
def test_a_symlink_and_its_target(target: str, good: bool) -> None:
    link = File("/bin/zsh", "symlink", 0o777, 0, 0, 5, target)
    there = ResolvedFile("/bin/zsh", link, File("/x", "file", 0o755, 0, 0, 5), "/x")
    promise = {"type": "symlink", "target": "*/opt/conda/bin/zsh", "mode": "0755"}
    profile = Profile.of({"files": {"/bin/zsh": promise}})
    assert judge("files", Files({"/bin/zsh": there}), KINDS, profile, None).outcome == (
        "passed" if good else "failed"
    )


def test_a_symlink_leads_to_the_place_of_its_target() -> None:
    link = File("/bin/zsh", "symlink", 0o777, 0, 0, 5, "/srv/opt/conda/bin/zsh")
    there = ResolvedFile("/bin/zsh", link, File("/x", "file", 0o755, 0, 0, 5), "/x")
    promise = {"type": "symlink", "target": "*/opt/conda/bin/zsh", "mode": "0755"}
    profile = Profile.of({"files": {"/bin/zsh": promise}})
    places = {"/bin/zsh": ("/opt/conda/bin/zsh", "/srv/opt/conda/bin/zsh")}
    verdict = judge("files", Files({"/bin/zsh": there}), FileContents({}, places), profile, None)
    assert [finding.found for finding in verdict.findings] == ["points to /srv/opt/conda/bin/zsh"]


def test_a_file_of_another_kind() -> None:
    kinds = FileContents({"/f": "is empty"}, {})
    profile = Profile.of({"files": {"/f": {}}})
    verdict = judge("files", Files({"/f": entry("/f")}), kinds, profile, None)
    assert [finding.found for finding in verdict.findings] == ["is empty"]


# --- scripts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "good"),
    [
        (Script("/opt/conda/bin/pip", ("/usr/bin/env", "python3"), "/x", 0o755), True),
        (Script("/opt/conda/bin/pip", ("/opt/conda/bin/python",), "/x", 0o755), False),
        (Script("/opt/conda/bin/late", ("/opt/conda/bin/python",), "/x", 0o755), True),
        (Script("/opt/conda/bin/late", ("/gone/python",), None, 0o755), False),
        (Script("/opt/conda/bin/late", ("/bin/sh",), "/bin/sh", 0o644), False),
        (Script("/opt/conda/bin/pip", ("/opt/conda/bin/python",), "/x", 0o755, 2), False),
        (Script("/opt/conda/bin/late", ("/gone/python",), None, 0o755, 2), False),
        (Script("/opt/conda/bin/pip", ("$(dirname $0)/python",), "/x", 0o755, 2), True),
    ],
)
def test_shebangs(script: Script, good: bool) -> None:
    profile = Profile.of({"prefix": "/opt/conda", "scripts": {"portable": ["pip*"]}})
    verdict = judge("script-shebangs", Scripts((script,)), profile)
    assert verdict.outcome == ("passed" if good else "failed")


def test_scripts_that_name_the_prefix_are_reported() -> None:
    profile = Profile.of({"prefix": "/opt/conda"})
    script = Script("/opt/conda/bin/late", ("/opt/conda/bin/python",), "/x", 0o755)
    (note,) = judge("script-shebangs", Scripts((script,)), profile).notes
    assert note.endswith("late")


def test_cvmfs_keeps_no_special_bits() -> None:
    promise = Profile.of({"files": {"/usr/bin/su": {"mode": "04755"}}})
    fact = Files({"/usr/bin/su": entry("/usr/bin/su")})
    on_cvmfs = judge("files", fact, KINDS, promise, CVMFS)
    assert (on_cvmfs.outcome, len(on_cvmfs.notes)) == ("passed", 1)
    assert judge("files", fact, KINDS, promise, SANDBOX).outcome == "failed"
    assert judge("files", fact, KINDS, promise, None).outcome == "failed"


# --- size -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unpacked", "file", "over"),
    [
        (2 * 10**9, 1_500_000, []),
        (2 * 10**9 + 1, 1_500_000, ["unpacked"]),
        (0, 1_500_001, ["file"]),
        (3 * 10**9, 2_000_000, ["unpacked", "file"]),
        (1, None, []),
    ],
)
def test_size(unpacked: int, file: int | None, over: list[str]) -> None:
    verdict = judge("image-size", ImageSize(unpacked), file, BUDGET)
    assert [finding.subject for finding in verdict.findings] == over
    assert verdict.outcome == ("failed" if over else "passed")


@pytest.mark.parametrize(
    ("text", "count"), [("7 B", 7), ("7kB", 7_000), ("0.5 MB", 500_000), ("1.2GB", 1_200_000_000)]
)
def test_units(text: str, count: int) -> None:
    budget = Profile.of({"size": {"unpacked": text}})
    outcomes = [
        judge("image-size", ImageSize(found), None, budget).outcome for found in (count, count + 1)
    ]
    assert outcomes == ["passed", "failed"]


def test_a_budget_for_a_sif_file_alone() -> None:
    only_file = Profile.of({"size": {"file": "1 GB"}})
    assert judge("image-size", None, None, only_file).outcome == "skipped"
