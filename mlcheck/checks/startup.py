"""How the image starts: configuration, entrypoint, banner."""

from __future__ import annotations

import re

from mlcheck.checks.system import how_it_ended
from mlcheck.facts import Banner, CommandResult, EntrypointRuns, Environment, ResolvedFile
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowMlcheck, ShowRun, Verdict

ENVIRONMENT = Rule(
    "environment",
    "The image's configuration sets the promised variables.",
    "Set the variable with ENV in the image's build.",
    "What is in PATH and in CONDA_PREFIX decides which Python runs, for everybody who does not "
    'start a login shell (README of usatlas/ML-Containers, "Image Content").',
    keys=("environment",),
)
ENTRYPOINT = Rule(
    "entrypoint",
    "The image starts by the promised entrypoint, and the engine can execute it.",
    "Correct ENTRYPOINT and CMD, and make the script executable, in the image's build.",
    "An entrypoint that is missing or not executable keeps the container from starting at all "
    "(https://github.com/opencontainers/image-spec/blob/main/config.md#properties).",
    keys=("entrypoint",),
)
ENTRYPOINT_COMMAND = Rule(
    "entrypoint-command",
    "The entrypoint runs the command behind it with all its words, and ends with its exit code: "
    "otherwise `docker run IMAGE bash -c ...` in somebody's CI is green whatever happens.",
    'End the entrypoint with `exec "$@"`, with the quotes.',
    "The entrypoints of usatlas/ML-Containers lose words and exit code: `docker run IMAGE bash "
    '-c "exit 7"` ends with 0.',
    keys=("entrypoint",),
)
CONFIGURATION = Rule(
    "configuration",
    "The image's configuration has the promised labels, and sets USER, WORKDIR and EXPOSE as "
    "promised.",
    "Correct LABEL, USER, WORKDIR and EXPOSE in the image's build.",
    "Labels tell of which build an image is; USER, WORKDIR and EXPOSE decide how a platform "
    "starts it (https://github.com/opencontainers/image-spec/blob/main/config.md#properties).",
    keys=("configuration",),
)
BANNER = Rule(
    "entrypoint-banner",
    "On start the image says where its list of packages is and how to add to it, in the way that "
    "works there, and is silent when asked to be.",
    "Correct the script of the banner, and source it in the entrypoint.",
    "The banner is the one page of help that every user sees; `micromamba install` in it is "
    'wrong where the image cannot be written (README of usatlas/ML-Containers, "Extension of ML '
    'Image Envs").',
    keys=("banner",),
)
ACTIVATION = Rule(
    "entrypoint-activation",
    "The entrypoint activates the environment if, and only if, that is promised.",
    "Activate in the entrypoint, or leave it out there: ENV in the image's build is enough.",
    "Between its generations usatlas/ML-Containers changed whether the entrypoint activates: "
    "what users see in their prompt and CONDA_SHLVL follows from it.",
    keys=("entrypoint.activates",),
)

CONFIGURED = ShowMlcheck("facts", ("--probe", "environment"))
"""How a person sees an image's configuration, wherever the engine has it."""

_ACTIVE = ("CONDA_DEFAULT_ENV", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER")
"""What activating sets: https://docs.conda.io/projects/conda/en/latest/dev-guide/deep-dives/activation.html"""


def environment(fact: Environment, profile: Profile) -> Verdict:
    """The variables of `environment`."""
    expected = profile.expect.environment
    if not expected.equals and not expected.starts:
        return ENVIRONMENT.skipped("the profile promises no variable")
    findings = [
        Finding(p.path, p.what, "a readable configuration", show=ShowFile("ls -l", p.path))
        for p in fact.problems
    ]
    for name, value in expected.equals.items():
        found = fact.env.get(name)
        if found != value:
            source = profile.source("environment", "equals", name)
            findings.append(Finding(name, _value(found, fact), value, source, CONFIGURED))
    for name, entries in expected.starts.items():
        found = fact.env.get(name)
        if found is None or tuple(found.split(":")[: len(entries)]) != entries:
            source = profile.source("environment", "starts", name)
            wanted = f"begins with {':'.join(entries)}"
            findings.append(Finding(name, _value(found, fact), wanted, source, CONFIGURED))
    return ENVIRONMENT.judged(len(expected.equals) + len(expected.starts), findings)


def entrypoint(config: Environment, script: ResolvedFile | None, profile: Profile) -> Verdict:
    """ENTRYPOINT and CMD, and that the file behind argv[0] is executable."""
    expected = profile.expect.entrypoint
    if expected is None:
        return ENTRYPOINT.skipped("the profile promises no entrypoint")
    findings = []
    show = ShowFile("ls -ld", expected.argv[0])
    for name, found, wanted in (
        ("ENTRYPOINT", config.entrypoint, expected.argv),
        ("CMD", config.cmd, expected.cmd),
    ):
        if wanted is not None and found != wanted:
            key = "argv" if name == "ENTRYPOINT" else "cmd"
            said = " ".join(found) if found else f"not set in {config.source}"
            source = profile.source("entrypoint", key)
            findings.append(Finding(name, said, " ".join(wanted), source, CONFIGURED))
    if script is None or script.final is None:
        found_file = script.problem if script else None
        findings.append(Finding(expected.argv[0], found_file or "missing", "a file", show=show))
    elif script.final.type != "file" or not script.final.mode & 0o111:
        found_mode = f"{script.final.type}, mode {script.final.mode:04o}"
        findings.append(Finding(expected.argv[0], found_mode, "an executable file", show=show))
    return ENTRYPOINT.judged(1, findings)


def entrypoint_command(runs: EntrypointRuns | None, profile: Profile) -> Verdict:
    """Exit code and words of a command survive the entrypoint; a banner may stand before them."""
    if profile.expect.entrypoint is None:
        return ENTRYPOINT_COMMAND.skipped("the profile promises no entrypoint")
    if runs is None:
        return ENTRYPOINT_COMMAND.not_tried(
            "the image has no entrypoint (see the check entrypoint)"
        )
    findings = []
    if runs.exit_code.ended != "exited" or runs.exit_code.exit_code != 7:
        found = how_it_ended(runs.exit_code)
        show = ShowRun(runs.exit_code.argv)
        findings.append(Finding("exit code", found, "exit code 7", show=show))
    last = runs.words.stdout.splitlines()[-1:]
    if last != ["two words"]:
        found = f"prints {last[0]!r}" if last else how_it_ended(runs.words)
        show = ShowRun(runs.words.argv)
        findings.append(Finding("words", found, "prints 'two words'", show=show))
    return ENTRYPOINT_COMMAND.judged(2, findings)


def configuration(fact: Environment, profile: Profile) -> Verdict:
    """Labels, USER, WORKDIR and EXPOSE, as far as the image tells them."""
    expected = profile.expect.configuration
    if expected is None:
        return CONFIGURATION.skipped("the profile promises no labels, USER, WORKDIR or EXPOSE")
    findings = []
    notes = []
    checked = 0
    if fact.labels is None:
        notes.append(f"{fact.source} does not tell the labels")
    for index, name in enumerate(expected.labels if fact.labels is not None else ()):
        checked += 1
        if name not in (fact.labels or {}):
            source = profile.source("configuration", "labels", index)
            wanted_label = "a label of this name"
            findings.append(Finding(f"label {name}", "missing", wanted_label, source, CONFIGURED))
    # The root directory is where an image without WORKDIR starts; some builders write it down.
    workdir = "" if fact.workdir == "/" else fact.workdir
    for name, key, found, wanted in (
        ("USER", "user", fact.user, expected.user),
        ("WORKDIR", "workdir", workdir, expected.workdir),
        ("EXPOSE", "exposed", _words(fact.exposed), _words(expected.exposed)),
    ):
        if wanted is None:
            continue
        if found is None:
            notes.append(f"{fact.source} does not tell {name}")
            continue
        checked += 1
        if found != wanted:
            source = profile.source("configuration", key)
            said = found or "not set"
            findings.append(Finding(name, said, wanted or "not set", source, CONFIGURED))
    if not checked:
        return CONFIGURATION.skipped("; ".join(notes))
    return CONFIGURATION.judged(checked, findings, notes)


def banner(runs: EntrypointRuns | None, fact: Banner | None, profile: Profile) -> Verdict:
    """What the entrypoint and the banner's script say."""
    expected = profile.expect.banner
    if expected is None or fact is None:
        return BANNER.skipped("the profile promises no banner")
    said, silenced = fact.said, fact.silenced
    if said is None or silenced is None:
        return BANNER.not_tried(f"there is no {fact.path} (see the check files)")
    findings = []
    hint = "writable" if fact.writable else "read_only"
    texts = [("says", index, text) for index, text in enumerate(expected.says)]
    texts += [(hint, index, text) for index, text in enumerate(getattr(expected, hint))]
    show = ShowRun(said.argv)
    for key, index, text in texts:
        if text not in said.stdout:
            source = profile.source("banner", key, index)
            wanted = f"names {text}" + (f", the prefix being {hint}" if key == hint else "")
            findings.append(Finding(fact.path, _printed(said), wanted, source, show))
    wrong = expected.read_only if fact.writable else expected.writable
    for text in wrong:
        if text in said.stdout:
            wanted = f"does not name {text}, which does not work here"
            findings.append(Finding(fact.path, _printed(said), wanted, show=show))
    if silenced.stdout.strip():
        source = profile.source("banner", "silenced_by")
        wanted = f"silent when {expected.silenced_by} is set"
        show = ShowRun(("env", f"{expected.silenced_by}=1", *said.argv))
        findings.append(Finding(expected.silenced_by, _printed(silenced), wanted, source, show))
    if runs is not None and runs.env.exit_code == 0:
        missing = [text for text in expected.says if text not in runs.env.stdout]
        if missing:
            wanted = f"the banner, which names {missing[0]}"
            found = "starts without the banner"
            source = profile.source("banner", "script")
            findings.append(Finding("entrypoint", found, wanted, source, ShowRun(runs.env.argv)))
    return BANNER.judged(len(texts) + 1, findings)


def activation(runs: EntrypointRuns | None, profile: Profile) -> Verdict:
    """Whether the variables that activating sets are there behind the entrypoint."""
    expected = profile.expect.entrypoint
    if expected is None or expected.activates is None:
        return ACTIVATION.skipped("the profile does not say whether the entrypoint activates")
    if runs is None or runs.env.exit_code != 0:
        return ACTIVATION.not_tried("the entrypoint runs no command (see entrypoint-command)")
    active = re.findall(rf"^(?:{'|'.join(_ACTIVE)})=.*", runs.env.stdout, re.MULTILINE)
    findings = []
    if bool(active) != expected.activates:
        found = ", ".join(active) or f"sets none of {', '.join(_ACTIVE)}"
        wanted = "an activated environment" if expected.activates else "no activation"
        source = profile.source("entrypoint", "activates")
        findings.append(Finding("entrypoint", found, wanted, source, ShowRun(runs.env.argv)))
    return ACTIVATION.judged(1, findings)


def _words(ports: tuple[str, ...] | None) -> str | None:
    return None if ports is None else " ".join(sorted(ports))


def _printed(result: CommandResult) -> str:
    """What a script printed, on one line."""
    said = " / ".join(line.strip() for line in result.stdout.splitlines() if line.strip())
    return f"prints {said}" if said else how_it_ended(result)


def _value(found: str | None, fact: Environment) -> str:
    return f"not set in {fact.source}" if found is None else found or "empty"
