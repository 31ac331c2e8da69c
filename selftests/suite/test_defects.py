"""Every planted fault is caught by the checks that it names and by no other, every check is proven
by a fault, and what is said of each is what the record of verdicts says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.inspect.rules import all_rules
from mlcheck.reference import DEFECTS
from selftests import verdicts
from selftests.judging import (
    by_image,
    by_outcome,
    good_in_a_directory,
    judge,
    untried,
    with_lists,
    with_surroundings,
    without_slow_tests,
)

AT_ONCE = 8
"""Images that one run of the suite judges, which takes a second to start."""
AT_ONCE_SLOWLY = 3
"""The same where slow tests are among it."""


def test_every_check_is_proven_by_a_defect() -> None:
    proven = {check for defect in DEFECTS.values() for check in defect.caught_by}
    assert proven == set(all_rules()) - verdicts.PROVEN_ELSEWHERE


def test_every_check_passes_on_some_good_image() -> None:
    passed = set()
    for file in verdicts.RECORD.glob("*/good.txt"):
        passed |= {line.split()[0] for line in file.read_text().splitlines() if "passed" in line}
    assert (
        passed
        == set(all_rules()) - verdicts.LAYERS - verdicts.NOT_OF_CONTENT - verdicts.WITHOUT_PROFILE
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", reference.NAMES)
def test_the_good_image_conforms(name: str, of_all_workers: Path) -> None:
    report = good_in_a_directory(name, of_all_workers)
    assert by_outcome(report).keys() == {"passed", "skipped"}
    now = {check: said for check, said in verdicts.told(report).items() if said != "untried"}
    assert now == verdicts.recorded(name, "good", now, report, report)


def judged_together() -> Iterator[list[str]]:
    """The faults in groups: of one image, and reached by the same slow tests."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, defect in DEFECTS.items():
        if not defect.layers:
            key = (defect.judged_in, *without_slow_tests(defect.caught_by))
            alike.setdefault(key, []).append(name)
    for key, names in alike.items():
        size = AT_ONCE if "not slow" in key else AT_ONCE_SLOWLY
        for start in range(0, len(names), size):
            yield names[start : start + size]


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [pytest.param(group, id="+".join(group)) for group in judged_together()]
)
def test_defects_are_caught_by_their_checks_alone(
    names: list[str], tmp_path: Path, of_all_workers: Path
) -> None:
    image = DEFECTS[names[0]].judged_in
    given = {str(reference.build(image, defects=[name])): name for name in names}
    options = [*with_lists(image, tmp_path), *with_surroundings(image)]
    options += without_slow_tests(DEFECTS[names[0]].caught_by)
    report = judge(tmp_path / "report.json", *(f"--image={one}" for one in given), *options)
    found = {given[asked]: part for asked, part in by_image(report).items()}
    good = good_in_a_directory(image, of_all_workers)
    assert {name: by_outcome(part).get("failed", set()) for name, part in found.items()} == {
        name: DEFECTS[name].caught_by - untried(good) for name in names
    }
    assert {name for name, part in found.items() if "error" in by_outcome(part)} == set()
    for name, part in found.items():
        now = verdicts.with_fault(part, good)
        assert now == verdicts.recorded(image, name, now, part, good)


@pytest.mark.slow
def test_what_an_image_without_a_profile_has_for_its_users_is_tried(tmp_path: Path) -> None:
    rules = {"import-fails": "imports", "kernel-dies": "kernels-start", "pipenv-fails": "commands"}
    outcomes = []
    for faults in ([], [*rules]):
        image = tmp_path / f"lab-{len(faults)}"
        image.symlink_to(reference.build("ml-pyroot", defects=faults))
        options = [f"--rule={rule}" for rule in rules.values()]
        report = judge(tmp_path / "report.json", f"--image={image}", *options)
        assert [one["without_profile"] for one in report["images"]] == [True]
        outcomes.append(by_outcome(report))
    assert outcomes == [{"passed": {*rules.values()}}, {"failed": {*rules.values()}}]
