"""The good image gets the same outcome from every check on every engine, and every engine shows
every defect to the checks that must catch it. What a defect must not trip is proven once, by
test_defects.py."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mlcheck import reference
from mlcheck.reference import DEFECTS
from selftests import layers, registry
from selftests.images import each_engine
from selftests.test_defects import by_outcome, checked_in, judge

ENGINES = ("docker", "podman", "apptainer")
PROFILE = "--profile=ml-pyroot:alma9-python311"
# A host can use only an unpacked image without a container.
UNPACKED_ALONE = {"on-host-bash", "on-host-zsh", "on-host-programs", "on-host-libraries"}


class Images(NamedTuple):
    """What a registry has.

    Args:
        address: of the registry.
        digest: of the good image's manifest.
    """

    address: str
    digest: str


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """A registry with the good image, tag "good", and each defect under its name as tag."""
    base = reference.build("ml-pyroot", tag="alma9-python311")
    layer = tmp_path_factory.mktemp("layer") / "base.tar"
    reference.export_tar(base, layer)
    with registry.running() as running:
        digest = registry.push(running, "ml-pyroot", "good", [layer], layers.configuration(base))
        for name in DEFECTS:
            image = reference.build("ml-pyroot", tag="alma9-python311", defects=[name])
            top = layers.difference(base, image)
            registry.push(running, "ml-pyroot", name, [layer, top], layers.configuration(image))
        yield Images(running.address, digest)


def packed(outcomes: dict[str, set[str]]) -> dict[str, set[str]]:
    """The outcomes of a packed image, by those of the same in a directory."""
    found = {name: checks - UNPACKED_ALONE for name, checks in outcomes.items()}
    skipped = set[str]().union(*outcomes.values()) & UNPACKED_ALONE
    found["skipped"] = found.get("skipped", set()) | skipped
    return {name: checks for name, checks in found.items() if checks}


def image_of(engine: str, name: str, images: Images) -> str:
    if engine in ("apptainer", "sandbox"):
        defects = [] if name == "good" else [name]
        return str(reference.build("ml-pyroot", tag="alma9-python311", defects=defects))
    return f"{images.address}/ml-pyroot:{name}"


@pytest.fixture
def store(engine: str, images: Images) -> Iterator[None]:
    """Removes what the test pulled."""
    yield
    if engine != "apptainer":
        command = [engine, "images", "--format", "{{.Repository}}:{{.Tag}}"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        mine = [line for line in listed.stdout.split() if line.startswith(images.address)]
        subprocess.run([engine, "rmi", "-f", *mine], check=True, capture_output=True)


@pytest.mark.parametrize("engine", each_engine(*ENGINES))
@pytest.mark.usefixtures("store")
def test_the_same_verdicts_and_every_defect_is_caught(
    engine: str, images: Images, tmp_path: Path
) -> None:
    own_list = checked_in("ml-pyroot", tmp_path)
    good = judge(
        own_list,
        tmp_path / "good.json",
        f"--image={image_of(engine, 'good', images)}",
        f"--engine={engine}",
        PROFILE,
    )
    in_a_directory = judge(
        own_list,
        tmp_path / "sandbox.json",
        f"--image={image_of('sandbox', 'good', images)}",
        PROFILE,
    )
    assert set(by_outcome(in_a_directory)) == {"passed"}
    expected_good = by_outcome(in_a_directory)
    assert by_outcome(good) == (expected_good if engine == "apptainer" else packed(expected_good))
    assert isinstance(good["images"], list)
    expected_digest = None if engine == "apptainer" else images.digest
    assert [image["digest"] for image in good["images"]] == [expected_digest]

    assert isinstance(good["results"], list)
    tests = {result["check"]: result["test"].partition("[")[0] for result in good["results"]}
    arguments = []
    for name, defect in DEFECTS.items():
        arguments.append(f"--image={image_of(engine, name, images)}")
        text = image_of(engine, name, images)
        label = text if engine == "apptainer" else f"ml-pyroot:{name}"
        arguments += [f"{tests[check]}[{label}@{engine}]" for check in defect.caught_by]
    report = judge(own_list, tmp_path / "defects.json", f"--engine={engine}", PROFILE, *arguments)
    by_image: dict[str, dict[str, set[str]]] = {}
    assert isinstance(report["results"], list)
    for result in report["results"]:
        outcomes = by_image.setdefault(result["image"].partition("@")[0], {})
        outcomes.setdefault(result["outcome"], set()).add(result["check"] or result["test"])
    expected = {}
    for name, defect in DEFECTS.items():
        text = image_of(engine, name, images)
        label = text if engine == "apptainer" else f"ml-pyroot:{name}"
        caught = {"failed": set(defect.caught_by)}
        expected[label] = caught if engine == "apptainer" else packed(caught)
    assert by_image == expected


@pytest.mark.engine("apptainer")
def test_a_sif_gets_the_same_verdicts(tmp_path: Path) -> None:
    own_list = checked_in("ml-pyroot", tmp_path)
    directory = reference.build("ml-pyroot", tag="alma9-python311")
    sif = tmp_path / "ml-pyroot.sif"
    # The colon of the directory's name would be taken for the end of a scheme.
    (tmp_path / "image").symlink_to(directory)
    # Not compressed: that takes a minute.
    quick = "--mksquashfs-args=-noI -noD -noF -noX"
    build = ["apptainer", "build", quick, str(sif), str(tmp_path / "image")]
    subprocess.run(build, check=True, capture_output=True)
    report = tmp_path / "report.json"
    found = judge(own_list, report, f"--image={sif}", PROFILE)
    in_a_directory = judge(own_list, report, f"--image={directory}", PROFILE)
    assert by_outcome(found) == packed(by_outcome(in_a_directory))
    assert isinstance(found["images"], list)
    (image,) = found["images"]
    assert image["engine"] == "apptainer"
    assert image["digest"] == f"sha256:{hashlib.sha256(sif.read_bytes()).hexdigest()}"
