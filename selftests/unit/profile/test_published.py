"""Published images: what profiles say, and which image a short name means."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mlcheck.engines import select
from mlcheck.engines.oci.images import plain_name
from mlcheck.engines.resolve import resolve
from mlcheck.model.errors import UsageError
from mlcheck.profile.catalog import SUITE, Catalog
from mlcheck.profile.published import Published, of_unpacked_path
from selftests import warm
from selftests.checkout import CHECKOUT

CVMFS = """
[published]
registry = "registry.test/me/{{name}}:{{tag}}"
cvmfs = ["{place}/first/{{name}}:{{tag}}", "{place}/second/{{name}}:{{tag}}"]
"""
TAGS = """
[tags]
pattern = 'v\\d+'
examples = ["v1", "v2"]
"""


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """A family of two, published in a registry that is not there and below tmp_path/cvmfs."""
    place = tmp_path / "cvmfs"
    write(tmp_path / "profiles", "base", TAGS + CVMFS.format(place=place))
    write(tmp_path / "profiles", "top", 'extends = "base"\naliases = ["roof"]\n')
    return tmp_path / "profiles"


def write(directory: Path, name: str, text: str) -> None:
    (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / name / "image.toml").write_text(text)


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> dict[str, frozenset[str]]:
    """What docker and podman have, in place of the real ones."""
    held: dict[str, frozenset[str]] = {"docker": frozenset(), "podman": frozenset()}
    monkeypatch.setattr(select, "names_in", lambda store: held[store])
    return held


def of(*directories: Path) -> Published:
    return Published(Catalog(directories))


# What the profiles say


def test_the_suite_publishes_the_ml_containers() -> None:
    images = {image.short: image for image in of(SUITE).images}
    for name in ("ml-base", "ml-pyroot"):
        for tag in ("centos7-python38", "centos7-python39", "alma9-python39", "alma9-python311"):
            image = images[f"{name}:{tag}"]
            short = tag.replace("python", "py")
            assert image.registry == f"docker.io/yesw2000/{name}:{tag}"
            assert image.directories == (
                f"/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/{name}:{tag}",
                f"/cvmfs/atlas.sdcc.bnl.gov/users/yesw/singularity/{name}:{tag}",
                f"/cvmfs/atlas.sdcc.bnl.gov/users/yesw/singularity/{short}/{name}",
            )
            assert of_unpacked_path(image.directories[0]) == image.registry
    assert not {name for name in images if not name.startswith("ml-")}


def test_a_family_says_once_where_it_is_published(profiles: Path) -> None:
    assert [image.short for image in of(profiles).images] == [
        *("base:v1", "base:v2", "top:v1", "top:v2"),
    ]
    found = of(profiles).find("roof", "v1")
    assert found is not None
    assert (found.short, found.registry) == ("top:v1", "registry.test/me/top:v1")
    assert str(found.source).endswith("base/image.toml:7")


def test_extending_a_profile_of_another_directory_publishes_nothing(
    profiles: Path, tmp_path: Path
) -> None:
    write(tmp_path / "mine", "my-image", 'extends = "base"\n')
    both = of(tmp_path / "mine", profiles)
    assert both.find("my-image", "v1") is None
    assert not both.knows("my-image")
    write(
        tmp_path / "mine",
        "my-image",
        'extends = "base"\n[published]\nregistry = "ghcr.io/i/x:{tag}"\n',
    )
    found = of(tmp_path / "mine", profiles).find("my-image", "v1")
    assert found is not None
    assert (found.registry, found.directories) == ("ghcr.io/i/x:v1", ())


def test_an_alias_selects_the_profile(profiles: Path) -> None:
    catalog = Catalog([profiles])
    assert catalog.load("roof", "v2").label == "top:v2"
    assert catalog.name_of("nothing") is None


@pytest.mark.parametrize(
    ("name", "tag", "words"),
    [
        ("top", "v3", "top:v3 is not published"),
        ("top", "v22", "Did you mean top:v2?"),
        ("top", "v3", "registry.test/me/top:v3"),
        ("top", None, "which tag is meant?"),
        ("roof", None, "roof:v1, roof:v2"),
    ],
)
def test_a_tag_that_is_not_published_is_a_mistake(
    profiles: Path, name: str, tag: str | None, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        of(profiles).find(name, tag)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[published]\nregistry = "docker.io/me/{name}:{tag}"', "of which tags?"),
        (TAGS + "[published]\ncvmfs = []", "registry: this key is missing"),
        (TAGS + '[published]\nregistry = "me/{name}:{tag}"', "image.toml:6: published.registry"),
        (TAGS + '[published]\nregistry = "docker.io/me/{name}"', "published.registry"),
        (TAGS + '[published]\nregistry = "docker.io/Me/A:{tag}"', "no image name"),
        (TAGS + '[published]\nregistry = "docker.io/a/b:x-{tag}"', "is no reference"),
        (TAGS + '[published]\nregistry = "d.io/a:{tag}"\ncvmfs = ["x/{tag}"]', "published.cvmfs"),
        (TAGS + '[published]\nregistry = "d.io/a:{tag}"\nplace = "/x"', "published.place"),
    ],
)
def test_a_mistake_in_the_table_is_named(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, "mine", text)
    with pytest.raises(UsageError) as caught:
        _ = of(tmp_path).images
    assert words in str(caught.value)
    assert "image.toml:" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        (
            "/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/ml-base:alma9-python39",
            "docker.io/yesw2000/ml-base:alma9-python39",
        ),
        (
            "/cvmfs/unpacked.cern.ch/registry.hub.docker.com/library/alma:9/",
            "docker.io/library/alma:9",
        ),
        ("/cvmfs/unpacked.cern.ch/ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/ml-base", None),
        ("/cvmfs/unpacked.cern.ch/.flat/ab/abcd", None),
        ("/cvmfs/unpacked.cern.ch/registry.hub.docker.com/../x:y", None),
        ("/cvmfs/atlas.sdcc.bnl.gov/users/yesw/singularity/ml-base:v1", None),
        ("/elsewhere/cvmfs/unpacked.cern.ch/ghcr.io/a/b:v1", None),
    ],
)
def test_an_unpacked_path_is_a_copy_of_a_reference(path: str, reference: str | None) -> None:
    assert of_unpacked_path(path) == reference


# Which image is meant


def meant(profiles: Path, *texts: str, **options: object) -> list[tuple[str, str]]:
    found = resolve(texts, of(profiles), **options)  # type: ignore[arg-type]
    return [(one.ref.text, one.why) for one in found]


def test_an_image_that_is_not_unpacked_comes_from_the_registry(
    profiles: Path, stores: dict[str, frozenset[str]]
) -> None:
    ((text, why),) = meant(profiles, "top:v1")
    assert text == "registry.test/me/top:v1"
    assert why == "top:v1 as published, not unpacked on this machine"
    assert meant(profiles, "roof:v1")[0][0] == text


def test_an_image_unpacked_on_this_machine_is_preferred(
    profiles: Path, tmp_path: Path, stores: dict[str, frozenset[str]]
) -> None:
    directory = tmp_path / "cvmfs/second/top:v1"
    directory.mkdir(parents=True)
    ((text, why),) = meant(profiles, "top:v1")
    assert (text, why) == (str(directory), "top:v1 as published, unpacked on this machine")
    for engines in (["sandbox"], ["apptainer", "auto"]):
        assert meant(profiles, "top:v1", engines=engines)[0][0] == text
    for options in ({"engines": ["docker", "sandbox"]}, {"pull": "always"}):
        assert meant(profiles, "top:v1", **options)[0][0] == "registry.test/me/top:v1"
    first = tmp_path / "cvmfs/first/top:v1"
    first.mkdir(parents=True)
    assert meant(profiles, "top:v1")[0][0] == str(first)


@pytest.mark.parametrize("store", ["docker", "podman"])
def test_what_was_built_here_comes_first(
    profiles: Path, stores: dict[str, frozenset[str]], store: str
) -> None:
    stores[store] = frozenset(["top:v1", "top:latest", "me/top:v2"])
    assert meant(profiles, "top:v1") == [("top:v1", f"of {store} here, not the published one")]
    assert meant(profiles, "top")[0][0] == "top"
    assert meant(profiles, "top:v2")[0][0] == "registry.test/me/top:v2"
    assert meant(profiles, "top:v1", engines=["sandbox"])[0][0] == "registry.test/me/top:v1"
    assert meant(profiles, "top:v1", stores=False)[0][0] == "registry.test/me/top:v1"


def test_all_is_every_published_image_once(
    profiles: Path, stores: dict[str, frozenset[str]], tmp_path: Path
) -> None:
    stores["docker"] = frozenset(["top:v1"])
    names = [f"registry.test/me/{name}:{tag}" for name in ("base", "top") for tag in ("v1", "v2")]
    assert [text for text, _ in meant(profiles, "all")] == names
    assert [text for text, _ in meant(profiles, "all", "roof:v2", "all")] == names
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no profile says"):
        meant(tmp_path / "none", "all")


@pytest.mark.parametrize(
    "text",
    [
        *("me/top:v1", "docker.io/me/top:v9", f"top@sha256:{'a' * 64}", "./top:v1", "top.sif"),
        *("docker-archive:top:v9", "other:v1", "other", "reference:top:v9"),
    ],
)
def test_any_other_reference_is_left_as_it_is(
    profiles: Path, stores: dict[str, frozenset[str]], text: str
) -> None:
    assert meant(profiles, text) == [(text, "")]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("docker.io/library/x:v1", "x:v1"),
        ("docker.io/me/x:v1", "me/x:v1"),
        ("localhost/x:v1", "x:v1"),
        ("localhost/me/x:v1", "localhost/me/x:v1"),
        ("quay.io/me/x:v1", "quay.io/me/x:v1"),
        ("x:v1", "x:v1"),
    ],
)
def test_names_are_shortened_as_docker_shows_them(name: str, plain: str) -> None:
    assert plain_name(name) == plain


# A run of the suite


def suite(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return warm.pytest("-p", "no:cacheprovider", *arguments, cwd=cwd)


@pytest.fixture
def unpacked(profiles: Path, tmp_path: Path, tiny_rootfs: Path) -> Path:
    """The two images of v1 as directories; of those of v2 there is nothing."""
    table = TAGS + CVMFS.format(place=tmp_path / "cvmfs")
    write(profiles, "base", f'shells = ["/bin/bash"]\n{table}')
    (tmp_path / "cvmfs/first").mkdir(parents=True)
    for name in ("base", "top"):
        (tmp_path / f"cvmfs/first/{name}:v1").symlink_to(tiny_rootfs)
    return profiles


@pytest.mark.slow
def test_workers_judge_the_resolved_images(unpacked: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = suite(
        *("--profiles", str(unpacked), f"--mlcheck-json={report}", "-k", "shells", "-n", "2"),
        *("--image=top:v1", "--image=base:v1"),
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "top:v1 as published, unpacked on this machine" in done.stdout
    found = json.loads(report.read_text())
    assert [image["id"] for image in found["images"]] == ["top:v1@sandbox", "base:v1@sandbox"]


@pytest.mark.engine("docker")
def test_one_image_that_is_not_there_does_not_stop_the_others(
    unpacked: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = suite(
        *("--profiles", str(unpacked), f"--mlcheck-json={report}", "-k", "shells"),
        *("--image=top:v1", "--image=top:v2", "--pull=never"),
        cwd=CHECKOUT,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    results = json.loads(report.read_text())["results"]
    assert {result["image"]: result["outcome"] for result in results} == {
        "top:v1@sandbox": "passed",
        "top:v2@docker": "error",
    }
