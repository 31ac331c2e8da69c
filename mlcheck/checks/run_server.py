"""The server that an image starts by itself."""

from __future__ import annotations

import shlex

from mlcheck.checks.jupyterlab import doors, in_words
from mlcheck.facts import JupyterServer
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowRun, Verdict

URL = Rule(
    "run-url",
    "Run without a command, the image prints the address of its JupyterLab with a token, and "
    "JupyterLab answers there.",
    "Start jupyter-lab at the end of the runscript or entrypoint, with a token that it makes "
    "itself, and let its messages through.",
    "`singularity run IMAGE` prints the address that the user opens in a browser (README of the "
    'prototype of ATLAS Jupyter, "How to build and use").',
    keys=("run_server",),
)
TOKEN = Rule(
    "run-token",
    "The JupyterLab that the image starts refuses whoever has not its token.",
    "Set neither an empty token nor an empty password where the runscript or entrypoint starts "
    "jupyter-lab.",
    "The server listens on a machine that others use too: its token is all that keeps them out "
    "(README of the prototype of ATLAS Jupyter; "
    "https://jupyter-server.readthedocs.io/en/latest/operators/security.html).",
    keys=("run_server",),
)


def url(fact: JupyterServer | None, profile: Profile) -> Verdict:
    """The promised address is printed; page and API answer there with its token."""
    if fact is None:
        return URL.skipped("the profile promises no server that the image starts")
    source = profile.source("run_server", "url")
    show = ShowRun(fact.argv) if fact.argv else None
    subject = shlex.join(fact.argv) or "the image"
    findings = []
    if fact.error is not None:
        findings.append(Finding(subject, fact.error, "prints its address", source, show))
    # The address itself may lead on to a page.
    for question, good in (("address", (200, 302)), ("lab", (200,)), ("api/kernels", (200,))):
        if question in fact.status and fact.status[question] not in good:
            expected = f"HTTP {' or '.join(map(str, good))}"
            found = in_words(fact.status[question])
            findings.append(Finding(question, found, expected, source, show))
    return URL.judged(len(fact.status), findings, [f"after {fact.seconds:.1f} s"])


def token(fact: JupyterServer | None, profile: Profile) -> Verdict:
    """Neither page nor API is given without the token."""
    if fact is None:
        return TOKEN.skipped("the profile promises no server that the image starts")
    if not fact.status:
        return TOKEN.not_tried("the image starts no server (see run-url)")
    source, show = profile.source("run_server", "url"), ShowRun(fact.argv)
    asked = list(doors(fact))
    findings = [
        Finding(question, found, expected, source, show)
        for question, found, expected in asked
        if found
    ]
    return TOKEN.judged(len(asked), findings)
