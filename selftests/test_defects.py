"""Every defect is caught by the checks that it names and by no other, and every check is proven
by a defect. The slow checks, which start every program and import every module, run on the good
image and for the defects that can reach them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlcheck import checks, reference
from mlcheck.reference import DEFECTS
from mlcheck.verdict import Rule

ROOT = Path(__file__).parents[1]
SLOW = {"commands", "imports"}
JUPYTER = {"jupyter-wrappers", "kernels-start", "kernels-own-python", "kernels-usersite"}
JUPYTER |= {"kernels-clean-list", "jupyterlab-starts", "jupyterlab-token", "jupyterlab-kernels"}
JUPYTER |= {"jupyterlab-terminals"}
DEPENDENT = {"kernelspecs-argv", "entrypoint-command"}
DEPENDENT |= {"kernels-own-python", "kernels-usersite"}
DEPENDENT |= {"jupyterlab-token", "jupyterlab-kernels", "jupyterlab-terminals"}
"""What a fault can leave without anything to compare: another check names the fault."""


def rules() -> dict[str, Rule]:
    """All rules of all check modules, by name."""
    found = {}
    for module in pkgutil.iter_modules(checks.__path__):
        namespace = vars(importlib.import_module(f"mlcheck.checks.{module.name}"))
        rules = [value for value in namespace.values() if isinstance(value, Rule)]
        found.update({rule.check: rule for rule in rules})
    return found


def judge(checked_in: Path, report: Path, *arguments: str) -> dict[str, object]:
    """Run the suite and read its report."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(f"--package-list={checked_in}", f"--mlcheck-json={report}", *arguments),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert report.is_file(), done.stdout + done.stderr
    found: dict[str, object] = json.loads(report.read_text())
    assert "Traceback" not in done.stdout, done.stdout
    assert done.returncode == found["exit_code"]
    return found


def by_outcome(report: dict[str, object]) -> dict[str, set[str]]:
    """Names of checks by their outcome; a test that got no verdict stands with its own name."""
    outcomes: dict[str, set[str]] = {}
    results = report["results"]
    assert isinstance(results, list)
    for result in results:
        outcomes.setdefault(result["outcome"], set()).add(result["check"] or result["test"])
    return outcomes


def checked_in(name: str, directory: Path) -> Path:
    """A copy of the package list of a good image."""
    copy = directory / f"{name}.txt"
    copy.write_bytes((reference.build(name) / "list-of-pkgs-inside.txt").read_bytes())
    return copy


def test_every_check_is_proven_by_a_defect() -> None:
    proven = {check for defect in DEFECTS.values() for check in defect.caught_by}
    assert proven == set(rules())


@pytest.mark.parametrize("name", reference.NAMES)
def test_the_good_image_conforms_and_nothing_is_skipped_by_mistake(
    name: str, tmp_path: Path
) -> None:
    own_list = checked_in(name, tmp_path)
    arguments = [f"--image={reference.build(name)}"]
    outcomes = by_outcome(judge(own_list, tmp_path / "report.json", *arguments))
    # ml-base promises no ROOT: no RPATH entry, no libGL.
    skipped = {"ml-base": {"rpath-required", "libraries-system"}, "ml-pyroot": set[str]()}
    assert outcomes.pop("skipped", set()) == skipped[name]
    assert set(outcomes) == {"passed"}, outcomes
    expected = set(rules()) - skipped[name] - ({"root-config"} if name == "ml-base" else set())
    assert outcomes["passed"] == expected


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_caught_by_its_checks_alone(name: str, tmp_path: Path) -> None:
    defect = DEFECTS[name]
    image = reference.build(defect.judged_in, defects=[name])
    arguments = [f"--image={image}"]
    if not defect.caught_by & SLOW:
        arguments += ["-m", "not slow" + (" or jupyter" if defect.caught_by & JUPYTER else "")]
    own_list = checked_in(defect.judged_in, tmp_path)
    outcomes = by_outcome(judge(own_list, tmp_path / "report.json", *arguments))
    assert outcomes.get("failed", set()) == defect.caught_by, outcomes
    assert "error" not in outcomes
    assert outcomes.get("skipped", set()) <= DEPENDENT
