"""Variables of scripts, compared with what bash makes of the same text."""

from __future__ import annotations

import shlex
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from mlcheck.inspect.server.shell_scripts import _commands
from mlcheck.inspect.server.shell_variables import Variables

ENV = {"HOME": "/home/me", "TOOLS": "/opt/tools", "EMPTY": ""}
NAMES = ("A", "B", "TOOLS", "EMPTY")
_words = st.sampled_from(
    [
        *("/x", "$A", "${A}/y", "$TOOLS/z", "${B:-/d}", "${B-/d}", "${EMPTY:-/e}", "${EMPTY-/e}"),
        *("${A:-${B:-/n}}", "${B:=/s}", "${TOOLS:-/t}", "$(echo /c)"),
    ]
)
_lines = st.one_of(
    st.builds("{}={}".format, st.sampled_from(NAMES), _words),
    st.builds("export {}={}".format, st.sampled_from(NAMES), _words),
    st.builds('{}="{}"'.format, st.sampled_from(NAMES), _words),
    st.builds(": {}".format, _words),
    st.builds("{}={} true".format, st.sampled_from(NAMES), _words),
    st.builds("if true; then {}={}; fi".format, st.sampled_from(NAMES), _words),
    st.builds("for {} in /1 /2; do true; done".format, st.sampled_from(NAMES)),
    st.builds("unset {}".format, st.sampled_from(NAMES)),
)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(_lines, max_size=6), word=_words)
def test_what_is_known_is_what_bash_says_compared(lines: list[str], word: str) -> None:
    text = "\n".join(lines)
    variables = Variables(ENV)
    for _, words, _ in _commands(text):
        variables.read(words)
    known = variables.expanded(word)
    done = subprocess.run(
        ["/bin/bash", "-c", f'{text}\nprintf %s "{word}"'],
        env=ENV,
        capture_output=True,
        text=True,
        check=True,
    )
    assert known in (None, done.stdout), (text, shlex.quote(word))


def test_variables_of_variables_do_not_grow_without_end() -> None:
    variables = Variables({"LONG": "l" * 100_000, "NEST": "${NONE:-$A}" * 300})
    variables.read(["A=" + "a" * 4000])
    for before, name in ("AB", "BC", "CD"):
        variables.read([f"{name}=" + f"${before}" * 1000])
    assert variables.expanded("$A") == "a" * 4000
    for word in ("$B", "$D", "$LONG", "$A" * 3000, "$NEST" * 500):
        assert variables.expanded(word) is None
