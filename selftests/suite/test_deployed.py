"""A laid-out fake of /cvmfs: a deployed image is judged, and what only a deployment can break."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import reference
from mlcheck.engines.oci.registry import describe
from mlcheck.engines.select import check_exists
from mlcheck.inspect.deployed.facts import Deployment, PublishedDigest
from mlcheck.inspect.deployed.probe import deployment
from mlcheck.model.errors import UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.reference import tree
from mlcheck.reference.cache import clone
from selftests import registry, warm
from selftests.judging import by_outcome, good_in_a_directory, judge, slow_rules, with_lists
from selftests.rules import judge as verdict

TAG = "alma9-python311"
DIGEST = "ab" + "0123456789abcdef" * 3 + "0123456789abcd"
OTHER = "cd" + DIGEST[2:]


@pytest.fixture(scope="module")
def cvmfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a registry's names in a repository, as cvmfs_ducc lays it out."""
    repository = tmp_path_factory.mktemp("cvmfs") / "cvmfs/unpacked.example"
    names = repository / "registry.example/yesw2000"
    names.mkdir(parents=True)
    for name, digest in (("ml-pyroot", DIGEST), ("ml-base", OTHER)):
        flat = repository / ".flat" / digest[:2] / digest
        flat.parent.mkdir(parents=True)
        clone(reference.build(name, tag=TAG), flat)
        (names / f"{name}:{TAG}").symlink_to(f"../../.flat/{digest[:2]}/{digest}")
    image = repository / ".flat" / DIGEST[:2] / DIGEST
    # Catalogues of CVMFS lie here and there; special bits, and files of another owner that others
    # cannot read, do not come through.
    for directory in ("", "opt/conda", "opt/conda/bin", "opt/conda/conda-meta", "usr/lib64"):
        (image / directory / ".cvmfscatalog").touch()
    (image / "opt/conda/share/jupyter/kernels/.cvmfscatalog").touch()
    (image / ".cvmfsdirtab").touch()
    (image / "tmp").chmod(0o755)
    tree.write(image, "/etc/shadow-like", "secret", 0o600)
    yield names


def run(image: Path, report: Path, *arguments: str) -> dict[str, set[str]]:
    lists = with_lists("ml-pyroot", report.parent)
    return by_outcome(judge(report, f"--image={image}", "-m", "not slow", *lists, *arguments))


@pytest.mark.slow
def test_an_image_on_cvmfs_conforms(cvmfs: Path, tmp_path: Path, of_all_workers: Path) -> None:
    image = cvmfs / f"ml-pyroot:{TAG}"
    digest = f"--config-digest={image}=sha256:{DIGEST}"
    outcomes = run(image, tmp_path / "report.json", digest, "--config-digest=sha256:" + "0" * 64)
    assert set(outcomes) == {"passed", "skipped"}, outcomes
    elsewhere = by_outcome(good_in_a_directory("ml-pyroot", of_all_workers))["skipped"]
    elsewhere -= {"deployed-digest", *slow_rules()}
    assert outcomes["skipped"] == {"deployed-readable", *elsewhere}
    assert {"deployed-digest", "singularity-d", "conda-files-present"} <= outcomes["passed"]


@pytest.mark.slow
def test_another_image_than_the_published_one(cvmfs: Path, tmp_path: Path) -> None:
    image = cvmfs / f"ml-pyroot:{TAG}"
    outcomes = run(image, tmp_path / "report.json", f"--config-digest=sha256:{OTHER}")
    assert outcomes["failed"] == {"deployed-digest"}


@pytest.mark.slow
def test_the_base_is_found_beside_it(cvmfs: Path, tmp_path: Path) -> None:
    image = f"--image={cvmfs}/ml-pyroot:{TAG}"
    done = warm.pytest("-q", "-p", "no:cacheprovider", "-k", "packages-of-base", image)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_a_link_that_leads_nowhere(cvmfs: Path, tmp_path: Path) -> None:
    link = tmp_path / f"ml-base:{TAG}"
    link.symlink_to(f"../.flat/ff/{'f' * 64}")
    with pytest.raises(UsageError, match=r"is a symlink to \.\./\.flat/ff/f+, which leads to no"):
        check_exists(ImageRef.parse(str(link)))


@pytest.mark.slow
def test_what_a_path_tells(cvmfs: Path) -> None:
    found = deployment(cvmfs / f"ml-pyroot:{TAG}")
    assert found.path == f"{cvmfs}/ml-pyroot:{TAG}"
    assert found.flat == f"ab/{DIGEST}"
    assert found.cvmfs
    assert deployment(Path(found.final_path)).flat == f"ab/{DIGEST}"
    by_hand = deployment(Path("/cvmfs/site.example/users/me/ml-base"))
    assert (by_hand.cvmfs, by_hand.flat) == (True, None)
    sandbox = deployment(cvmfs)
    assert (sandbox.cvmfs, sandbox.flat) == (False, None)
    assert not deployment(Path(os.sep)).cvmfs


@pytest.mark.parametrize(
    ("flat", "expected", "outcome"),
    [
        (f"ab/{DIGEST}", f"sha256:{DIGEST}", "passed"),
        (f"ab/{DIGEST}", f"sha256:{OTHER}", "failed"),
        (f"ab/{DIGEST}", None, "skipped"),
        (f"cd/{DIGEST}", f"sha256:{DIGEST}", "failed"),
        (f"ab/{DIGEST[:-1]}", f"sha256:{DIGEST}", "failed"),
        (f"ab/{DIGEST}/rootfs", f"sha256:{DIGEST}", "failed"),
        ("", None, "failed"),
        (None, f"sha256:{DIGEST}", "skipped"),
    ],
)
def test_the_digest_in_the_link(flat: str | None, expected: str | None, outcome: str) -> None:
    place = Deployment("/cvmfs/x/name", f"/cvmfs/x/.flat/{flat}", True, flat)
    assert verdict("deployed-digest", place, PublishedDigest(expected, "told")).outcome == outcome


PUBLISHED = """
[tags]
pattern = '.+'
examples = ["v1"]

[published]
registry = "{address}/{{name}}:{{tag}}"
cvmfs = ["{directory}/{{name}}:{{tag}}"]
"""


@pytest.mark.slow
def test_the_registry_is_asked_which_image_it_should_be(tmp_path: Path) -> None:
    with registry.running() as running:
        registry.push(running, "mini", "v1", [], {})
        ref = ImageRef.parse(f"{running.address}/mini:v1")
        digest = describe(ref).config_digest.removeprefix("sha256:")
        for found, outcome in ((digest, "passed"), (DIGEST, "failed")):
            top = tmp_path / outcome
            (top / ".flat" / found[:2] / found / "etc").mkdir(parents=True)
            (top / "mini:v1").symlink_to(f".flat/{found[:2]}/{found}")
            profile = top / "profiles/mini/image.toml"
            profile.parent.mkdir(parents=True)
            profile.write_text(PUBLISHED.format(address=running.address, directory=top))
            assert digest_outcome(top) == {outcome}
    # With the registry gone, nothing is known.
    assert digest_outcome(tmp_path / "passed") == {"skipped"}


def digest_outcome(top: Path) -> set[str]:
    report = top / "report.json"
    warm.pytest(
        *("-q", "-p", "no:cacheprovider", "--engine=sandbox", f"--mlcheck-json={report}"),
        *(f"--image={top}/mini:v1", f"--profiles={top}/profiles"),
        "tests/general/test_deployed.py",
    )
    results = json.loads(report.read_text())["results"]
    return {result["outcome"] for result in results if result["check"] == "deployed-digest"}


def test_images_that_are_no_directories_are_not_deployed() -> None:
    assert verdict("deployed-digest", None, PublishedDigest(None, "x")).outcome == "skipped"


@pytest.mark.parametrize("value", ["sha256:abc", "sha512:" + "0" * 64, DIGEST])
def test_a_digest_that_is_none(value: str) -> None:
    done = warm.pytest("--collect-only", f"--config-digest={value}")
    assert done.returncode == 4
    assert "expected [IMAGE=]sha256:<64 hex digits>" in done.stderr
