"""Every good image gets the same outcome from every check on every engine, and apptainer and one of
docker and podman show every defect to the checks that must catch it. What a defect must not trip,
and the defects of what works for seconds in the image, are proven once, by test_defects.py: an
engine gives those checks the same answers of the same commands."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.reference import DEFECTS, Defect
from selftests import layers, registry
from selftests.images import each_engine
from selftests.registry import Registry
from selftests.test_defects import (
    AT_WORK,
    DEPLOYED,
    JUPYTER,
    ML,
    NEW_ENV,
    SLOW_TESTS,
    by_outcome,
    checked_in,
    judge,
)

ENGINES = ("docker", "podman", "apptainer")
TAG = reference.default_tag()


def defects_of(name: str, engine: str) -> list[Defect]:
    """The defects of an image that are judged on an engine: docker and podman, which one class
    serves, share them."""
    found = [
        defect
        for defect in DEFECTS.values()
        if defect.judged_in == name and defect.caught_by - AT_WORK and not defect.layers
    ]
    return found if engine == "apptainer" else found[engine == "podman" :: 2]


class Images:
    """A registry that has each good image under the tag "good", each defect under its name.

    Each image has what it has over ml-base in a layer of its own, over one that all share.

    Args:
        registry: an empty one.
        directory: for the shared layer.
    """

    def __init__(self, registry: Registry, directory: Path) -> None:
        self._registry = registry
        self._base = reference.build("ml-base")
        self._bottom = directory / "base.tar"
        self.address = registry.address
        self.digest = functools.cache(self._push)

    def _push(self, name: str, engine: str) -> str:
        """Have an image and its defects there; returns the digest of the good one's manifest."""
        if not self._bottom.exists():
            reference.export_tar(self._base, self._bottom)
        good = reference.build(name)
        below: list[bytes | Path] = [self._bottom]
        if good != self._base:
            below.append(layers.difference(self._base, good))
        for defect in defects_of(name, engine):
            image = reference.build(name, defects=[defect.name])
            whole = [*below, layers.difference(good, image)]
            registry.push(self._registry, name, defect.name, whole, layers.configuration(image))
        return registry.push(self._registry, name, "good", below, layers.configuration(good))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    with registry.running() as running:
        yield Images(running, tmp_path_factory.mktemp("layer"))


def image_of(engine: str, name: str, tag: str, images: Images) -> str:
    if engine in ("apptainer", "sandbox"):
        return str(reference.build(name, defects=[] if tag == "good" else [tag]))
    images.digest(name, engine)
    return f"{images.address}/{name}:{tag}"


@pytest.fixture
def store(engine: str, images: Images) -> Iterator[None]:
    """Removes what the test pulled."""
    yield
    if engine != "apptainer":
        command = [engine, "images", "--format", "{{.Repository}}:{{.Tag}}"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        mine = [line for line in listed.stdout.split() if line.startswith(images.address)]
        subprocess.run([engine, "rmi", "-f", *mine], check=True, capture_output=True)


def left_out(name: str) -> list[str]:
    """What the images of frameworks do just as ml-base does is judged there on every engine."""
    if name in ("ml-base", "ml-pyroot"):
        return []
    same = JUPYTER | NEW_ENV
    return [f"--deselect={test}" for test, checks in SLOW_TESTS.items() if checks <= same]


@functools.cache
def judged_in_a_directory(name: str) -> dict[str, object]:
    """What the good image gets without any engine."""
    image = f"--image={reference.build(name)}"
    with tempfile.TemporaryDirectory() as directory:
        own_list = checked_in(name, Path(directory))
        return judge(own_list, Path(directory, "report.json"), image, *left_out(name))


@pytest.mark.parametrize("name", ML)
@pytest.mark.parametrize("engine", each_engine(*ENGINES))
@pytest.mark.usefixtures("store")
def test_the_same_verdicts_and_every_defect_is_caught(
    engine: str, name: str, images: Images, tmp_path: Path
) -> None:
    own_list = checked_in(name, tmp_path)
    options = [f"--engine={engine}", f"--profile={name}:{TAG}"]
    good_image = f"--image={image_of(engine, name, 'good', images)}"
    good = judge(own_list, tmp_path / "good.json", good_image, *options, *left_out(name))
    in_a_directory = judged_in_a_directory(name)
    elsewhere: set[str] = set() if engine == "apptainer" else DEPLOYED
    # Of layers, a profile without budgets lets secrets be judged alone.
    here: set[str] = set() if engine == "apptainer" else {"layers-secrets"}
    passed, skipped = (by_outcome(in_a_directory)[outcome] for outcome in ("passed", "skipped"))
    assert by_outcome(good)["passed"] == passed - elsewhere | here
    assert by_outcome(good)["skipped"] == (skipped | elsewhere) - here
    assert by_outcome(good).keys() == {"passed", "skipped"}
    assert isinstance(good["images"], list)
    expected_digest = None if engine == "apptainer" else images.digest(name, engine)
    assert [image["digest"] for image in good["images"]] == [expected_digest]

    assert isinstance(good["results"], list)
    tests = {result["check"]: result["test"].partition("[")[0] for result in good["results"]}
    arguments, expected = [], {}
    not_here = elsewhere | AT_WORK
    judged = [defect for defect in defects_of(name, engine) if defect.caught_by - not_here]
    for defect in judged:
        caught_by = defect.caught_by - not_here
        text = image_of(engine, name, defect.name, images)
        if engine != "apptainer":
            label = f"{name}:{defect.name}"
        else:  # directories of one name, told apart by their paths if there are several
            label = text if len(judged) > 1 else f"{name}:{TAG}"
        arguments.append(f"--image={text}")
        arguments += [f"{tests[check]}[{label}@{engine}]" for check in caught_by]
        expected[label] = {"failed": set(caught_by)}
    if not judged:
        return
    found = judge(own_list, tmp_path / "defects.json", *options, *arguments)
    by_image: dict[str, dict[str, set[str]]] = {}
    assert isinstance(found["results"], list)
    for result in found["results"]:
        outcomes = by_image.setdefault(result["image"].partition("@")[0], {})
        outcomes.setdefault(result["outcome"], set()).add(result["check"] or result["test"])
    assert by_image == expected


@pytest.mark.engine("apptainer")
def test_a_sif_gets_the_same_verdicts(tmp_path: Path) -> None:
    own_list = checked_in("ml-pyroot", tmp_path)
    directory = reference.build("ml-pyroot")
    sif = tmp_path / "ml-pyroot.sif"
    # The colon of the directory's name would be taken for the end of a scheme.
    (tmp_path / "image").symlink_to(directory)
    # Not compressed: that takes a minute.
    quick = "--mksquashfs-args=-noI -noD -noF -noX"
    build = ["apptainer", "build", quick, str(sif), str(tmp_path / "image")]
    subprocess.run(build, check=True, capture_output=True)
    report = tmp_path / "report.json"
    found = judge(own_list, report, f"--image={sif}", f"--profile=ml-pyroot:{TAG}")
    in_a_directory = judge(own_list, report, f"--image={directory}")
    assert by_outcome(found)["passed"] == by_outcome(in_a_directory)["passed"] - DEPLOYED
    assert by_outcome(found)["skipped"] == by_outcome(in_a_directory)["skipped"] | DEPLOYED
    assert isinstance(found["images"], list)
    (image,) = found["images"]
    assert image["engine"] == "apptainer"
    assert image["digest"] == f"sha256:{hashlib.sha256(sif.read_bytes()).hexdigest()}"
