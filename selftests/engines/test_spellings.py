"""How people write images who come from skopeo, docker or apptainer."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from mlcheck.engines import select
from mlcheck.model.errors import EngineError, UsageError
from mlcheck.model.image_ref import ImageRef

DIGEST = "sha256:" + 64 * "1"


@pytest.mark.parametrize(
    ("text", "location", "label", "place"),
    [
        ("docker-daemon:debian", "debian", "debian", "docker"),
        ("docker-daemon:me/x:v1", "me/x", "x:v1", "docker"),
        (f"docker-daemon:me/x@{DIGEST}", "me/x", "x", "docker"),
        ("docker-daemon:localhost:5000/me/x:v1", "localhost:5000/me/x", "x:v1", "docker"),
        ("docker:me/x:v1", "me/x", "x:v1", "docker"),
        ("docker:28-dind", "docker", "docker:28-dind", None),
        ("podman:x", "x", "x", "podman"),
        ("containers-storage:localhost/x:v1", "localhost/x", "x:v1", "podman"),
        ("docker://me/x:v1", "me/x", "x:v1", "registry"),
        ("docker://debian", "debian", "debian", "registry"),
        ("registry.example.org:443/a/b__c/x", "registry.example.org:443/a/b__c/x", "x", None),
        ("singularity:3.8", "singularity", "singularity:3.8", None),
    ],
)
def test_spellings_of_other_tools_are_understood(
    text: str, location: str, label: str, place: str | None
) -> None:
    ref = ImageRef.parse(text)
    assert (ref.kind, ref.location, ref.label, ref.place) == ("registry", location, label, place)


def test_an_image_can_be_named_by_its_id() -> None:
    ref = ImageRef.parse(f"docker-daemon:{DIGEST}")
    assert (f"{ref.location}:{ref.tag}", ref.place) == (DIGEST, "docker")


def test_the_prefix_sif_names_a_file() -> None:
    ref = ImageRef.parse("sif:images/x:v1.sif")
    assert (ref.kind, ref.location, ref.label) == ("sif", "images/x:v1.sif", "x:v1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("docker-daemon:", "nothing follows docker-daemon:"),
        ("podman:", "nothing follows podman:"),
        ("docker-daemon://x", "leave docker-daemon:// out"),
        ("docker-daemon:UP/x", "'UP' is no registry"),
        ("containers-storage:[overlay@/var/lib]x", "is no digest"),
        ("a:b/c", "'a:b' is no registry"),
        ("me//x", "'' is no image name"),
        ("me/B/x", "'B' is no image name"),
        ("dir:images/x", "does not read skopeo's dir:"),
        ("library://a/b:c", "apptainer pull image.sif library://a/b:c"),
        ("oras://a/b:c", "apptainer pull image.sif oras://a/b:c"),
        ("singularity:./x.sif", "with --engine singularity"),
        ("apptainer:./x", "with --engine apptainer"),
    ],
)
def test_a_wrong_spelling_is_explained(text: str, says: str) -> None:
    with pytest.raises(UsageError) as told:
        ImageRef.parse(text)
    assert says in told.value.what


def test_an_image_of_one_engine_is_opened_by_no_other() -> None:
    ref = ImageRef.parse("containers-storage:me/x:v1")
    for wanted in (["auto"], ["podman"], ["auto", "podman"]):
        assert [choice.engine for choice in select.choose(ref, wanted)] == ["podman"]
    for wanted in (["docker"], ["podman", "docker"], ["apptainer"]):
        with pytest.raises(UsageError, match="is an image of podman, and --engine says"):
            select.choose(ref, wanted)


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> str:
    if (reason := select.engine(request.param).unusable()) is not None:
        pytest.skip(str(reason))
    return str(request.param)


@pytest.fixture
def built(engine: str) -> Iterator[str]:
    """An image of one file, of this engine alone."""
    name = f"mlcheck-spelling-{uuid.uuid4().hex[:12]}/mini:v9"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("etc/os-release")
        text = b"ID=mini\nVERSION_ID=9\n"
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    load = [engine, "import", "-", name]
    subprocess.run(load, input=packed.getvalue(), check=True, capture_output=True)
    try:
        yield name
    finally:
        subprocess.run([engine, "rmi", "--force", name], check=True, capture_output=True)


def check(directory: Path, *words: str) -> tuple[int, str]:
    (directory / "profiles/mini").mkdir(parents=True, exist_ok=True)
    (directory / "profiles/mini/image.toml").write_text('[os]\nid = "mini"\nversion = "9"\n')
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mlcheck.cli",
            "check",
            *words,
            "--profiles=profiles",
            "-k=os-release",
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    return done.returncode, said


@pytest.mark.slow
def test_an_image_of_an_engine_is_opened_by_it(engine: str, built: str, tmp_path: Path) -> None:
    own = {"docker": "docker-daemon", "podman": "containers-storage"}[engine]
    other = {"docker": "podman", "podman": "docker-daemon"}[engine]
    told = subprocess.run(
        [sys.executable, "-m", "mlcheck.cli", "info", f"{own}:{built}", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(told.stdout)["images"][0]["source"] == engine
    code, said = check(tmp_path, f"{own}:{built}")
    assert (code, f"mini:v9@{engine}" in said) == (0, True), said
    if select.engine({"docker": "podman", "podman": "docker"}[engine]).unusable() is None:
        code, said = check(tmp_path, f"{other}:{built}")
        assert (code, f"has no image {built.partition(':')[0]}" in said) == (4, True), said


@pytest.mark.slow
def test_the_full_name_is_suggested_for_an_id_or_a_missing_tag(
    engine: str, built: str, tmp_path: Path
) -> None:
    """What is there is named, also where the registry cannot be asked."""
    inspect = [engine, "image", "inspect", "--format", "{{.Id}}", built]
    found = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout
    identity = found.strip().removeprefix("sha256:")[:12]
    words = [f"--engine={engine}", "--profile=mini:v9", "--pull=never"]
    code, said = check(tmp_path, identity, *words)
    assert code == 4, said
    assert re.search(f"has an image with that ID: name it (localhost/)?{built}", said), said
    code, said = check(tmp_path, built.partition(":")[0], *words)
    assert code == 4, said
    assert re.search(f"Like it and here: (localhost/)?{built}", said), said


@pytest.mark.slow
def test_a_file_here_is_no_image_of_a_registry(tmp_path: Path) -> None:
    (tmp_path / "mini.tar").touch()
    (tmp_path / "Dockerfile").touch()
    for name in ("mini.tar", "Dockerfile"):
        code, said = check(tmp_path, name)
        assert (code, f"{name!r} is a file here" in said) == (4, True), said
    code, said = check(tmp_path, "./Dockerfile")
    assert (code, "is a file, not a directory" in said) == (4, True), said


@pytest.mark.parametrize(("name", "said"), [("images/one", True), ("images/two", False)])
def test_a_directory_without_a_dot_is_named(
    name: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no registry has may be a directory here, which is written otherwise."""

    class Nothing:
        def prepare(self, ref: ImageRef, **_: object) -> NoReturn:
            raise EngineError(f"could not pull {ref.text}", "Check the network.")

    (tmp_path / "images/one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(select, "engine", lambda _: Nothing())
    with (
        pytest.raises(EngineError) as raised,
        select.prepare(ImageRef.parse(name), "docker"),
    ):
        pass
    hint = f"For the directory of that name, write ./{name}.\n" if said else ""
    assert raised.value.remedy == f"{hint}Check the network."
