"""Settings in a file: where it is found, what it says, and that no image can say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcheck.model.errors import UsageError
from mlcheck.profile import settings

TEXT = 'profiles = ["own"]\npull = "never"\n'


def test_the_nearest_one_holds(tmp_path: Path) -> None:
    below = tmp_path / "a/b"
    below.mkdir(parents=True)
    (tmp_path / "mlcheck.toml").write_text(TEXT)
    found = settings.find(below)
    assert found.file == tmp_path / "mlcheck.toml"
    assert [(one.key, one.values, one.source.line) for one in found.settings] == [
        ("profiles", (str(tmp_path / "own"),), 1),
        ("pull", ("never",), 2),
    ]
    (tmp_path / "a/pyproject.toml").write_text('[project]\nname = "x"\n')
    assert settings.find(below).file == tmp_path / "mlcheck.toml"
    (tmp_path / "a/pyproject.toml").write_text('[tool.mlcheck]\nskip-rule = ["x-*"]\n')
    (setting,) = settings.find(below).settings
    assert setting.words == ["--skip-rule=x-*"]
    assert str(setting.source).endswith("a/pyproject.toml:2")
    (tmp_path / "a/mlcheck.toml").write_text("")
    assert settings.find(below).settings == ()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "mlcheck.toml").write_text(
        'waivers = ["w.toml"]\noutput = ["tap", "json=-", "sarif=out/r.sarif"]\n'
        'bind = ["data:/data", "/x:/y"]\nengine = ["docker", "podman"]\n'
    )
    words = [word for one in settings.find(tmp_path).settings for word in one.words]
    assert words == [
        "--engine=docker",
        "--engine=podman",
        f"--bind={tmp_path}/data:/data",
        "--bind=/x:/y",
        f"--waivers={tmp_path}/w.toml",
        "--output=tap",
        "--output=json=-",
        f"--output=sarif={tmp_path}/out/r.sarif",
    ]


def test_an_image_has_no_say(tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "opt").mkdir(parents=True)
    (image / "mlcheck.toml").write_text(TEXT)
    (image / "opt/pyproject.toml").write_text("[tool.mlcheck]\n")
    link = tmp_path / "link"
    link.symlink_to(image)
    for start in (image, image / "opt", link):
        assert settings.find(start).file is not None
        assert settings.find(start, outside=[link]).file is None
    (tmp_path / "mlcheck.toml").write_text(TEXT)
    found = settings.find(image / "opt", outside=[image])
    assert found.file == tmp_path / "mlcheck.toml"


def test_a_directory_of_everybody_ends_the_search(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mlcheck.toml").write_text(TEXT)
    tmp_path.chmod(0o1777)
    assert settings.find(tmp_path / "mine").file is None
    tmp_path.chmod(0o777)  # a checkout of GitLab's runner
    assert settings.find(tmp_path / "mine").file is not None


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mlcheck.toml", '\nprofile = "x"\nprofils = ["x"]\n', "3: profils: unknown key"),
        ("mlcheck.toml", 'skip_rule = ["x"]\n', "1: skip_rule: unknown key"),
        ("mlcheck.toml", 'engine = "docker"\n', "1: engine: Input should be a valid list"),
        ("mlcheck.toml", 'rule = ["a",\n 3]\n', "2: rule.1: Input should be a valid string"),
        ("mlcheck.toml", 'pull = "sometimes"\n', "1: pull: Input should be 'missing', 'always'"),
        ("mlcheck.toml", "pull = \n", "1: this is not TOML"),
        ("pyproject.toml", "[tool.mlcheck]\npull = 3\n", "2: pull: Input should be"),
        ("pyproject.toml", "[tool]\nmlcheck = 3\n", "2: tool.mlcheck: Input should be a valid"),
    ],
)
def test_a_mistake_names_its_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as raised:
        settings.find(tmp_path)
    assert f"{tmp_path / name}:{words}" in str(raised.value)
