"""The `mlcheck` command: facts, exec, exit codes and messages."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest

from mlcheck import __version__
from mlcheck.cli import main as cli
from selftests import archives, reports


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, tiny_rootfs: Path) -> Path:
    root = tmp_path_factory.mktemp("cli") / "mini:v1"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    (root / "list-of-pkgs-inside.txt").write_text("numpy 1.26.4\n")
    (root / "etc/os-release").write_text('ID=mini\nNAME="\x1b[31mred"\n')
    return root


def mlcheck(
    *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mlcheck.cli", *arguments],
        input=stdin,
        env={**os.environ, **(env or {})},
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlcheck", "-V"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout == f"mlcheck {__version__}\n".encode()


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("image", {"shells": ["/bin/sh"]}, {"shels": []}),
        ("config", {"profiles": ["own"], "skip-rule": ["x"]}, {"skip_rule": ["x"]}),
        ("waivers", {"waivers": []}, {"waivers": [{"check": "x"}]}),
        ("report", json.loads(reports.small().model_dump_json()), {}),
    ],
)
def test_a_schema_is_printed(
    capsys: pytest.CaptureFixture[str], name: str, good: object, bad: object
) -> None:
    assert cli.main(["schema", name]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema)


def test_facts_as_json(image: Path) -> None:
    names = ["package-list", "os-release"]
    done = mlcheck("facts", str(image), "--json", *(f"--probe={name}" for name in names))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert set(facts) == set(names)
    assert facts["package-list"]["entries"] == [{"name": "numpy", "version": "1.26.4", "line": 1}]
    assert facts["os-release"]["fields"]["ID"] == "mini"


def test_facts_for_people_cannot_steer_the_terminal(image: Path) -> None:
    done = mlcheck("facts", str(image), "--probe", "os-release")
    assert done.returncode == 0
    assert b"    ID: mini\n" in done.stdout
    assert b"\x1b" not in done.stdout


STEERS = "numpy\n::set-output name=x::y\n  ::error::z\n##[add-path]/evil\x1b[31m\u202e"
"""A name with commands of GitHub's runner, for a terminal, and for a reader's eyes."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, tiny_rootfs: Path) -> Path:
    """A directory that holds an image, an archive of it, and a report, whose texts are commands."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "other:v1/etc").mkdir(parents=True)
    root = place / "mini:v1"
    shutil.copytree(tiny_rootfs, root, symlinks=True)
    record = {"name": STEERS, "version": STEERS, "build": "0", "build_number": 0, "files": [STEERS]}
    (root / "opt/conda/conda-meta").mkdir(parents=True)
    (root / "opt/conda/conda-meta/evil-1-0.json").write_text(json.dumps(record))
    (root / "opt/conda/conda-meta/history").touch()
    (root / "etc/os-release").write_text(f"ID=mini\nNAME={json.dumps(STEERS)}\n")
    layer = archives.layer(archives.member(STEERS.replace("/", "_"), b"x"))
    config = {"Labels": {STEERS: STEERS, "maintainer": STEERS}}
    history = [{"created_by": STEERS}]
    archives.docker_archive(place / "image.tar", [layer], config=config, history=history)
    (place / "report.json").write_text(reports.hostile().model_dump_json())
    return place


@pytest.mark.parametrize(
    "words",
    [
        "packages mini:v1",
        "packages mini:v1 --json",
        "facts mini:v1 --probe os-release --probe conda-files --probe environments",
        "facts mini:v1 --json",
        "diff mini:v1 other:v1",
        "diff mini:v1 other:v1 --json",
        "layers docker-archive:image.tar",
        "layers docker-archive:image.tar --json",
        "info docker-archive:image.tar",
        "info docker-archive:image.tar --json",
        "info docker-archive:none.tar##[x]",
        "snapshot mini:v1",
        "snapshot mini:v1 --json",
        "report text report.json",
        "report html report.json",
        "report junit report.json",
        "report merge report.json",
    ],
)
def test_no_text_of_an_image_is_a_command(
    hostile: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for GitHub's runner, which reads both outputs, nor for a terminal."""
    monkeypatch.chdir(hostile)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    done = mlcheck(
        *words.replace(" mini", " ./mini").replace(" other", " ./other").split(),
        env={"GITHUB_ACTIONS": "true"},
    )
    assert b"Traceback" not in done.stderr
    said = (done.stdout + done.stderr).decode()
    assert "##[" not in said
    for line in said.split("\n"):
        assert not line.lstrip().startswith("::"), line
        assert not [char for char in line if unicodedata.category(char) == "Cc" and char != "\t"]
    if "--json" in words:
        json.loads(done.stdout)


def test_all_facts_of_an_image_without_much_in_it(image: Path) -> None:
    done = mlcheck("facts", str(image), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["python"]["info"] is None


def test_exec_passes_bytes_and_exit_code_on(image: Path) -> None:
    done = mlcheck(
        "exec", str(image), "--", "sh", "-c", "cat; echo err >&2; exit 7", stdin=b"\x00a"
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\x00a", b"err\n")


@pytest.mark.slow
def test_exec_of_a_command_without_an_end(image: Path) -> None:
    done = mlcheck("exec", "--limit", "0.5", str(image), "--", "sleep", "1000")
    assert done.returncode == 124
    assert b"ended by a limit (timeout)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["facts", "./no/such/dir"], "there is no directory"),
        (["facts", "x:y:z"], "is no tag"),
        (["facts", "reference:nothing"], "no reference image"),
        (["exec", "/dev", "--", "true"], "holds no image"),
        (["reference", "build", "ml-base", "--defect", "nothing"], "nothing"),
        (["reference", "build", "ml-base:alma9-python27"], "alma9-python27"),
        (["facts", "--probe", "nothing", "."], "nothing"),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_2(arguments: list[str], words: str) -> None:
    done = mlcheck(*arguments)
    assert done.returncode == 4, done.stderr
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(image: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m mlcheck.cli facts '{image}' --probe elf | true"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.slow
def test_doctor_says_what_works_and_what_helps(tmp_path: Path) -> None:
    elsewhere = {
        "DOCKER_HOST": f"unix://{tmp_path}/none",
        "CONTAINER_HOST": f"unix://{tmp_path}/no",
    }
    done = mlcheck("doctor", "--json", env=elsewhere)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    engines = {engine["engine"]: engine for engine in said["engines"]}
    assert list(engines) == ["docker", "podman", "apptainer", "singularity", "sandbox", "archive"]
    for name, place in (("docker", "none"), ("podman", "no")):
        assert not engines[name]["usable"]
        assert f"nothing answers at unix://{tmp_path}/{place}" in engines[name]["what"]
        assert engines[name]["remedy"]
    assert engines["sandbox"]["usable"]
    assert said["auto"]["directory"] == "sandbox"
    assert said["auto"]["registry"] not in ("docker", "podman")
    plain = mlcheck("doctor", env=elsewhere)
    assert plain.returncode == 0
    assert f"docker: cannot be used here: {engines['docker']['what']}" in plain.stdout.decode()


@pytest.mark.engine("docker", "podman", "apptainer")
def test_doctor_where_all_is_there() -> None:
    said = json.loads(mlcheck("doctor", "--json").stdout)
    usable = {engine["engine"] for engine in said["engines"] if engine["usable"]}
    assert usable >= {"docker", "podman", "apptainer", "sandbox"}
    assert said["auto"] == {
        "directory": "sandbox",
        "reference": "sandbox",
        "sif": "apptainer",
        "registry": "docker",
        "docker-archive": "docker",
        "oci-archive": "podman",
        "oci": "podman",
    }


@pytest.mark.engine("apptainer")
def test_facts_and_exec_by_another_engine(tiny_rootfs: Path) -> None:
    options = ("--engine", "apptainer", str(tiny_rootfs))
    facts = mlcheck("facts", "--probe", "os-release", "--json", *options)
    assert facts.returncode == 0, facts.stderr
    assert b"Tiny" in facts.stdout
    done = mlcheck("exec", *options, "--", "sh", "-c", "echo $APPTAINER_NAME; exit 3")
    assert (done.returncode, bool(done.stdout.strip())) == (3, True)
    wrong = mlcheck("exec", "--engine", "docker", str(tiny_rootfs), "--", "true")
    assert wrong.returncode == 4
    assert b"which docker does not open" in wrong.stderr


@pytest.mark.parametrize("command", sorted(cli._COMMANDS))
def test_help_has_examples_that_are_right(command: str) -> None:
    """As the parser of the command reads them; the text is as wide as a terminal."""
    done = mlcheck(command, "--help", env={"COLUMNS": "80"})
    text = done.stdout.decode()
    assert done.returncode == 0
    assert max(map(len, text.splitlines())) <= 100
    examples = re.findall(rf"^ +(?:eval \"\$\()?mlcheck {command}\b([^>\n)]*)", text, re.M)
    assert examples, "no examples"
    if command == "check":
        return  # pytest reads its words
    for example in examples:
        words = shlex.split(example.partition("   ")[0], comments=True)
        cli.parser([command]).parse_args([command, *words])


@pytest.mark.slow
def test_json_has_no_colours() -> None:
    assert json.loads(mlcheck("doctor", "--json", env={"FORCE_COLOR": "1"}).stdout)


IN_COLOUR = b"\x1b["


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "", "NO_COLOR": ""}, False),
    ],
)
def test_colours_of_a_pipe(env: dict[str, str], coloured: bool) -> None:
    doctor = mlcheck("doctor", env=env)
    assert (IN_COLOUR in doctor.stdout) == coloured


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_of_a_terminal(env: dict[str, str], coloured: bool) -> None:
    reader, terminal = pty.openpty()
    try:
        kept = {name: os.environ[name] for name in os.environ if "COLOR" not in name}
        subprocess.run(
            [sys.executable, "-m", "mlcheck.cli", "doctor"],
            env={**kept, **env},
            stdout=terminal,
            check=True,
        )
        assert (IN_COLOUR in os.read(reader, 65536)) == coloured
    finally:
        os.close(reader)
        os.close(terminal)


def test_clearing_the_cache_as_json(tmp_path: Path) -> None:
    for words in (["clear", "--json"], ["--json", "clear"], ["clear", "--reference", "--json"]):
        done = mlcheck("cache", *words, env={"MLCHECK_CACHE_DIR": str(tmp_path)})
        assert json.loads(done.stdout) == {
            "facts": {"removed": 0},
            "reference": {"removed": 0, "in_use": 0},
        }
