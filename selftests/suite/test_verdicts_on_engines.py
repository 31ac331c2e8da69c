"""Every engine says of an image what a directory with its files says: of good images, and of one
with a fault in each thing that only an engine gives (files, links, modes, configuration,
environment, entrypoint). That each fault is caught is proven once, by test_defects.py."""

from __future__ import annotations

import functools
import hashlib
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.engines import select
from selftests import layers, registry, verdicts
from selftests.images import build_sif
from selftests.judging import (
    ML,
    Report,
    by_outcome,
    good_in_a_directory,
    judge,
    slow_rules,
    with_lists,
)
from selftests.registry import Registry

ENGINES = ("docker", "podman", "apptainer")
TAG = reference.default_tag()
FAULTS = (
    *("entrypoint-swallows", "env-wrong-path", "file-mode", "label-missing", "libgl-loop"),
    *("list-extra-line", "micromamba-script", "os-version", "root-config-not-executable"),
    *("rpath-library", "shebang-missing-interpreter", "kernel-wrong-type", "zsh-no-link"),
)
"""Planted together in one ml-pyroot."""


class Images:
    """A registry that has images of ml-base's kin.

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

    def _push(self, name: str, defects: tuple[str, ...] = ()) -> str:
        """Have the image there, as "NAME:good" or "NAME:bad"; returns its manifest's digest."""
        image = reference.build(name, defects=defects)
        tag = "bad" if defects else "good"
        configuration = layers.configuration(image)
        return registry.push(self._registry, name, tag, self._layers(name, image), configuration)

    def _layers(self, name: str, image: Path) -> list[bytes | Path]:
        if not self._bottom.exists():
            reference.export_tar(self._base, self._bottom)
        trees = list(dict.fromkeys([self._base, reference.build(name), image]))
        above = [layers.difference(below, top) for below, top in itertools.pairwise(trees)]
        return [self._bottom, *above]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    with registry.running() as running:
        yield Images(running, tmp_path_factory.mktemp("layer"))


@pytest.fixture(scope="module", autouse=True)
def _store(images: Images) -> Iterator[None]:
    """Removes what the tests pulled, at the end: their images share layers."""
    yield
    for engine in ("docker", "podman"):
        if select.engine(engine).unusable() is not None:
            continue
        command = [engine, "images", "--format", "{{.Repository}}:{{.Tag}}"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        mine = [line for line in listed.stdout.split() if line.startswith(images.address)]
        if mine:
            subprocess.run([engine, "rmi", "-f", *mine], check=True, capture_output=True)


def expected(engine: str, in_a_directory: Report) -> dict[str, str]:
    """What an engine has to say, by what was said of the directory."""
    said = verdicts.told(in_a_directory)
    if engine != "apptainer":
        said |= dict.fromkeys(verdicts.DEPLOYED & said.keys(), "skipped")
        said["layers-secrets"] = "passed"
    return said


ON_ALL = ("ml-pyroot",)
"""The good image that every engine judges, ml-base and more; it is one that judges each of the
others, which are ml-base, or differ from it by a framework's packages."""
AS_IN_ML_PYROOT = tuple(
    f"tests/general/test_{name}.py"
    for name in ("kernels", "kernel_cells", "jupyterlab", "run_server", "new_environments")
)
"""What the others do just as ml-pyroot does, in seconds."""


def good_on_engines() -> Iterator[object]:
    others = [name for name in ML if name not in ON_ALL]
    for place, engine in enumerate(ENGINES):
        for name in (*ON_ALL, *others[place :: len(ENGINES)]):
            yield pytest.param(engine, name, marks=pytest.mark.engine(engine))


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "name"), [*good_on_engines()])
def test_the_good_image_gets_the_same_verdicts(
    engine: str, name: str, images: Images, tmp_path: Path, of_all_workers: Path
) -> None:
    digest = None if engine == "apptainer" else images.digest(name)
    image = f"{images.address}/{name}:good" if digest else str(reference.build(name))
    options = [f"--engine={engine}", f"--profile={name}:{TAG}", *with_lists(name, tmp_path)]
    if name not in ON_ALL:
        options += [f"--deselect={file}" for file in AS_IN_ML_PYROOT]
    good = judge(tmp_path / "good.json", f"--image={image}", *options)
    assert by_outcome(good).keys() == {"passed", "skipped"}
    found = verdicts.told(good)
    said = expected(engine, good_in_a_directory(name, of_all_workers))
    assert found == {check: said[check] for check in found}
    assert name not in ON_ALL or found.keys() == said.keys()
    assert [image["digest"] for image in good["images"]] == [digest]


@pytest.mark.parametrize(
    "engine", [pytest.param(engine, marks=pytest.mark.engine(engine)) for engine in ENGINES]
)
def test_faults_are_found_as_in_a_directory(engine: str, images: Images, tmp_path: Path) -> None:
    directory = str(reference.build("ml-pyroot", defects=FAULTS))
    image = directory
    if engine != "apptainer":
        images.digest("ml-pyroot", FAULTS)
        image = f"{images.address}/ml-pyroot:bad"
    options = [f"--profile=ml-pyroot:{TAG}", "-m", "not slow", *with_lists("ml-pyroot", tmp_path)]
    plain = judge(tmp_path / "plain.json", f"--image={directory}", *options)
    caught = {check for name in FAULTS for check in reference.DEFECTS[name].caught_by}
    assert by_outcome(plain)["failed"] == caught - slow_rules().keys()
    found = judge(tmp_path / "found.json", f"--image={image}", f"--engine={engine}", *options)
    assert verdicts.told(found) == expected(engine, plain)


@pytest.mark.engine("apptainer")
def test_a_sif_gets_the_same_verdicts(tmp_path: Path, of_all_workers: Path) -> None:
    directory = reference.build("ml-pyroot")
    sif = tmp_path / "ml-pyroot.sif"
    # The colon of the directory's name would be taken for the end of a scheme.
    (tmp_path / "image").symlink_to(directory)
    # Not compressed: that takes a minute.
    build_sif(tmp_path / "image", sif, "--mksquashfs-args=-noI -noD -noF -noX")
    options = [f"--profile=ml-pyroot:{TAG}", *with_lists("ml-pyroot", tmp_path)]
    found = judge(tmp_path / "report.json", f"--image={sif}", *options)
    said = verdicts.told(good_in_a_directory("ml-pyroot", of_all_workers))
    assert verdicts.told(found) == said | dict.fromkeys(verdicts.DEPLOYED, "skipped")
    (image,) = found["images"]
    assert image["engine"] == "apptainer"
    assert image["digest"] == f"sha256:{hashlib.sha256(sif.read_bytes()).hexdigest()}"
