"""The list of jobs of a release, and their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import SUITE, Catalog
from mlcheck.release import jobs
from mlcheck.release.jobs import Job

CATALOG = Catalog([SUITE])


def of(*texts: str, engines: tuple[str, ...] = ("auto",), profile: str | None = None) -> list[Job]:
    return jobs.of_images(CATALOG, texts, engines, profile)


def test_all_is_what_the_matrix_of_a_ci_has() -> None:
    engines = ["docker", "podman"]
    assert of("all", engines=("docker", "podman")) == [*jobs.published(CATALOG, [], engines)]


def test_patterns_and_names_are_one_job_each() -> None:
    found = of("ml-pyroot:alma9-*", "ml-pyroot:alma9-python311", "ml-pyroot:alma9-python311")
    assert [job.image for job in found].count("ml-pyroot:alma9-python311") == 1
    assert {job.name for job in found} == {"ml-pyroot"}
    (job,) = of("ml-pyroot:alma9-python311")
    assert job in found


def test_which_images_want_a_gpu() -> None:
    found = {job.name: job.gpu for job in of("ml-torch-gpu:alma9-python311", "ml-base:*")}
    assert found == {"ml-torch-gpu": True, "ml-base": False}
    assert of("me/own:v1", profile="ml-torch-gpu:alma9-python311")[0].gpu
    assert not of("me/own:v1")[0].gpu


def test_paths_are_the_same_from_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = of("./one:v1", "two/", "x.sif", "docker-archive:y.tar", "oci:z", "me/own:v1")
    assert [job.image for job in found] == [
        f"{tmp_path}/one:v1",
        f"{tmp_path}/two",
        f"{tmp_path}/x.sif",
        f"docker-archive:{tmp_path}/y.tar",
        f"oci:{tmp_path}/z",
        "me/own:v1",
    ]
    assert [job.slug for job in found][:2] == ["one-v1-auto", "two-auto"]


def test_names_of_files_are_safe_and_differ() -> None:
    texts = ["/a/x:v1", "/b/x:v1", "/c/x-v1", "/d/..hidden", "/e/" + "n" * 300, "/f/" + "n" * 300]
    slugs = [job.slug for job in of(*texts)]
    assert len(set(slugs)) == len(texts)
    for slug in slugs:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,180}", slug), slug


def test_all_references() -> None:
    found = of("all-references")
    assert "reference:ml-pyroot" in {job.image.rpartition(":alma")[0] or job.image for job in found}
    assert all(job.image.startswith("reference:") for job in found)
    assert len(found) > 3


@pytest.mark.parametrize(
    ("texts", "engines", "words"),
    [
        (["ml-nothing*"], ["auto"], "names no published image"),
        (["ml-pyroot:alma9-python31"], ["auto"], "Did you mean ml-pyroot:alma9-python311"),
        (["./x.sif"], ["docker"], "which docker does not open"),
        (["me/own:v1"], ["dockr"], "there is no engine 'dockr'"),
        (["a b"], ["auto"], "is no image reference"),
    ],
)
def test_slips_are_refused(texts: list[str], engines: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        of(*texts, engines=tuple(engines))


def test_the_longest_starts_first(tmp_path: Path) -> None:
    for name, size in (("small.sif", 10), ("large.sif", 1000)):
        (tmp_path / name).write_bytes(bytes(size))
    found = of("me/a:1", "me/b:1", f"{tmp_path}/small.sif", f"{tmp_path}/large.sif", "me/c:1")
    seconds = {("me/a:1", "auto"): 10.0, ("me/b:1", "auto"): 300.0}
    names = [job.name for job in jobs.longest_first(found, seconds)]
    assert names == ["large", "small", "c", "b", "a"]
