"""Every defect is caught by the checks that it names and by no other, and every check is proven
by a defect. The slow checks, which start every program and import every module, run on the good
image and for the defects that can reach them."""

from __future__ import annotations

import fcntl
import functools
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlcheck import checks, reference
from mlcheck.checks import gpu, parity
from mlcheck.reference import DEFECTS
from mlcheck.reference.atlas import ROOT_STAND_IN
from mlcheck.verdict import Rule

ROOT = Path(__file__).parents[1]
FRAMEWORK = {"framework-build", "framework-computes", "framework-script"}
JUPYTER = {"jupyter-wrappers", "kernels-start", "kernels-own-python", "kernels-usersite"}
JUPYTER |= {"kernels-clean-list", "jupyterlab-starts", "jupyterlab-token", "jupyterlab-kernels"}
JUPYTER |= {"jupyterlab-terminals"}
STARTED = {"kernel-cells", "kernel-setup", "run-url", "run-token"}
NEW_ENV = {"newenv-created", "newenv-pyvenv", "newenv-path", "newenv-reuse", "newenv-usage"}
NEW_ENV |= {"newenv-executed"}
ON_HOST = {"on-host-programs", "on-host-libraries"}
ROOT_RUNS = {"pyroot", "root-program"}
SERVER = {"server-starts", "server-health", "server-any-user", "user-installs"}
SLOW_TESTS = {
    "tests/general/test_system.py::test_commands_run": {"commands"},
    "tests/general/test_packages.py::test_promised_modules_import": {"imports"},
    "tests/general/test_integrity.py::test_files_of_conda_packages_are_unchanged": {
        "conda-files-unchanged"
    },
    "tests/general/test_integrity.py::test_files_that_are_replaced": {"conda-files-replaced"},
    "tests/general/test_jupyter.py::test_kernel": JUPYTER - {"jupyter-wrappers"},
    "tests/general/test_jupyter.py::test_jupyterlab": JUPYTER - {"jupyter-wrappers"},
    "tests/general/test_jupyter.py::test_cells": JUPYTER | {"kernel-cells", "kernel-setup"},
    "tests/general/test_jupyter.py::test_run": {"run-url", "run-token"},
    "tests/general/test_jupyter.py::test_jupyter_wrappers": {"jupyter-wrappers"},
    "tests/general/test_new_environments.py::test_environment": NEW_ENV,
    "tests/general/test_new_environments.py::test_own_packages": NEW_ENV,
    "tests/general/test_new_environments.py::test_usage": NEW_ENV,
    "tests/general/test_new_environments.py::test_executed": NEW_ENV,
    "tests/general/test_on_host.py::test_programs_run": ON_HOST,
    "tests/general/test_on_host.py::test_libraries": ON_HOST,
    "tests/general/test_serving.py::test_server": SERVER,
    "tests/general/test_work.py::test_requested": {"requested-packages"},
    "tests/general/test_work.py::test_programs": {"tasks"},
    "tests/general/test_work.py::test_notebooks": {"notebooks"},
    "tests/framework/test_framework.py": FRAMEWORK,
    "tests/parity/test_parity.py::test_files": {"parity-files"},
    "tests/jupyterlab-gpu/test_framework.py": FRAMEWORK,
    "tests/ml-pyroot/test_root_runs.py": ROOT_RUNS,
}
"""Slow tests (beginnings of their names) that are left out for a defect which reaches none of the
checks behind them."""
AT_WORK = JUPYTER | STARTED | NEW_ENV | ON_HOST | ROOT_RUNS | FRAMEWORK
AT_WORK |= {*SERVER, "requested-packages", "tasks", "notebooks"}
"""Checks of what runs in the image for seconds."""
SLOW = {check for checks in SLOW_TESTS.values() for check in checks}
NOTHING_TO_JUDGE = {"entrypoint-activation", "entrypoint-command", "kernelspecs-argv"}
# Without an environment there is nothing to use, without root-config nothing to compile, and what
# does not start answers nothing.
NOTHING_TO_JUDGE |= {"newenv-pyvenv", "newenv-path", "newenv-reuse", "root-program"}
NOTHING_TO_JUDGE |= {"kernels-own-python", "kernels-usersite"}
NOTHING_TO_JUDGE |= {"jupyterlab-token", "jupyterlab-kernels", "jupyterlab-terminals"}
NOTHING_TO_JUDGE |= {"kernel-setup", "run-token", "server-health"}
"""Checks to which another check's finding may leave nothing: a broken kernel.json has no argv."""
RUNGS = {rule.check for rule in gpu.RUNGS}
"""Checks that need a GPU."""
DEPLOYED = {"deployed-digest", "deployed-readable", "singularity-d"}
DEPLOYED |= {"on-host-bash", "on-host-zsh", *ON_HOST}
"""Checks of images that are deployed as directories; others skip them."""
BY_ENGINES = {"server-any-user", "user-installs"}
"""Checks that need an engine which starts an image as its own user, or as another."""
PROVEN_ELSEWHERE = {"deployed-digest", "prefix-there", *RUNGS, *BY_ENGINES}
"""No fault of an image's content alone: proven by test_deployed.py, by test_gpu_ladder.py with a
stand-in for the driver, and by test_serving_on_engines.py; or one that leaves nothing of an image:
test_prefix.py."""
SERVING = {*SERVER, "user", "user-writable", "programs-executable", "wrapper-targets"}
SERVING |= {"start-files", "agreements", "requested-packages", "tasks", "notebooks"}
"""Checks of images that serve."""
LAYERS = {"layers-size", "layers-permissions", "layers-deleted", "layers-caches", "layers-secrets"}
"""Checks of images that have layers; a directory has none. Proven by test_layers.py."""
_GPU = frozenset({"ml-tensorflow-gpu", "ml-torch-gpu"})
_AAW_GPU = frozenset({"jupyterlab-tensorflow", "jupyterlab-pytorch"})
_FRAMEWORK = _GPU | {"ml-tensorflow-cpu"}
COMPARED = {"machine-learning-notebook-gpu": "machine-learning-notebook-cpu"}
"""Images that are compared with another one."""
PARITY = {rule.check for rule in parity.RULES.values()}
ONLY_IN = {
    **dict.fromkeys(PARITY, frozenset(COMPARED)),
    **dict.fromkeys(("root-config", "pyroot", "root-program"), frozenset({"ml-pyroot"})),
    **dict.fromkeys(("framework-build", "framework-computes"), _FRAMEWORK | _AAW_GPU),
    **dict.fromkeys(("cuda-driver-in-image",), _FRAMEWORK | _AAW_GPU),
    **dict.fromkeys(("framework-script",), _FRAMEWORK),
    "micromamba": frozenset(name for name in reference.NAMES if name.startswith("ml-")),
    **dict.fromkeys(("cuda-libraries", "gpu-hint", *RUNGS), _GPU),
}
"""Checks whose tests are in the folder of some images."""
_NOTEBOOK = frozenset(
    {
        *("commands", "conda-depends", "conda-files-present", "conda-files-unchanged"),
        *("elf-readable", "entrypoint", "entrypoint-command", "environment", "files", "imports"),
        *("jupyterlab-kernels", "jupyterlab-starts", "jupyterlab-terminals", "jupyterlab-token"),
        *("kernels-own-python", "kernels-start", "kernelspecs-argv", "kernelspecs-promised"),
        *("kernelspecs-valid", "libraries-resolve", "os-release", "packages-promised"),
        *("prefix-there", "python-requirements", "script-shebangs", "shells", "user"),
        "user-writable",
    }
)
FEW = {
    "atlas-jupyter": frozenset(
        {
            *("commands", "files", "image-size", "kernelspecs-argv", "kernelspecs-promised"),
            *("kernelspecs-valid", "kernels-start", "jupyterlab-kernels", "jupyterlab-starts"),
            *("jupyterlab-terminals", "jupyterlab-token", *STARTED),
        }
    ),
    "machine-learning-notebook-cpu": _NOTEBOOK,
    "machine-learning-notebook-gpu": _NOTEBOOK | PARITY,
}
"""Images that promise little: all the checks that judge them."""
ML = [name for name in reference.NAMES if name.startswith("ml-")]
"""The reference images of the ML-Containers."""
SERVERS = [name for name in reference.NAMES if name not in ML]
"""Those that serve."""
_EVERY_SERVER = {"commands", "conda-depends", "conda-files-present", "conda-files-unchanged"}
_EVERY_SERVER |= {"configuration", "elf-readable", "entrypoint", "entrypoint-command"}
_EVERY_SERVER |= {"environment", "kernelspecs-valid", "libraries-resolve", "os-release", "shells"}
_EVERY_SERVER |= {"prefix-there", "python-requirements", "script-shebangs"}
_EVERY_SERVER |= SERVING - {*BY_ENGINES, "agreements", "notebooks"}
_LAB = {"agreements", "notebooks", "kernelspecs-argv", "kernelspecs-promised"}
_LAB |= JUPYTER - {"jupyter-wrappers", "kernels-clean-list", "kernels-usersite"}


def promised(name: str) -> set[str]:
    """The checks that judge an image that serves, in a directory."""
    if name in FEW:
        return set(FEW[name])
    found = set(_EVERY_SERVER)
    if name.startswith("jupyterlab") or name == "sas":
        found |= _LAB
    if name in _AAW_GPU:
        found |= {"framework-build", "framework-computes", "cuda-driver-in-image"}
    if name == "jupyterlab-pytorch":
        found |= {"packages-promised", "imports"}
    if name == "sas":
        found |= {"packages-promised", "imports", "files"}
    if not found & _LAB:  # a directory tells labels alone of what `configuration` compares
        found -= {"configuration"}
    if name == "rstudio":
        found -= {"server-health"}
    return found


def not_promised(name: str) -> set[str]:
    """The checks that a good reference image rightly skips."""
    if name in SERVERS:
        return set(rules()) - promised(name)
    skipped = {"deployed-digest", "image-size", *LAYERS, *SERVING, *STARTED}
    if name == "ml-base":
        skipped |= {"packages-of-base"}
    if name != "ml-pyroot":  # no ROOT: no RPATH entry, no libGL
        skipped |= {"rpath-required", "libraries-system"}
    if name == "ml-tensorflow-cpu":  # keeps conda's OpenSSL
        skipped |= {"conda-files-replaced"}
    if name in _GPU:
        skipped |= RUNGS
    return skipped


def rules() -> dict[str, Rule]:
    """All rules of all check modules, by name."""
    found = {}
    for module in pkgutil.iter_modules(checks.__path__):
        namespace = vars(importlib.import_module(f"mlcheck.checks.{module.name}"))
        rules = [value for value in namespace.values() if isinstance(value, Rule)]
        found.update({rule.check: rule for rule in rules})
    return found


def _lists(checked_in: Path) -> list[str]:
    """The options for package lists, of an image that has one."""
    if not checked_in.is_file():
        return []
    return [f"--package-list={checked_in}", f"--base-list={good_list('ml-base')}"]


def bound(name: str) -> list[str]:
    """What an image needs from outside, as options."""
    return [f"--bind={ROOT_STAND_IN}:/mycvmfs"] if name == "atlas-jupyter" else []


def judge(checked_in: Path, report: Path, *arguments: str) -> dict[str, object]:
    """Run the suite and read its report."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *_lists(checked_in),
            *(f"--mlcheck-json={report}", *arguments),
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


def by_outcome(report: Mapping[str, object]) -> dict[str, set[str]]:
    """Names of checks by their outcome; a test that got no verdict stands with its own name."""
    outcomes: dict[str, set[str]] = {}
    results = report["results"]
    assert isinstance(results, list)
    for result in results:
        outcomes.setdefault(result["outcome"], set()).add(result["check"] or result["test"])
    return outcomes


def by_image(report: Mapping[str, object]) -> dict[str, dict[str, set[str]]]:
    """The same for each image, by what it was asked for with."""
    results, images = report["results"], report["images"]
    assert isinstance(results, list)
    assert isinstance(images, list)
    return {
        image["reference"]: by_outcome(
            {"results": [result for result in results if result["image"] == image["id"]]}
        )
        for image in images
    }


@functools.cache
def good_list(name: str) -> Path:
    """The package list of a good image."""
    return reference.build(name) / "list-of-pkgs-inside.txt"


def comparison(name: str) -> list[str]:
    """The option that has an image compared with another one; none for most."""
    return [f"--compare={reference.build(COMPARED[name])}"] if name in COMPARED else []


def checked_in(name: str, directory: Path) -> Path:
    """A copy of the package list of a good image; of one without a list there is none."""
    copy = directory / f"{name}.txt"
    if name.startswith("ml-"):
        copy.write_bytes(good_list(name).read_bytes())
    return copy


def good_in_a_directory(name: str, of_all_workers: Path) -> dict[str, object]:
    """What the good image gets without any engine; judged once, whichever tests and workers ask."""
    report = of_all_workers / f"good-{name}.json"
    with (of_all_workers / f"good-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not report.exists():
            own_list = checked_in(name, of_all_workers)
            found = judge(own_list, report.with_suffix(".new"), f"--image={reference.build(name)}")
            report.with_suffix(".new").rename(report)
            return found
    known: dict[str, object] = json.loads(report.read_text())
    return known


def test_every_check_is_proven_by_a_defect() -> None:
    proven = {check for defect in DEFECTS.values() for check in defect.caught_by}
    assert proven == set(rules()) - PROVEN_ELSEWHERE


@pytest.mark.parametrize("name", ML)
def test_the_good_image_conforms_and_nothing_is_skipped_by_mistake(
    name: str, of_all_workers: Path
) -> None:
    outcomes = by_outcome(good_in_a_directory(name, of_all_workers))
    skipped = not_promised(name)
    assert outcomes.pop("skipped", set()) == skipped
    assert set(outcomes) == {"passed"}, outcomes
    expected = {rule for rule in rules() if name in ONLY_IN.get(rule, {name})}
    assert outcomes["passed"] == expected - skipped


@pytest.mark.parametrize("name", SERVERS)
def test_a_good_server_conforms_and_nothing_is_skipped_by_mistake(
    name: str, tmp_path: Path
) -> None:
    arguments = [f"--image={reference.build(name)}", *comparison(name), *bound(name)]
    expected = promised(name)
    if name not in ("jupyterlab-cpu", "atlas-jupyter"):  # what they share is judged there
        own = SERVER | FRAMEWORK | {"imports", "tasks", "parity-files"}
        left = {test: checks for test, checks in SLOW_TESTS.items() if not checks & own}
        arguments += [f"--deselect={test}" for test in left]
        expected -= {check for checks in left.values() for check in checks}
    outcomes = by_outcome(judge(checked_in(name, tmp_path), tmp_path / "report.json", *arguments))
    assert set(outcomes) == {"passed", "skipped"}, outcomes
    assert outcomes["passed"] == expected


AT_ONCE = 8
"""Images that one run of the suite judges, which takes seconds to start."""


def judged_together() -> Iterator[tuple[list[str], list[str]]]:
    """The defects, each with the slow tests that reach it; those that none reaches in groups."""
    unreached: dict[str, list[str]] = {}
    for name, defect in DEFECTS.items():
        if defect.layers:
            continue
        reached = [test for test, found in SLOW_TESTS.items() if defect.caught_by & found]
        if reached:
            yield [name], reached
        else:
            unreached.setdefault(defect.judged_in, []).append(name)
    for names in unreached.values():
        for start in range(0, len(names), AT_ONCE):
            yield names[start : start + AT_ONCE], []


@pytest.mark.parametrize(
    ("names", "reached"),
    [pytest.param(*group, id="+".join(group[0])) for group in judged_together()],
)
def test_defects_are_caught_by_their_checks_alone(
    names: list[str], reached: list[str], tmp_path: Path
) -> None:
    judged_in = DEFECTS[names[0]].judged_in
    images = {str(reference.build(judged_in, defects=[name])): name for name in names}
    arguments = [f"--image={image}" for image in images]
    arguments += [*comparison(judged_in), *bound(judged_in)]
    if reached:
        arguments += [f"--deselect={test}" for test in SLOW_TESTS if test not in reached]
    else:
        arguments += ["-m", "not slow"]
    report = judge(checked_in(judged_in, tmp_path), tmp_path / "report.json", *arguments)
    found = {images[image]: outcomes for image, outcomes in by_image(report).items()}
    assert {name: outcomes.get("failed", set()) for name, outcomes in found.items()} == {
        name: DEFECTS[name].caught_by for name in names
    }
    for name, outcomes in found.items():
        assert "error" not in outcomes, name
        # What no check skipped, but a test for want of a fact, has the test's name.
        skipped = outcomes.get("skipped", set()) & set(rules())
        assert skipped <= NOTHING_TO_JUDGE | not_promised(judged_in), name
