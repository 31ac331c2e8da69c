"""A good image gets the same outcome from every check on every engine, and each defect is shown by
one of them to the checks that must catch it. What a defect must not trip, and the defects of
what works for seconds in the image, are proven once, by test_defects.py: an engine gives those
checks the same answers of the same commands."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from mlcheck import opening, reference
from mlcheck.reference import DEFECTS, Defect
from selftests import layers, registry
from selftests.images import build_sif
from selftests.registry import Registry
from selftests.test_defects import (
    AT_WORK,
    DEPLOYED,
    JUPYTER,
    ML,
    NEW_ENV,
    SLOW_TESTS,
    by_image,
    by_outcome,
    checked_in,
    good_in_a_directory,
    judge,
)

ENGINES = ("docker", "podman", "apptainer")
TAG = reference.default_tag()


_SNEAKY = {"conda-record-unlisted", "dist-info-unlisted", "unrecorded-package"}
_LINKED = {"kernel-argv0-missing", "micromamba-missing", "root-no-compiler"}
ONE_OF = (
    {name for name in DEFECTS if name.startswith(("entrypoint-", "banner-"))},
    {name for name in DEFECTS if name.startswith("kernel-")},
    {name for name in DEFECTS if name.startswith("rpath")},
    {name for name in DEFECTS if name.startswith(("conda-file-", "private-"))},
    {name for name in DEFECTS if name.startswith(("depends-", "requirement-"))} | _SNEAKY,
    {name for name in DEFECTS if name.startswith("newenv-archive-")} | _LINKED,
    {"banner-not-printed", "singularity-d-mode"},  # apptainer starts the image without its script
)
"""Defects of which no two are planted together: they change the same file, or one leaves nothing
for the other."""


def together(name: str) -> list[list[Defect]]:
    """The defects of an image in groups that are planted together: no two of a group are caught
    by the same check, and none hides another (`ONE_OF`)."""
    groups: list[list[Defect]] = []
    judged = [one for one in DEFECTS.values() if one.judged_in == name and not one.layers]
    for defect in sorted(judged, key=lambda defect: -len(defect.caught_by)):
        if not seen_of(defect):
            continue
        for group in groups:
            if not any(clash(defect, other) for other in group):
                group.append(defect)
                break
        else:
            groups.append([defect])
    return groups


def clash(one: Defect, other: Defect) -> bool:
    alike = any({one.name, other.name} <= names for names in ONE_OF)
    return alike or bool(seen_of(one) & seen_of(other))


def seen_of(defect: Defect) -> frozenset[str]:
    """The checks that are tried here of those that catch the defect."""
    return defect.caught_by - AT_WORK


class Images:
    """A registry that has each good image under the tag "good", and its groups of defects.

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
        self.digest = functools.cache(self._push_good)
        self._planted: set[str] = set()

    def _push_good(self, name: str) -> str:
        """Have the good image there; returns the digest of its manifest."""
        configuration = layers.configuration(reference.build(name))
        return registry.push(self._registry, name, "good", self._below(name), configuration)

    def plant(self, name: str, group: Sequence[Defect]) -> None:
        """Have the image with these defects there."""
        if tag_of(group) in self._planted:
            return
        self._planted.add(tag_of(group))
        image = planted(name, group)
        whole = [*self._below(name), layers.difference(reference.build(name), image)]
        configuration = layers.configuration(image)
        registry.push(self._registry, name, tag_of(group), whole, configuration)

    @functools.cache  # noqa: B019 -- as long as the module's tests
    def _below(self, name: str) -> list[bytes | Path]:
        if not self._bottom.exists():
            reference.export_tar(self._base, self._bottom)
        good = reference.build(name)
        own = [] if good == self._base else [layers.difference(self._base, good)]
        return [self._bottom, *own]


def planted(name: str, group: Sequence[Defect]) -> Path:
    return reference.build(name, defects=[defect.name for defect in group])


def tag_of(group: Sequence[Defect]) -> str:
    """The first of the group stands for it."""
    return group[0].name if group else "good"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    with registry.running() as running:
        yield Images(running, tmp_path_factory.mktemp("layer"))


def image_of(engine: str, name: str, group: Sequence[Defect], images: Images) -> str:
    if engine == "apptainer":
        return str(planted(name, group))
    if group:
        images.plant(name, group)
    else:
        images.digest(name)
    return f"{images.address}/{name}:{tag_of(group)}"


@pytest.fixture(scope="module", autouse=True)
def _store(images: Images) -> Iterator[None]:
    """Removes what the tests pulled, at the end: their images share layers."""
    yield
    for engine in ("docker", "podman"):
        if opening.engine(engine).unusable() is not None:
            continue
        command = [engine, "images", "--format", "{{.Repository}}:{{.Tag}}"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        mine = [line for line in listed.stdout.split() if line.startswith(images.address)]
        if mine:
            subprocess.run([engine, "rmi", "-f", *mine], check=True, capture_output=True)


def left_out(name: str) -> dict[str, set[str]]:
    """Tests, and their checks, of what the images of frameworks do just as ml-base does: it is
    judged there on every engine."""
    if name in ("ml-base", "ml-pyroot"):
        return {}
    same = JUPYTER | NEW_ENV
    return {test: checks for test, checks in SLOW_TESTS.items() if checks <= same}


ON_ALL = ("ml-base", "ml-pyroot")
"""Good images that every engine judges; it is one that judges each of the others, which differ from
ml-base by a framework's packages."""


def good_on_engines() -> Iterator[ParameterSet]:
    others = [name for name in ML if name not in ON_ALL]
    for place, engine in enumerate(ENGINES):
        for name in (*ON_ALL, *others[place :: len(ENGINES)]):
            yield pytest.param(engine, name, marks=pytest.mark.engine(engine))


@pytest.mark.parametrize(("engine", "name"), [*good_on_engines()])
def test_the_good_image_gets_the_same_verdicts(
    engine: str, name: str, images: Images, tmp_path: Path, of_all_workers: Path
) -> None:
    own_list = checked_in(name, tmp_path)
    options = [f"--engine={engine}", f"--profile={name}:{TAG}"]
    good_image = f"--image={image_of(engine, name, [], images)}"
    options += [f"--deselect={test}" for test in left_out(name)]
    good = judge(own_list, tmp_path / "good.json", good_image, *options)
    in_a_directory = good_in_a_directory(name, of_all_workers)
    elsewhere: set[str] = set() if engine == "apptainer" else DEPLOYED
    # Of layers, a profile without budgets lets secrets be judged alone.
    here: set[str] = set() if engine == "apptainer" else {"layers-secrets"}
    passed, skipped = (by_outcome(in_a_directory)[outcome] for outcome in ("passed", "skipped"))
    not_asked = {check for checks in left_out(name).values() for check in checks}
    passed, skipped = passed - not_asked, skipped - not_asked
    assert by_outcome(good)["passed"] == passed - elsewhere | here
    assert by_outcome(good)["skipped"] == (skipped | elsewhere) - here
    assert by_outcome(good).keys() == {"passed", "skipped"}
    assert isinstance(good["images"], list)
    expected_digest = None if engine == "apptainer" else images.digest(name)
    assert [image["digest"] for image in good["images"]] == [expected_digest]


def shared(engine: str, name: str) -> list[list[Defect]]:
    """The groups that an engine shows. The engines share them: that all give the same facts of one
    image is proven by the good images here and by the engines' own tests."""
    return together(name)[ENGINES.index(engine) :: len(ENGINES)]


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        pytest.param(engine, name, marks=pytest.mark.engine(engine))
        for engine in ENGINES
        for name in ML
        if shared(engine, name)
    ],
)
def test_every_defect_is_caught(
    engine: str, name: str, images: Images, tmp_path: Path, of_all_workers: Path
) -> None:
    own_list = checked_in(name, tmp_path)
    results = good_in_a_directory(name, of_all_workers)["results"]
    assert isinstance(results, list)
    tests = {result["check"]: result["test"].partition("[")[0] for result in results}
    not_here = AT_WORK if engine == "apptainer" else DEPLOYED | AT_WORK
    arguments, expected = [], {}
    for group in shared(engine, name):
        caught_by = {check for defect in group for check in defect.caught_by} - not_here
        if not caught_by:
            continue
        text = image_of(engine, name, group, images)
        # directories of one name are told apart by their paths
        label = text if engine == "apptainer" else f"{name}:{tag_of(group)}"
        arguments.append(f"--image={text}")
        arguments += [f"{tests[check]}[{label}@{engine}]" for check in sorted(caught_by)]
        expected[text] = {"failed": caught_by}
    if engine == "apptainer" and len(expected) == 1:
        arguments = [argument.replace(f"[{label}@", f"[{name}:{TAG}@") for argument in arguments]
    options = [f"--engine={engine}", f"--profile={name}:{TAG}"]
    found = judge(own_list, tmp_path / "defects.json", *options, *arguments)
    assert by_image(found) == expected


@pytest.mark.engine("apptainer")
def test_a_sif_gets_the_same_verdicts(tmp_path: Path, of_all_workers: Path) -> None:
    own_list = checked_in("ml-pyroot", tmp_path)
    directory = reference.build("ml-pyroot")
    sif = tmp_path / "ml-pyroot.sif"
    # The colon of the directory's name would be taken for the end of a scheme.
    (tmp_path / "image").symlink_to(directory)
    # Not compressed: that takes a minute.
    build_sif(tmp_path / "image", sif, "--mksquashfs-args=-noI -noD -noF -noX")
    report = tmp_path / "report.json"
    found = judge(own_list, report, f"--image={sif}", f"--profile=ml-pyroot:{TAG}")
    in_a_directory = good_in_a_directory("ml-pyroot", of_all_workers)
    assert by_outcome(found)["passed"] == by_outcome(in_a_directory)["passed"] - DEPLOYED
    assert by_outcome(found)["skipped"] == by_outcome(in_a_directory)["skipped"] | DEPLOYED
    assert isinstance(found["images"], list)
    (image,) = found["images"]
    assert image["engine"] == "apptainer"
    assert image["digest"] == f"sha256:{hashlib.sha256(sif.read_bytes()).hexdigest()}"
