"""root-config."""

from __future__ import annotations

import re

from mlcheck.checks.system import how_it_ended
from mlcheck.facts import RootConfig
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Verdict

LIBS = Rule(
    "root-config",
    "`root-config --libs` names the libraries that a ROOT application must link, as whole words.",
    "Add the word to the libraries in root-config; -lzstd is not -lz.",
    "Without -lz an application links the system's libz, which does not fit ROOT's; a test that "
    'looks for the letters is content with -lzstd (README of usatlas/ML-Containers, "Missing '
    'libz in root-config").',
    keys=("root_config",),
)


def libs(fact: RootConfig, profile: Profile) -> Verdict:
    """The words of `root_config.libs` are in the answer, or in the script if it cannot run."""
    expected = profile.expect.root_config
    if expected is None:
        return LIBS.skipped("the profile promises no root-config")
    source = profile.source("root_config", "libs")
    show: ShowRun | ShowFile = ShowRun(("root-config", "--libs"))
    notes: list[str] = []
    findings = [
        Finding(p.path, p.what, "a readable script", show=ShowFile("ls -l", p.path))
        for p in fact.problems
    ]
    if fact.path is None:
        found = "not on the image's PATH"
        findings.append(Finding("root-config", found, "a program", source, show))
    elif fact.run is not None and (fact.run.exit_code != 0 or fact.run.ended != "exited"):
        found = how_it_ended(fact.run)
        findings.append(Finding("root-config", found, "ends with 0", source, show))
    elif not findings:
        if fact.run is not None:
            text = fact.run.stdout
            shown = text.strip()[:300] or "nothing"
        else:
            text = fact.text or ""
            shown = f"no such word in {fact.path}"
            show = ShowFile("cat -v", fact.path)
            notes.append("root-config was read, not run: nothing can be started here")
        words = set(re.split(r"""[\s"'`;()]+""", text))
        for index, word in enumerate(expected.libs):
            if word not in words:
                source = profile.source("root_config", "libs", index)
                findings.append(Finding(word, shown, f"the word {word}", source, show))
    # Without promised words it has to answer.
    return LIBS.judged(len(expected.libs) or 1, findings, notes)
