"""An unpacked image used as a virtual environment on the host."""

from __future__ import annotations

import shlex

from mlcheck.checks.system import how_it_ended
from mlcheck.facts import (
    CommandResult,
    HostCommands,
    HostLibraries,
    HostShell,
    InsideSetup,
    LoadedFiles,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowOnHost, ShowRun, Verdict

BASH = Rule(
    "on-host-bash",
    "Sourced in bash on the host, setupMe-on-host.sh sets the documented variables and enters the "
    "image's environment.",
    "Let each variable follow from the place of the script, export it, and activate last.",
    "Users of CVMFS use the image as a virtual environment, without any container, by sourcing "
    'this script (README of usatlas/ML-Containers, "Env Extension in Virtual Env").',
    keys=("on_host",),
)
ZSH = Rule(
    "on-host-zsh",
    "Sourced in zsh on the host, setupMe-on-host.sh does the same as in bash.",
    "zsh has no BASH_SOURCE (use ${BASH_SOURCE:-$0}), does not split variables into words, and "
    "ends at a pattern that matches nothing.",
    "zsh is the login shell of many users; the same script has to serve both shells (README of "
    'usatlas/ML-Containers, "Env Extension in Virtual Env").',
    keys=("on_host",),
)
INSIDE = Rule(
    "on-host-inside",
    "Sourced inside a container, setupMe-on-host.sh says so, changes nothing and returns 0.",
    "Return 0 when the directory of the script is /.",
    "Sourced by habit inside the container it would set the variables a second time; it says "
    "that there is nothing to do (setupMe-on-host.sh of usatlas/ML-Containers).",
    keys=("on_host",),
)
PROGRAMS = Rule(
    "on-host-programs",
    "After setupMe-on-host.sh, the image's commands run on the host, and its modules import.",
    "Make the first line of scripts `#!/usr/bin/env python3`, and write no path of the image into "
    "them; programs must not need a newer C library than the hosts have.",
    "There the image lies at another path than it was built for, and runs on the host's C "
    'library (README of usatlas/ML-Containers, "Env Extension in Virtual Env").',
    keys=("on_host",),
)
LIBRARIES = Rule(
    "on-host-libraries",
    "On a host that has another directory of the prefix's name, the image's programs load the "
    "image's own libraries and none of that directory.",
    "Take the prefix out of RPATH and RUNPATH ($ORIGIN/../lib is enough), and out of every path "
    "that a package has written down.",
    "Many hosts have an /opt/conda of their own; a hard-coded path then loads its libraries into "
    'the image\'s programs (README of usatlas/ML-Containers, "RPATH in the executable files").',
    keys=("on_host",),
)

_EXPECTED = {
    "CONDA_PREFIX": "{image}{prefix}",
    "MAMBA_ROOT_PREFIX": "{image}{prefix}",
    "JUPYTER_PATH": "{image}{prefix}/share/jupyter",
    "SSL_CERT_FILE": "{image}{prefix}/ssl/cert.pem",
    "EnvTopDir": "{image}",
}
_MANY = 20


def bash(fact: HostShell | str, profile: Profile) -> Verdict:
    """The variables in bash. A text instead of the fact is why it could not be tried."""
    return _shell(BASH, fact, profile)


def zsh(fact: HostShell | str, profile: Profile) -> Verdict:
    """The same in zsh."""
    return _shell(ZSH, fact, profile)


def _shell(rule: Rule, fact: HostShell | str, profile: Profile) -> Verdict:
    if isinstance(fact, str):
        return rule.skipped(fact)
    source = profile.source("on_host", "script")
    script = "IMAGE_DIR" + fact.script.removeprefix(fact.image)
    # As it was tried: where PYTHONHOME leads nowhere, and before any file of the user's own.
    options = ("--norc", "--noprofile") if fact.shell == "bash" else ("-f",)
    asked = f". {shlex.quote(fact.script)}; echo returns $?; printenv | sort"
    asked += '; ls -lL "$SSL_CERT_FILE" "$MAMBA_EXE"'
    words = ("env", "PYTHONHOME=/nowhere", fact.shell, *options, "-c", asked)
    show = ShowOnHost(profile.expect.prefix or "/", words)
    if fact.code != 0:
        found = how_it_ended(fact.result) if fact.code is None else f"returns {fact.code}"
        lines = fact.result.stderr.strip().splitlines()
        found += f": {lines[-1][:300]}" if lines and lines[-1][:200] not in found else ""
        return rule.judged(1, [Finding(script, found, "returns 0", source, show)])
    there = fact.variables
    prefix = f"{profile.expect.prefix or ''}"
    wanted = {
        name: value.format(image=fact.image, prefix=prefix) for name, value in _EXPECTED.items()
    }
    findings = [
        Finding(name, there.get(name, "not set"), value, source, show)
        for name, value in wanted.items()
        if there.get(name) != value
    ]
    for name, what in (("SSL_CERT_FILE", "a file that can be read"), ("MAMBA_EXE", "a program")):
        value = there.get(name)
        inside = value is not None and value.startswith(f"{fact.image}/")
        if not (inside and name in fact.usable) and name not in (f.subject for f in findings):
            wanted_file = f"{what} in {fact.image}"
            findings.append(Finding(name, value or "not set", wanted_file, source, show))
    if "PYTHONHOME" in there:
        findings.append(Finding("PYTHONHOME", there["PYTHONHOME"], "not set", source, show))
    first = there.get("PATH", "").partition(":")[0]
    if first != f"{fact.image}{prefix}/bin":
        wanted_path = f"{fact.image}{prefix}/bin first"
        findings.append(Finding("PATH", there.get("PATH", "not set"), wanted_path, source, show))
    return rule.judged(len(wanted) + 3, findings)


def inside(fact: InsideSetup | None, profile: Profile) -> Verdict:
    """Sourced in the image itself."""
    if fact is None:
        return INSIDE.skipped("the profile promises no use on the host")
    source = profile.source("on_host", "script")
    show = ShowRun(("bash", "-c", f". {fact.script}; echo $?"))
    findings = []
    if fact.code != 0:
        found = how_it_ended(fact.result) if fact.code is None else f"returns {fact.code}"
        findings.append(Finding(fact.script, found, "returns 0", source, show))
    elif not fact.output.strip():
        wanted = "says that this is the container already"
        findings.append(Finding(fact.script, "prints nothing", wanted, source, show))
    elif fact.changed:
        found = f"changes one of {', '.join(fact.changed)}"
        findings.append(Finding(fact.script, found, "changes nothing", source, show))
    return INSIDE.judged(1, findings)


def programs(
    answers: HostCommands | str, libraries: HostLibraries | str, profile: Profile
) -> Verdict:
    """The promised commands, and the modules in the image's python3."""
    if isinstance(answers, str):
        return PROGRAMS.skipped(answers)
    findings = []
    expected = profile.expect.on_host
    for name, answer in answers.answers.items():
        said = answer.stdout.strip() or answer.stderr.strip()  # root.exe says its version there
        if answer.ended != "exited" or answer.exit_code != 0 or not said:
            source = profile.source("on_host", "commands", name)
            words = expected.commands[name] if expected is not None else answer.argv
            show = _by_hand(profile, shlex.join(words))
            found = _failure(answer)
            findings.append(Finding(name, found, "ends with 0 and prints", source, show))
    compared = len(answers.answers)
    if not isinstance(libraries, str):
        python = libraries.python
        show = _by_hand(profile, shlex.join(["python3", "-c", "print(42)"]))
        source = profile.source("on_host", "modules")
        if python.error is not None:
            findings.append(Finding("python3", python.error, "answers", source, show))
        compared += len(expected.modules) if expected is not None else 0
        for module, error in sorted((python.failed or {}).items()):
            show = _by_hand(profile, shlex.join(["python3", "-c", f"import {module}"]))
            findings.append(Finding(module, error, "can be imported", source, show))
    nothing = "the profile promises no command and no module on the host"
    return PROGRAMS.judged(compared, findings, nothing=nothing)


def libraries(fact: HostLibraries | str, profile: Profile) -> Verdict:
    """Where the files come from that python3 and the promised programs load."""
    if isinstance(fact, str):
        return LIBRARIES.skipped(fact)
    compared = 0
    findings: list[Finding] = []
    for loaded in (fact.python, *fact.programs):
        source = profile.source("on_host", "programs")
        words = ["env", "LD_TRACE_LOADED_OBJECTS=1", f"{fact.image}{loaded.subject}"]
        if loaded is fact.python:
            words = [
                "python3",
                "-c",
                _LOADED,
                *sorted(_modules(profile) - {*(loaded.failed or ())}),
            ]
        show = _by_hand(profile, shlex.join(words))
        if loaded.error is not None and loaded is not fact.python:
            findings.append(Finding(loaded.subject, loaded.error, "can be loaded", source, show))
        for soname in loaded.missing:
            findings.append(Finding(loaded.subject, f"{soname} not found", "found", source, show))
        own, others = _origins(loaded, fact)
        compared += own
        if not own and not others and loaded.error is None:
            found = "loads nothing of the image"
            findings.append(Finding(loaded.subject, found, "its libraries", source, show))
        for path in others[:_MANY]:
            found = f"loads {path}, which is the host's"
            wanted = f"the image's own, {fact.image}{path}"
            findings.append(Finding(loaded.subject, found, wanted, source, show))
        if len(others) > _MANY:
            found = f"and {len(others) - _MANY} more files of {fact.other}"
            findings.append(Finding(loaded.subject, found, "none", source, show))
    if not compared and not findings and fact.python.error is not None:
        return LIBRARIES.not_tried("python3 does not run on the host (see on-host-programs)")
    return LIBRARIES.judged(compared, findings)


def _origins(loaded: LoadedFiles, fact: HostLibraries) -> tuple[int, list[str]]:
    """How many files are the image's, and those of the host's directory of the prefix's name."""
    own = sum(path.startswith(f"{fact.image}{fact.other}/") for path in loaded.paths)
    return own, sorted(path for path in loaded.paths if path.startswith(f"{fact.other}/"))


_LOADED = (
    "import os, sys; [__import__(name) for name in sys.argv[1:]]; "
    "print(*sys.path, *(getattr(m, '__file__', '') for m in list(sys.modules.values())), "
    "open('/proc/self/maps').read(), sep='\\n')"
)
"""What the probe looks at, for a person."""


def _modules(profile: Profile) -> set[str]:
    return set(profile.expect.on_host.modules if profile.expect.on_host is not None else ())


def _by_hand(profile: Profile, command: str) -> ShowOnHost:
    """A command after the script was sourced on the host."""
    script = profile.expect.on_host.script if profile.expect.on_host is not None else "/"
    asked = f". {shlex.quote(f'/image{script}')} > /dev/null 2>&1 < /dev/null; {command}"
    words = ("bash", "--norc", "--noprofile", "-c", asked)
    return ShowOnHost(profile.expect.prefix or "/", words)


def _failure(answer: CommandResult) -> str:
    found = how_it_ended(answer)
    if "GLIBC_" in answer.stderr:
        found += " (this machine's C library is older than the program needs)"
    return found
