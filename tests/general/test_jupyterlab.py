"""JupyterLab, its kernels and terminals, and the programs that come with it."""

from __future__ import annotations

import shlex

from mlcheck.inspect.jupyter.facts import (
    OF_THE_IMAGE,
    JupyterServer,
    KernelRuns,
    Speech,
    UsersServer,
    in_words,
)
from mlcheck.inspect.system.facts import Shells
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, ShowRun, Verdict, judged, not_tried
from mlcheck.profile.catalog import Profile, promised

_NO_LAB = "JupyterLab does not answer (see jupyterlab-starts)"


@rule("jupyterlab-starts", keys=["jupyterlab"], slow=True)
def test_jupyterlab_starts(lab: JupyterServer, profile: Profile) -> Verdict:
    """JupyterLab starts and answers under its base URL, and nowhere else.

    Why: JupyterHub starts JupyterLab under a base URL of the user's; one that ignores it cannot be
    reached (README of usatlas/ML-Containers, "ML Images in Jupyter";
    https://jupyterhub.readthedocs.io).

    Fix: Start the program by hand, and see its first error; a configuration in the prefix's
    etc/jupyter counts for every user.
    """
    source = profile.source("jupyterlab")
    # The port was free in the run; by hand its default will do.
    show = ShowRun(tuple(word for word in lab.argv if not word.startswith("--port=")))
    command = shlex.join(lab.argv[:1])
    if lab.error is not None and not lab.status:
        finding = Finding(command, lab.error, "answers under its base URL", source, show)
        return judged(1, [finding])
    findings = []
    page, outside = lab.status.get("lab"), lab.status.get("outside")
    if page != 200 or not lab.base_in_page:
        found = in_words(page) if page != 200 else "a page that does not name the base URL"
        expected = "HTTP 200 and a page for this base URL"
        findings.append(Finding("lab under the base URL", found, expected, source, show))
    if outside != 404:
        findings.append(Finding("/lab outside it", in_words(outside), "HTTP 404", source, show))
    if lab.error is not None:
        findings.append(Finding(command, lab.error, "answers", source, show))
    return judged(3, findings, [f"answered after {lab.seconds:.1f} s"])


@rule("jupyterlab-token", keys=["jupyterlab"], slow=True)
def test_jupyterlab_token(lab: JupyterServer, own: UsersServer, profile: Profile) -> Verdict:
    """JupyterLab refuses whoever has not its token, which it makes itself at each start.

    Why: A configuration in the image or in its user's home that switches the token off opens a
    shell to everybody who can reach the port, and a token in the image opens it to everybody who
    has the image (https://jupyter-server.readthedocs.io/en/latest/operators/security.html).

    Fix: Take token and password out of the image's configuration and variables: Jupyter then makes
    a token of its own, or takes that of JUPYTER_TOKEN at the start.
    """
    if not _answers(lab):
        return not_tried(_NO_LAB)
    source = profile.source("jupyterlab")
    show = ShowRun((lab.argv[0], "--show-config"))
    asked = list(lab.doors)
    findings = [
        Finding(question, found, expected, source, show)
        for question, found, expected in asked
        if found is not None
    ]
    if not findings:
        for question, found, expected in own.doors:
            asked.append((question, found, expected))
            if found is not None:
                subject = f"{question}, as the image's user starts it"
                findings.append(Finding(subject, found, expected, source, show))
    if own.token in OF_THE_IMAGE:
        found = "gives every server of the image the same token"
        findings.append(Finding(own.token, found, "a token for each start", source, show))
    if own.error is not None:
        subject = f"{shlex.join(lab.argv[:1])}, as the image's user starts it"
        findings.append(Finding(subject, own.error, "answers", source, show))
    notes = [f"not as the image's user starts it: {own.untried}"] if own.untried else []
    return judged(len(asked), findings, notes)


@rule("jupyterlab-kernels", keys=["jupyterlab.kernel"], slow=True)
def test_jupyterlab_kernels(lab: JupyterServer, kernels: KernelRuns, profile: Profile) -> Verdict:
    """JupyterLab starts a kernel through its API, and the kernel computes.

    Why: The page may appear and no notebook run: the server starts kernels by its own
    configuration, which jupyter_client alone does not see (https://jupyter-server.readthedocs.io).

    Fix: See what the server says when it is asked for a kernel; a configuration in the prefix's
    etc/jupyter counts for every user.
    """
    kernel = promised(profile.expect.jupyterlab).kernel
    if not _answers(lab):
        return not_tried(_NO_LAB)
    if kernel not in kernels.starting:
        return not_tried(f"the kernel {kernel} does not start (see kernels-start)")
    findings = []
    if lab.kernel_error is not None:
        source = profile.source("jupyterlab", "kernel")
        show = ShowRun((lab.argv[0], "--show-config"))
        expected = "starts and computes"
        findings = [Finding(kernel, lab.kernel_error, expected, source, show)]
    return judged(1, findings)


@rule("jupyterlab-terminals", keys=["jupyterlab.terminals"], slow=True)
def test_jupyterlab_terminals(lab: JupyterServer, shells: Shells, profile: Profile) -> Verdict:
    """A terminal in JupyterLab starts with each promised shell, and runs what is typed.

    Why: Users choose bash, zsh or tcsh; start-up files that fail close the terminal at once, which
    no `bash -c` shows (https://jupyter-server.readthedocs.io).

    Fix: Start the shell with -l in a terminal, and see what its start-up files do.
    """
    wanted = promised(profile.expect.jupyterlab).terminals
    if not _answers(lab):
        return not_tried(_NO_LAB)
    mute = {shell.path for shell in shells.shells if not shell.answered}
    compared = [path for path in wanted if path not in mute]
    if not compared:
        return not_tried("none of the shells runs a command (see shells)")
    findings = [
        Finding(path, found, "runs a command", source, ShowRun((path, "-l")))
        for path in compared
        for found in [lab.terminals.get(path, "was not opened")]
        for source in [profile.source("jupyterlab", "terminals")]
        if found is not None
    ]
    return judged(len(compared), findings)


@rule("jupyter-wrappers", keys=["scripts.speaking"], slow=True)
def test_jupyter_wrappers(said: Speech, profile: Profile) -> Verdict:
    """Every program of Jupyter's and IPython's answers to --version or --help: it ends with 0 and
    prints something.

    Why: The edit that turns these scripts into wrappers can delete their Python part: they then end
    with 0 and do nothing (Dockerfiles of usatlas/ML-Containers).

    Fix: Make the script anew: one that ends with 0 and prints nothing has lost its Python part, one
    that ends with an error lacks a package.
    """
    source = profile.source("scripts", "speaking")
    findings = []
    for path, result in said.answers.items():
        if result.ended != "exited" or result.exit_code != 0:
            found = result.how_it_ended
        elif not (result.stdout.strip() or result.stderr.strip()):
            found = "ends with 0 and prints nothing"
        else:
            continue
        show = ShowRun((path, "--version"))
        findings.append(Finding(path, found, "ends with 0 and prints", source, show))
    if not said.answers:
        place = f"{profile.expect.prefix}/bin"
        found = "no program of these names is there"
        wanted = ", ".join(promised(profile.expect.scripts).speaking)
        findings = [Finding(place, found, wanted, source, ShowFile("ls", place))]
    return judged(len(said.answers), findings)


def _answers(lab: JupyterServer) -> bool:
    return lab.status.get("lab") == 200
