"""JupyterLab, its terminals, and the programs that start it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from mlcheck.checks.kernels import starting
from mlcheck.checks.system import answered, how_it_ended
from mlcheck.facts import JupyterServer, KernelRuns, Shells, Speech
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Verdict

STARTS = Rule(
    "jupyterlab-starts",
    "JupyterLab starts and answers under its base URL, and nowhere else.",
    "Start the program by hand, and see its first error; a configuration in the prefix's "
    "etc/jupyter counts for every user.",
    "JupyterHub starts JupyterLab under a base URL of the user's; one that ignores it cannot be "
    'reached (README of usatlas/ML-Containers, "ML Images in Jupyter"; '
    "https://jupyterhub.readthedocs.io).",
    keys=("jupyterlab",),
)
TOKEN = Rule(
    "jupyterlab-token",
    "JupyterLab refuses whoever has not its token.",
    "Take token and password out of the configuration in the image: Jupyter then makes a token "
    "of its own, or takes that of JUPYTER_TOKEN.",
    "A configuration in the image that switches the token off opens a shell to everybody who can "
    "reach the port (https://jupyter-server.readthedocs.io/en/latest/operators/security.html).",
    keys=("jupyterlab",),
)
KERNELS = Rule(
    "jupyterlab-kernels",
    "JupyterLab starts a kernel through its API, and the kernel computes.",
    "See what the server says when it is asked for a kernel; a configuration in the prefix's "
    "etc/jupyter counts for every user.",
    "The page may appear and no notebook run: the server starts kernels by its own "
    "configuration, which jupyter_client alone does not see "
    "(https://jupyter-server.readthedocs.io).",
    keys=("jupyterlab.kernel",),
)
TERMINALS = Rule(
    "jupyterlab-terminals",
    "A terminal in JupyterLab starts with each promised shell, and runs what is typed.",
    "Start the shell with -l in a terminal, and see what its start-up files do.",
    "Users choose bash, zsh or tcsh; start-up files that fail close the terminal at once, which "
    "no `bash -c` shows (https://jupyter-server.readthedocs.io).",
    keys=("jupyterlab.terminals",),
)
WRAPPERS = Rule(
    "jupyter-wrappers",
    "Every program of Jupyter's and IPython's answers to --version or --help: it ends with 0 and "
    "prints something.",
    "Make the script anew: one that ends with 0 and prints nothing has lost its Python part, one "
    "that ends with an error lacks a package.",
    "The edit that turns these scripts into wrappers can delete their Python part: they then end "
    "with 0 and do nothing (Dockerfiles of usatlas/ML-Containers).",
    keys=("scripts.speaking",),
)

_NO_LAB = "JupyterLab does not answer (see jupyterlab-starts)"


def starts(fact: JupyterServer, profile: Profile) -> Verdict:
    """It answers with its page, which knows the base URL; outside it there is nothing."""
    if profile.expect.jupyterlab is None:
        return STARTS.skipped("the profile promises no JupyterLab")
    source = profile.source("jupyterlab")
    # The port was free in the run; by hand its default will do.
    show = ShowRun(tuple(word for word in fact.argv if not word.startswith("--port=")))
    command = shlex.join(fact.argv[:1])
    if fact.error is not None and not fact.status:
        finding = Finding(command, fact.error, "answers under its base URL", source, show)
        return STARTS.judged(1, [finding])
    findings = []
    lab, outside = fact.status.get("lab"), fact.status.get("outside")
    if lab != 200 or not fact.base_in_page:
        found = in_words(lab) if lab != 200 else "a page that does not name the base URL"
        expected = "HTTP 200 and a page for this base URL"
        findings.append(Finding("lab under the base URL", found, expected, source, show))
    if outside != 404:
        findings.append(Finding("/lab outside it", in_words(outside), "HTTP 404", source, show))
    if fact.error is not None:
        findings.append(Finding(command, fact.error, "answers", source, show))
    return STARTS.judged(3, findings, [f"answered after {fact.seconds:.1f} s"])


def token(fact: JupyterServer, profile: Profile) -> Verdict:
    """Without the token, or with a wrong one, neither page nor API is given."""
    if profile.expect.jupyterlab is None:
        return TOKEN.skipped("the profile promises no JupyterLab")
    if not _answers(fact):
        return TOKEN.not_tried(_NO_LAB)
    source = profile.source("jupyterlab")
    show = ShowRun((fact.argv[0], "--show-config"))
    asked = list(doors(fact))
    findings = [
        Finding(question, found, expected, source, show)
        for question, found, expected in asked
        if found is not None
    ]
    return TOKEN.judged(len(asked), findings)


def doors(fact: JupyterServer) -> Iterator[tuple[str, str | None, str]]:
    """Every question that was asked without the right token: what was answered in place of a
    refusal (None: it was refused), and what a refusal is."""
    for question, status in fact.status.items():
        path, _, who = question.partition(" ")
        if who:
            # A page sends a person to its login.
            refusals = (401, 403) if path.startswith("api/") else (302, 401, 403)
            found = None if status in refusals else in_words(status)
            yield question, found, f"HTTP {' or '.join(map(str, refusals))}"


def kernels(fact: JupyterServer, runs: KernelRuns, profile: Profile) -> Verdict:
    """POST api/kernels starts the promised kernel, which answers over its WebSocket."""
    promised = profile.expect.jupyterlab
    if promised is None:
        return KERNELS.skipped("the profile promises no JupyterLab")
    if not _answers(fact):
        return KERNELS.not_tried(_NO_LAB)
    if promised.kernel not in starting(runs):
        return KERNELS.not_tried(f"the kernel {promised.kernel} does not start (see kernels-start)")
    findings = []
    if fact.kernel_error is not None:
        source = profile.source("jupyterlab", "kernel")
        show = ShowRun((fact.argv[0], "--show-config"))
        expected = "starts and computes"
        findings = [Finding(promised.kernel, fact.kernel_error, expected, source, show)]
    return KERNELS.judged(1, findings)


def terminals(fact: JupyterServer, shells: Shells, profile: Profile) -> Verdict:
    """Each shell answers in a terminal; one that runs nothing at all is not compared."""
    promised = profile.expect.jupyterlab
    if promised is None or not promised.terminals:
        return TERMINALS.skipped("the profile promises no terminals")
    if not _answers(fact):
        return TERMINALS.not_tried(_NO_LAB)
    mute = {shell.path for shell in shells.shells if not answered(shell)}
    compared = [path for path in promised.terminals if path not in mute]
    if not compared:
        return TERMINALS.not_tried("none of the shells runs a command (see shells)")
    findings = [
        Finding(path, found, "runs a command", source, ShowRun((path, "-l")))
        for path in compared
        for found in [fact.terminals.get(path, "was not opened")]
        for source in [profile.source("jupyterlab", "terminals")]
        if found is not None
    ]
    return TERMINALS.judged(len(compared), findings)


def wrappers(fact: Speech, profile: Profile) -> Verdict:
    """All programs whose names fit `scripts.speaking` speak."""
    promised = profile.expect.scripts
    if promised is None or not promised.speaking:
        return WRAPPERS.skipped("the profile names no programs that must speak")
    source = profile.source("scripts", "speaking")
    findings = []
    for path, result in fact.answers.items():
        if result.ended != "exited" or result.exit_code != 0:
            found = how_it_ended(result)
        elif not (result.stdout.strip() or result.stderr.strip()):
            found = "ends with 0 and prints nothing"
        else:
            continue
        show = ShowRun((path, "--version"))
        findings.append(Finding(path, found, "ends with 0 and prints", source, show))
    if not fact.answers:
        place = f"{profile.expect.prefix}/bin"
        found = "no program of these names is there"
        wanted = ", ".join(promised.speaking)
        findings = [Finding(place, found, wanted, source, ShowFile("ls", place))]
    return WRAPPERS.judged(len(fact.answers), findings)


def _answers(fact: JupyterServer) -> bool:
    return fact.status.get("lab") == 200


def in_words(status: int | None) -> str:
    """An HTTP status."""
    return "no answer" if status is None else f"HTTP {status}"
