"""The image's configuration as apptainer and CVMFS write it into /.singularity.d."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcheck.image import singularity_d
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.image.singularity_d import read_environment
from mlcheck.model.environment import Environment


def shell_escape(text: str) -> str:
    """As apptainer's shell.Escape."""
    for special in '\\"`$':
        text = text.replace(special, f"\\{special}")
    return text


def single_escape(text: str) -> str:
    """As apptainer's shell.EscapeSingleQuotes."""
    return text.replace("'", """'"'"'""")


def go_quote(text: str) -> str:
    """As Go's %q, for texts without control characters."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def imported(root: Path, env: list[str], entrypoint: list[str], cmd: list[str]) -> None:
    """Write what `apptainer build` writes for an OCI image with this configuration."""
    lines = ["#!/bin/sh"]
    for variable in env:
        name, equals, value = variable.partition("=")
        quoted = go_quote(shell_escape(value))
        if not equals:
            lines.append(f'export {name}="${{{name}:-}}"')
        elif name == "PATH":
            lines.append(f"export {name}={quoted}")
        else:
            lines.append(f'export {name}="${{{name}:-{quoted}}}"')
    (root / ".singularity.d/env").mkdir(parents=True, exist_ok=True)
    (root / singularity_d.ENV_FILE[1:]).write_text("\n".join(lines) + "\n")
    script = "#!/bin/sh\n"
    for variable, words in (("OCI_ENTRYPOINT", entrypoint), ("OCI_CMD", cmd)):
        arguments = " ".join(f'"{shell_escape(word)}"' for word in words)
        script += f"{variable}='{single_escape(arguments)}'\n"
    (root / singularity_d.RUNSCRIPT[1:]).write_text(script + 'exec "$@"\n')


def read(root: Path) -> Environment:
    return read_environment(DirectoryRootFS(root))


def test_an_ml_image(tmp_path: Path) -> None:
    env = [
        "PATH=/opt/conda/bin:/usr/bin:/bin",
        "MAMBA_EXE=/bin/micromamba",
        "LANG=C.UTF-8",
        "EMPTY=",
        "UNSET",
    ]
    imported(tmp_path, env, ["/entrypoint.sh"], ["/bin/bash"])
    labels = {"imageVersion": "2025-01", "org.label-schema.schema-version": "1.0"}
    (tmp_path / singularity_d.LABELS[1:]).write_text(json.dumps(labels))
    found = read(tmp_path)
    assert found.env == {
        "PATH": "/opt/conda/bin:/usr/bin:/bin",
        "MAMBA_EXE": "/bin/micromamba",
        "LANG": "C.UTF-8",
        "EMPTY": "",
    }
    assert (found.entrypoint, found.cmd) == (("/entrypoint.sh",), ("/bin/bash",))
    assert found.labels == labels
    assert (found.user, found.workdir, found.exposed) == (None, None, None)
    assert found.problems == ()
    assert found.source == (
        "/.singularity.d/env/10-docker2singularity.sh, /.singularity.d/runscript, "
        "/.singularity.d/labels.json"
    )


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.just("\n"))


@settings(max_examples=100, deadline=None, database=None)
@given(TEXT, TEXT, st.lists(TEXT), st.lists(TEXT))
def test_every_value_survives(
    tmp_path_factory: pytest.TempPathFactory,
    path: str,
    value: str,
    entrypoint: list[str],
    cmd: list[str],
) -> None:
    root = tmp_path_factory.getbasetemp() / "survives"
    imported(root, [f"PATH={path}", f"X={value}", "Y=z"], entrypoint, cmd)
    found = read(root)
    assert found.env == {"PATH": path, "X": value, "Y": "z"}
    assert (found.entrypoint, found.cmd) == (tuple(entrypoint), tuple(cmd))
    assert found.problems == ()


def env_file(root: Path, text: str) -> Environment:
    (root / ".singularity.d/env").mkdir(parents=True)
    (root / singularity_d.ENV_FILE[1:]).write_text(text)
    return read(root)


def test_older_and_other_writers(tmp_path: Path) -> None:
    text = """#!/bin/sh
# a comment

export BARE=/opt/conda
export SINGLE='a "b" $c'
export ESCAPED="cost \\$5 \\`x\\` C:\\\\dir"
export GO="${GO:-"\\u00a0\\x1b[0m\\t"}"
export LAST=1"""
    found = env_file(tmp_path, text)
    assert found.problems == ()
    assert found.env == {
        "BARE": "/opt/conda",
        "SINGLE": 'a "b" $c',
        "ESCAPED": "cost $5 `x` C:\\dir",
        "GO": "\u00a0\x1b[0m\t",
        "LAST": "1",
    }


def test_what_a_shell_would_compute_is_a_problem(tmp_path: Path) -> None:
    text = (
        '#!/bin/sh\nexport PATH="/opt/bin:$PATH"\nexport A="`id`"\nif true; then\n'
        'export B="two\nlines"\nfi\nexport C="open\n'
    )
    found = env_file(tmp_path, text)
    assert found.env == {"B": "two\nlines"}
    where = [problem.path.rpartition(":")[2] for problem in found.problems]
    assert where == ["2", "3", "4", "7", "8"]
    assert "compute at start" in found.problems[0].what


def test_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    found = env_file(tmp_path, f'touch {mark}\nexport X="$(touch {mark})"\n')
    assert len(found.problems) == 2
    assert not mark.exists()


def test_no_configuration(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.env, found.entrypoint, found.cmd, found.labels) == ({}, None, None, None)
    assert "no configuration in /.singularity.d" in found.source
    assert found.problems == ()


def test_empty_entrypoint_and_no_labels(tmp_path: Path) -> None:
    imported(tmp_path, [], [], ["/bin/bash"])
    (tmp_path / singularity_d.LABELS[1:]).write_text("null")
    found = read(tmp_path)
    assert (found.entrypoint, found.cmd, found.labels) == ((), ("/bin/bash",), {})


def test_a_runscript_of_a_definition_file(tmp_path: Path) -> None:
    (tmp_path / ".singularity.d").mkdir()
    (tmp_path / singularity_d.RUNSCRIPT[1:]).write_text("#!/bin/sh\nexec fortune | cowsay\n")
    found = read(tmp_path)
    assert (found.entrypoint, found.cmd, found.problems) == (None, None, ())


@pytest.mark.parametrize("value", ["'\"it's\"'", "'unquoted'", "'\"a\" b'", '"x"', "'\"$x\"'"])
def test_a_malformed_runscript(tmp_path: Path, value: str) -> None:
    (tmp_path / ".singularity.d").mkdir()
    (tmp_path / singularity_d.RUNSCRIPT[1:]).write_text(f"#!/bin/sh\nOCI_CMD={value}\n")
    found = read(tmp_path)
    assert found.cmd is None
    assert [problem.path for problem in found.problems] == ["/.singularity.d/runscript:2"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', "[" * 100_000, "\xff"])
def test_malformed_labels(tmp_path: Path, text: str) -> None:
    (tmp_path / ".singularity.d").mkdir()
    (tmp_path / singularity_d.LABELS[1:]).write_text(text, encoding="latin-1")
    found = read(tmp_path)
    assert found.labels is None
    assert [problem.path for problem in found.problems] == ["/.singularity.d/labels.json"]


def test_hostile_files(tmp_path: Path) -> None:
    (tmp_path / ".singularity.d/env").mkdir(parents=True)
    (tmp_path / singularity_d.ENV_FILE[1:]).symlink_to("/etc/passwd")
    (tmp_path / singularity_d.RUNSCRIPT[1:]).mkdir()
    with (tmp_path / singularity_d.LABELS[1:]).open("wb") as file:
        file.truncate(10**9)
    found = read(tmp_path)
    assert found.env == {}
    whats = [problem.what for problem in found.problems]
    assert whats == [
        "is a symlink to /etc/passwd, which does not exist in the image",
        "is a directory, not a regular file",
        "is larger than 1 MiB",
    ]
