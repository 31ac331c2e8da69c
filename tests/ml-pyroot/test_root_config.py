"""root-config, which names libz so that the system's incompatible one is not used."""

from __future__ import annotations

import itertools
import re

from mlcheck.inspect.root.facts import RootConfig
from mlcheck.model.command import CommandResult
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, ShowRun, Verdict, judged
from mlcheck.profile.catalog import Profile, promised

_SHOWN = 300
"""Characters of an answer."""


@rule("root-config", keys=["root_config"])
def test_root_config(said: RootConfig, profile: Profile) -> Verdict:
    """`root-config --libs` names the libraries that a ROOT application must link, as whole words.

    Why: Without -lz an application links the system's libz, which does not fit ROOT's; a test that
    looks for the letters is content with -lzstd (README of usatlas/ML-Containers, "Missing libz in
    root-config").

    Fix: Add the word to the libraries in root-config; -lzstd is not -lz.
    """
    expected = promised(profile.expect.root_config)
    source = profile.source("root_config", "libs")
    show: ShowRun | ShowFile = ShowRun(("root-config", "--libs"))
    notes: list[str] = []
    findings = [
        Finding(p.path, p.what, "a readable script", show=ShowFile("ls -l", p.path))
        for p in said.problems
    ]
    if said.path is None:
        found = "not on the image's PATH"
        findings.append(Finding("root-config", found, "a program", source, show))
    elif failed := [run for run in (said.run, said.at_home) if run and not _succeeded(run)]:
        found = failed[0].how_it_ended
        findings.append(Finding("root-config", found, "ends with 0", source, show))
    elif not findings:
        if said.run is not None:
            answers = [(_linked(said.run.stdout), _shown(said.run.stdout))]
            if said.at_home is not None and said.at_home.stdout != said.run.stdout:
                shown = f"for a user with another home: {_shown(said.at_home.stdout)}"
                answers.append((_linked(said.at_home.stdout), shown))
        else:
            words = frozenset(re.split(r"""[\s"'`;()]+""", said.text or ""))
            answers = [(words, f"no such word in {said.path}")]
            show = ShowFile("cat -v", said.path)
            notes.append("root-config was read, not run: nothing can be started here")
        for index, word in enumerate(expected.libs):
            source = profile.source("root_config", "libs", index)
            missing = [shown for words, shown in answers if word not in words]
            if missing:
                findings.append(Finding(word, missing[0], f"the word {word}", source, show))
    # Without promised words it has to answer.
    return judged(len(expected.libs) or 1, findings, notes)


def _succeeded(run: CommandResult) -> bool:
    return run.ended == "exited" and run.exit_code == 0


def _linked(text: str) -> frozenset[str]:
    """The words of an answer as a linker gets them from `$(root-config --libs)`: a shell splits the
    answer at blanks and takes no quotes away; a compiler splits what follows -Wl at commas."""
    words: list[str] = []
    for word in text.split():
        words += word.split(",")[1:] if word.startswith("-Wl,") else [word]
    words = [word for word in words if word != "-Xlinker"]
    # A library may be a word of its own: `-l z`.
    apart = {f"-l{name}" for option, name in itertools.pairwise(words) if option == "-l"}
    return frozenset(words) | apart


def _shown(text: str) -> str:
    """The end of an answer, where libraries of the system stand."""
    words = " ".join(text.split())
    return (words if len(words) <= _SHOWN else f"... {words[-_SHOWN:]}") or "nothing"
