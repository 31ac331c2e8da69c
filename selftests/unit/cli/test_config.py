"""`mlcheck config`, and how settings and what is typed come together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlcheck.cli import config
from mlcheck.cli import main as cli
from mlcheck.model.errors import UsageError

TEXT = 'profiles = ["own"]\nengine = ["docker"]\npull = "never"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mlcheck.toml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_holds_is_printed_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config"]) == 0
    said = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert said["profiles"] == [str(project / "own"), "(mlcheck.toml:1)"]
    assert said["output"] == ["-"]
    assert cli.main(["config", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["pull"] == {"values": ["never"], "source": "mlcheck.toml:3"}
    (project / "mlcheck.toml").unlink()
    assert cli.main(["config"]) == 0
    assert "no mlcheck.toml here or above" in capsys.readouterr().out


def test_what_is_typed_replaces_it(project: Path) -> None:
    own = f"--profiles={project / 'own'}"
    assert config.words(["me/x:v1"]) == [own, "--engine=docker", "--pull=never"]
    typed = ["me/x:v1", "--engine", "podman", "--profiles=others"]
    assert config.words(typed) == ["--pull=never"]


def test_other_commands_have_profiles_and_pull_of_it(project: Path) -> None:
    parsed = cli._parsed(["facts", "./x", "--json"])
    assert (parsed.profiles, parsed.pull, parsed.engine) == (
        [str(project / "own")],
        "never",
        "auto",
    )
    assert cli._parsed(["explain", "--profiles", "others"]).profiles == ["others"]
    assert cli._parsed(["doctor"])


@pytest.mark.parametrize("words", [["."], ["--image", "."], ["--image=."], ["oci:."]], ids=" ".join)
def test_the_directory_of_an_image_is_not_searched(project: Path, words: list[str]) -> None:
    assert config.words(words) == []
    assert config.words(["./none", "--profiles", "."]) == ["--engine=docker", "--pull=never"]


def test_an_engine_that_there_is_not_names_its_line(project: Path) -> None:
    (project / "mlcheck.toml").write_text('pull = "never"\nengine = ["dokcer"]\n')
    with pytest.raises(UsageError, match=r"mlcheck\.toml:2: engine: there is no engine 'dokcer'"):
        config.words(["./x"])
