"""Scripts of an image are read by this machine's shells, and nothing in them is run."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from mlcheck.machine.shell_syntax import NotRead, here, syntax_error

LIKE_SH = (
    "x=$(touch {})",
    "x=`touch {}`",
    "set +n; touch {}",
    "setopt exec; touch {}",
    "((a[$(touch {})]))",
    "[[ -v a[$(touch {})] ]]",
    "cat <<EOF\n$(touch {})\nEOF",
    "echo a > {}",
    "shopt -s expand_aliases\nalias x='touch {}'\nx",
    "case $(touch {}) in *) ;; esac",
    "for x in `touch {}`; do echo; done",
    "(touch {})",
    "touch {} &",
    "function f { touch {}; }\nf",
)
LIKE_CSH = (
    "set x = `touch {}`",
    "if ({ touch {} }) echo a",
    "if ({ touch {} }) then\necho a\nendif",
    "if (`touch {}` == a) echo a",
    "foreach x (`touch {}`)\necho $x\nend",
    "switch (`touch {}`)\ncase a:\nbreaksw\nendsw",
    "while (`touch {}; echo 0`)\necho b\nend",
    "@ x = `touch {}`",
    "repeat 1 touch {}",
    "unset noexec\ntouch {}",
    "set -n\nunset -n; touch {}",
    "goto `touch {}`",
    "alias precmd 'touch {}'\necho x",
    "cat << EOF\n`touch {}`\nEOF",
    "echo a > {}",
    "(touch {})",
)


@pytest.mark.parametrize(
    ("shell", "text"),
    [
        *((shell, text) for shell in ("bash", "zsh") for text in LIKE_SH),
        *(("csh", text) for text in LIKE_CSH),
    ],
)
def test_nothing_of_a_script_is_run(shell: str, text: str, tmp_path: Path) -> None:
    marker = tmp_path / "run"
    with contextlib.suppress(NotRead):
        syntax_error(text.replace("{}", str(marker)).encode(), shell)
    assert not marker.exists()


@pytest.mark.parametrize("text", LIKE_SH)
def test_it_would_do_something(text: str, tmp_path: Path) -> None:
    marker = tmp_path / "run"
    script = f"{text.replace('{}', str(marker))}\nwait\n"
    subprocess.run(["bash"], input=script, text=True, cwd=tmp_path, check=False)
    assert marker.exists()


@pytest.mark.parametrize(("shell", "program"), [("bash", "bash"), ("zsh", "zsh"), ("csh", "tcsh")])
def test_a_script_that_is_none(shell: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    assert syntax_error(b"echo a\n", shell) is None
    assert syntax_error(b"echo 'a\n", shell)


def test_a_shell_that_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert here() == ()
    with pytest.raises(NotRead, match="this machine has no tcsh"):
        syntax_error(b"echo a\n", "csh")
