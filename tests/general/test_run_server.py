"""The server of an image that is run without a command."""

from __future__ import annotations

import shlex

from mlcheck.inspect.jupyter.facts import OF_THE_IMAGE, RunServer, in_words
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowRun, Verdict, judged, not_tried
from mlcheck.profile.catalog import Profile


@rule("run-url", keys=["run_server"], slow=True)
def test_run_url(server: RunServer, profile: Profile) -> Verdict:
    """Run without a command, the image prints the address of its JupyterLab with a token, and
    JupyterLab answers there.

    Why: `singularity run IMAGE` prints the address that the user opens in a browser (README of the
    prototype of ATLAS Jupyter, "How to build and use").

    Fix: Start jupyter-lab at the end of the runscript or entrypoint, with a token that it makes
    itself, and let its messages through.
    """
    source = profile.source("run_server", "url")
    show = ShowRun(server.argv) if server.argv else None
    subject = shlex.join(server.argv) or "the image"
    findings = []
    if server.error is not None:
        findings.append(Finding(subject, server.error, "prints its address", source, show))
    # The address itself may lead on to a page.
    for question, good in (("address", (200, 302)), ("lab", (200,)), ("api/kernels", (200,))):
        if question in server.status and server.status[question] not in good:
            expected = f"HTTP {' or '.join(map(str, good))}"
            found = in_words(server.status[question])
            findings.append(Finding(question, found, expected, source, show))
    return judged(len(server.status), findings, [f"after {server.seconds:.1f} s"])


@rule("run-token", keys=["run_server"], slow=True)
def test_run_token(server: RunServer, profile: Profile) -> Verdict:
    """The JupyterLab that the image starts refuses whoever has not its token.

    Why: The server listens on a machine that others use too: its token is all that keeps them out
    (README of the prototype of ATLAS Jupyter;
    https://jupyter-server.readthedocs.io/en/latest/operators/security.html).

    Fix: Set neither an empty token nor an empty password where the runscript or entrypoint starts
    jupyter-lab.
    """
    if not server.status:
        return not_tried("the image starts no server (see run-url)")
    source, show = profile.source("run_server", "url"), ShowRun(server.argv)
    asked = list(server.doors)
    findings = [
        Finding(question, found, expected, source, show)
        for question, found, expected in asked
        if found
    ]
    if server.token in OF_THE_IMAGE:
        found = "gives every server of the image the same token"
        findings.append(Finding(server.token, found, "a token for each start", source, show))
    return judged(len(asked), findings)
