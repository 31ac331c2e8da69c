"""Scripts that a shell hands on, compared with what the shell does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.system import probe as system

PRINTS = '#!/bin/sh\necho run "$1"\n'
LONG = "x" * 140
RELOCATABLE = '"$(dirname -- "$(realpath -- "$0")")"'


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\nprint()\n",
        "#!/bin/sh\n'''exec' '{python}' \"$0\" \"$@\"\n' '''\nprint()\n",
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\" #'''\nprint()\n",
        '#!/bin/bash\n"exec" "{python}" "$0" "$@"\nprint()\n',
        "#!/usr/bin/env bash\n# -*- coding: utf-8 -*-\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
        "#!/bin/sh\n'''exec' " + RELOCATABLE + "/'python' \"$0\" \"$@\"\n' '''\n",
        "#!/bin/sh\n'''exec' \"$(dirname \"$0\")/python\" \"$0\" \"$@\"\n' '''\n",
        '#!/bin/sh\nexec {python} -x "$0" "$@"\n',
        '#!/bin/sh\nset -e\nexec {python} "$0" "$@"\n',
    ],
)
def test_the_interpreter_compared_with_the_shell(text: str, there: bool, tmp_path: Path) -> None:
    directory = tmp_path / LONG / "bin"
    directory.mkdir(parents=True)
    python = directory / "python"
    if there:
        python.write_text(PRINTS)
        python.chmod(0o755)
    tool = directory / "tool"
    tool.write_text(text.format(python=python))
    tool.chmod(0o755)
    done = subprocess.run([tool], capture_output=True, text=True, check=False)
    ran = done.returncode == 0 and done.stdout.startswith("run ")
    found = system.scripts(DirectoryRootFS(Path("/")), str(directory.parent), "/usr/bin:/bin")
    (script,) = (script for script in found.scripts if script.path.endswith("/tool"))
    assert (script.resolved == str(python)) == ran == there
    assert script.line > 1


@pytest.mark.parametrize(
    "text",
    [
        '#!/bin/sh\necho hello\nexec /gone/python "$0"\n',
        '#!/bin/sh\nexec /gone/program "$@"\n',
        '#!/bin/sh\nexec "$PYTHON" "$0" "$@"\n',
        "#!/bin/sh\n'''exec' \"unclosed\n",
        "#!/usr/bin/python3\n'''exec' /gone/python \"$0\"\n'''\n",
    ],
)
def test_other_scripts_have_the_interpreter_of_their_first_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/tool"
    tool.write_text(text)
    found = system.scripts(DirectoryRootFS(Path("/")), str(tmp_path), "/usr/bin:/bin")
    assert [(one.line, one.interpreter) for one in found.scripts] == [
        (1, (text.partition("\n")[0][2:],))
    ]
