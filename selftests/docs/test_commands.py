"""Every command in the README and the docs is run, and every link in them leads somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlcheck.cli import main as cli
from selftests.checkout import CHECKOUT

DOCS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]

REAL = {
    "IMAGE": "./good",
    "./debian-lab:v1": "./debian-lab:v1",
    "me/notebook:v1": "./notebook:v1",
    "reference:ml-pyroot": "./good",
    "reference:jupyterlab-cpu": "./good",
}
"""What stands in the docs for an image, and the small image that takes its place here. Commands
that judge have the profile of that image, whatever the docs' would be."""


@dataclass(frozen=True)
class Way:
    """How a command of the docs is tried.

    Args:
        pattern: which commands; a regular expression for the whole.
        how: "run"; "collect": with --collect-only, which reads words, options and profiles, and
            opens nothing; "parse": its words are read, and no more; "FILE: WORDS": not here, but
            there, in a line with these words.
        why: why it is not simply run.
        ends: its exit codes. That a rule does not hold for the small image is no fault of the docs.
    """

    pattern: str
    how: str = "run"
    why: str = ""
    ends: tuple[int, ...] = (0,)


_IMAGES = "|".join(map(re.escape, REAL))
_JUDGE = r"(\w+=\S+ )*(mlcheck check|pytest)\b"
WAYS = [
    Way(r"make demo", '.ci/run: make -C "$home/mlcheck" demo', "builds an image"),
    Way(r"make demo DEFECT=rpath", ".ci/run: demo DEFECT=rpath", "builds an image"),
    Way(r"make selftest", ".ci/run: make selftest", "is what runs this test"),
    Way(r"make selftest FAST=1", '.ci/run: make -C "$home/mlcheck" selftest FAST=1', "as well"),
    Way(
        r"make docs", "selftests/docs/test_api.py: api.build(tmp_path)", "needs a clone of its own"
    ),
    Way(r"make test/.*", "Makefile: IMAGE_NAME=", "runs what stands in the line below it"),
    Way(r"(pipx|uvx) .*", "selftests/docs/test_distribution.py: TYPED", "from a clone of this one"),
    Way(
        r"docker load .*",
        'selftests/engines/test_archive.py: [engine, "load", "-i"',
        "needs docker",
    ),
    Way(r"mlcheck reference build .*", "parse", "builds an image, or copies 700 MB"),
    Way(
        r'mlcheck check "\$\(mlcheck reference build .*',
        ".ci/run: demo DEFECT=rpath",
        "builds an image; make demo does the same",
    ),
    Way(
        r"mlcheck (report attest|verify) .*",
        'selftests/engines/test_attestations.py: mlcheck("verify", image.reference',
        "needs a registry",
    ),
    Way(r"mlcheck layers .* --engine docker", "run", "docker is not reached here", (3,)),
    Way(r"mlcheck release .*--on slurm .*", "parse", "needs the settings of a site"),
    Way(rf"mlcheck release ({_IMAGES}) .*", "run", "", (0, 1, 5)),
    Way(rf"{_JUDGE} (.* )?({_IMAGES})( .*)?", "run", "", (0, 1, 5)),
    Way(rf"{_JUDGE}.*", "collect", "its image is large, or not on this machine"),
    Way(r"mlcheck \w+ ?.*"),
    Way(r'git clone "\$MLCHECK_REPOSITORY" mlcheck && cd mlcheck'),
]


@dataclass(frozen=True)
class Command:
    """A command of the docs, without what is said about it behind a `#`."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"


def commands(file: Path) -> Iterator[Command]:
    """Those of its console blocks: lines that begin with `$`, and what continues them."""
    shown, text, start = False, "", 0
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("```"):
            shown = stripped == "```console"
        elif shown and (text or stripped.startswith("$ ")):
            start = start or number
            text += stripped.removeprefix("$ ")
            if text.endswith("\\"):
                text = text[:-1].rstrip() + " "
                continue
            yield Command(file, start, re.sub(r"\s+#\s.*", "", text))
            text, start = "", 0


COMMANDS = [command for file in DOCS for command in commands(file)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_rootfs: Path) -> Path:
    """Where the commands are run: what they name is there."""
    directory = tmp_path_factory.mktemp("docs")
    for name in ("good", "debian-lab:v1", "notebook:v1"):
        shutil.copytree(tiny_rootfs, directory / name, symlinks=True)
    for profiles, name in (
        ("my-profiles", "debian-lab"),
        ("profiles", "notebook"),
        ("others", "good"),
    ):
        (directory / profiles / name).mkdir(parents=True)
        profile = directory / profiles / name / "image.toml"
        profile.write_text('shells = ["/bin/sh"]\n', encoding="utf-8")
    for image, report in (("good", "report"), ("good", "runner-1"), ("notebook:v1", "runner-2")):
        options = ["--profiles=others", "--profile=good", f"--mlcheck-json={report}.json"]
        judged = [sys.executable, "-m", "mlcheck.cli", "check", f"./{image}", "-k", "shells"]
        subprocess.run([*judged, *options], cwd=directory, check=True, capture_output=True)
    return directory


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 30
    assert {command.file.name for command in COMMANDS} >= {"README.md", "first-run.md", "gpu.md"}


def way_of(command: Command) -> Way:
    for way in WAYS:
        if re.fullmatch(way.pattern, command.text):
            return way
    raise AssertionError(f"{command}: say in WAYS how this is tried: {command.text}")


def as_run(command: Command, way: Way) -> str:
    """The command with small images in place of the docs'."""
    text = command.text
    if way.how == "collect":
        return f"{text} --collect-only -q"
    judges = re.match(_JUDGE, text) is not None
    for word, real in REAL.items():
        text = re.sub(rf"(?<![\w/:.]){re.escape(word)}(?![\w:-])", real, text)
    if judges and "--profiles" not in text:
        text += " --profiles others --profile good"
    return text


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command(command: Command, place: Path) -> None:
    way = way_of(command)
    if way.how == "parse":
        words = shlex.split(command.text)[1:]
        assert cli.parser(words).parse_args(words), command
        return
    if way.how not in ("run", "collect"):
        file, _, words_there = way.how.partition(": ")
        assert words_there in (CHECKOUT / file).read_text(encoding="utf-8"), way
        return
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{place}/none",
        "CONTAINER_HOST": f"unix://{place}/none",
        "MLCHECK_REPOSITORY": str(CHECKOUT),
    }
    text = as_run(command, way)
    if re.match(r"(\w+=\S+ )*pytest\b", text):
        env["PYTEST_ADDOPTS"] += f" -c {CHECKOUT}/pytest.toml {CHECKOUT}/tests"
    for written in re.findall(r" -o (\S+)", text):
        (place / written).unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in way.ends, f"{text}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr


def test_every_way_is_needed() -> None:
    used = {way_of(command) for command in COMMANDS}
    assert not [way.pattern for way in WAYS if way not in used]


# Commands in running text and in tables


def inline() -> Iterator[tuple[Path, str]]:
    for file in DOCS:
        if file.name != "errors.md":  # which is full of mistakes; test_errors.py makes them
            text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
            for code in re.findall(r"`(mlcheck [^`]+)`", text):
                yield file, code


def test_inline_commands_and_their_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    found = {(file.name, code) for file, code in inline()}
    assert len(found) > 15
    helps: dict[str, str] = {}
    for file, code in sorted(found):
        words = code.split()[1:]
        if words[0] in ("COMMAND", "--version"):
            continue
        assert words[0] in cli._COMMANDS, f"{file}: {code}"
        # `reference build` and the like have a help of their own.
        below = words[:2] if words[1:2] in (["build"], ["clear"], ["merge"]) else words[:1]
        name = " ".join(below)
        if name not in helps:
            with pytest.raises(SystemExit) as ended:
                cli.main([*below, "--help"])
            assert ended.value.code == 0
            helps[name] = capsys.readouterr().out
        for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", code.partition(" -- ")[0]):
            known = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", helps[name])
            assert known, f"{file}: {code}: there is no {option}"


# Links


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


DECISIONS = sorted((CHECKOUT / "docs/decisions").glob("*.md"))


@pytest.mark.parametrize("file", [*DOCS, *DECISIONS], ids=lambda file: file.name)
def test_links(file: Path) -> None:
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        page = file.parent / path if path else file
        assert page.exists(), f"{file.name}: {target}"
        if anchor:
            assert anchor in anchors(page), f"{file.name}: {target}"


def test_every_page_is_in_the_readme() -> None:
    """A newcomer reads in the README's order; nothing is beside it."""
    linked = set(re.findall(r"\(docs/([\w-]+\.md)", DOCS[0].read_text(encoding="utf-8")))
    assert linked >= {file.name for file in DOCS[1:]}
