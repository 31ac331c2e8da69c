"""The base image whose list is compared: never the image itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcheck.inspect.packages.lists import same_image
from mlcheck.model.image_ref import ImageRef


def test_directories_are_the_same_by_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "ml-pyroot:1").mkdir()
    (tmp_path / "ml-base:1").mkdir()
    (tmp_path / "link:1").symlink_to("ml-pyroot:1")
    image, base, link = (
        ImageRef.parse(f"{tmp_path}/{name}:1/") for name in ("ml-pyroot", "ml-base", "link")
    )
    assert same_image(image, image)
    assert same_image(link, image)
    assert not same_image(base, image)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("docker.io/x/ml-pyroot:1", "docker.io/x/ml-pyroot:1", True),
        ("docker.io/x/ml-pyroot:1", "docker.io/x/ml-pyroot:2", False),
        ("docker.io/x/ml-pyroot:1", "docker.io/x/ml-base:1", False),
        ("reference:ml-base:1", "docker.io/x/ml-base:1", False),
    ],
)
def test_references_are_the_same_by_name_and_tag(one: str, other: str, same: bool) -> None:
    assert same_image(ImageRef.parse(one), ImageRef.parse(other)) is same
