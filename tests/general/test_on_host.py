"""The unpacked image as a virtual environment on the host.

The host is a sandbox: nothing of the image runs on the machine itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from mlcheck.inspect.host_use.facts import (
    BashOnHost,
    HostCommands,
    HostLibraries,
    HostShell,
    InsideSetup,
    LoadedFiles,
    ZshOnHost,
)
from mlcheck.inspect.startup.variables import depends_on_directory
from mlcheck.model.command import CommandResult
from mlcheck.model.rule import rule
from mlcheck.model.verdict import (
    Finding,
    ShowFile,
    ShowOnHost,
    ShowRun,
    Source,
    Verdict,
    judged,
    not_tried,
)
from mlcheck.profile.catalog import Profile, promised

_EXPECTED = {
    "CONDA_PREFIX": "{image}{prefix}",
    "MAMBA_ROOT_PREFIX": "{image}{prefix}",
    "JUPYTER_PATH": "{image}{prefix}/share/jupyter",
    "SSL_CERT_FILE": "{image}{prefix}/ssl/cert.pem",
    "EnvTopDir": "{image}",
}
_MANY = 20
_LOADED = (
    "import os, sys; [__import__(name) for name in sys.argv[1:]]; "
    "print(*sys.path, *(getattr(m, '__file__', '') for m in list(sys.modules.values())), "
    "open('/proc/self/maps').read(), sep='\\n')"
)
"""What the probe looks at, for a person."""


@rule("on-host-bash", keys=["on_host"], also=["prefix"])
def test_on_host_bash(shell: BashOnHost, profile: Profile) -> Verdict:
    """Sourced in bash on the host, setupMe-on-host.sh sets the documented variables and enters the
    image's environment.

    Why: Users of CVMFS use the image as a virtual environment, without any container, by sourcing
    this script (README of usatlas/ML-Containers, "Env Extension in Virtual Env").

    Fix: Let each variable follow from the place of the script, export it, and activate last.
    """
    return _shell(shell, profile)


@rule("on-host-zsh", keys=["on_host"], also=["prefix"])
def test_on_host_zsh(shell: ZshOnHost, profile: Profile) -> Verdict:
    """Sourced in zsh on the host, setupMe-on-host.sh does the same as in bash.

    Why: zsh is the login shell of many users; the same script has to serve both shells (README of
    usatlas/ML-Containers, "Env Extension in Virtual Env").

    Fix: zsh has no BASH_SOURCE (use ${BASH_SOURCE:-$0}), does not split variables into words, and
    ends at a pattern that matches nothing.
    """
    return _shell(shell, profile)


@rule("on-host-inside", keys=["on_host"])
def test_on_host_inside(setup: InsideSetup, profile: Profile) -> Verdict:
    """Sourced inside a container, setupMe-on-host.sh says so, changes nothing and returns 0.

    Why: Sourced by habit inside the container it would set the variables a second time; it says
    that there is nothing to do (setupMe-on-host.sh of usatlas/ML-Containers).

    Fix: Return 0 when the directory of the script is /.
    """
    source = profile.source("on_host", "script")
    show = ShowRun(("bash", "-c", f". {setup.script}; echo $?"))
    findings = []
    if setup.code != 0:
        found = setup.result.how_it_ended if setup.code is None else f"returns {setup.code}"
        findings.append(Finding(setup.script, found, "returns 0", source, show))
    elif not setup.output.strip():
        wanted = "says that this is the container already"
        findings.append(Finding(setup.script, "prints nothing", wanted, source, show))
    elif setup.changed:
        found = f"changes one of {', '.join(setup.changed)}"
        findings.append(Finding(setup.script, found, "changes nothing", source, show))
    return judged(1, findings)


@rule("on-host-programs", keys=["on_host"], also=["prefix"], slow=True)
def test_on_host_programs(
    commands: HostCommands, libraries: HostLibraries, profile: Profile
) -> Verdict:
    """After setupMe-on-host.sh, the image's commands run on the host, and its modules import.

    Why: There the image lies at another path than it was built for, and runs on the host's C
    library (README of usatlas/ML-Containers, "Env Extension in Virtual Env").

    Fix: Make the first line of scripts `#!/usr/bin/env python3`, and write no path of the image
    into them; programs must not need a newer C library than the hosts have.
    """
    findings = []
    expected = promised(profile.expect.on_host)
    for name, answer in commands.answers.items():
        said = answer.stdout.strip() or answer.stderr.strip()  # root.exe says its version there
        if answer.ended != "exited" or answer.exit_code != 0 or not said:
            source = profile.source("on_host", "commands", name)
            show = _by_hand(profile, shlex.join(expected.commands[name]))
            found = _failure(answer)
            findings.append(Finding(name, found, "ends with 0 and prints", source, show))
    compared = len(commands.answers) + len(expected.modules)
    python = libraries.python
    show = _by_hand(profile, shlex.join(["python3", "-c", "print(42)"]))
    source = profile.source("on_host", "modules")
    if python.error is not None:
        findings.append(Finding("python3", python.error, "answers", source, show))
    for module, error in sorted((python.failed or {}).items()):
        show = _by_hand(profile, shlex.join(["python3", "-c", f"import {module}"]))
        findings.append(Finding(module, error, "can be imported", source, show))
    nothing = "the profile promises no command and no module on the host"
    return judged(compared, findings, nothing=nothing)


@rule("on-host-libraries", keys=["on_host"], also=["prefix"], slow=True)
def test_on_host_libraries(libraries: HostLibraries, profile: Profile) -> Verdict:
    """On a host that has another directory of the prefix's name, the image's programs load the
    image's own libraries and none of that directory.

    Why: Many hosts have an /opt/conda of their own; a hard-coded path then loads its libraries into
    the image's programs (README of usatlas/ML-Containers, "RPATH in the executable files").

    Fix: Remove the prefix from RPATH and RUNPATH ($ORIGIN/../lib is enough), and from every path
    that a package has written down.
    """
    compared = 0
    findings: list[Finding] = []
    for loaded in (libraries.python, *libraries.programs):
        source = profile.source("on_host", "programs")
        words = ["env", "LD_TRACE_LOADED_OBJECTS=1", f"{libraries.image}{loaded.subject}"]
        if loaded is libraries.python:
            words = [
                "python3",
                "-c",
                _LOADED,
                *sorted(_modules(profile) - {*(loaded.failed or ())}),
            ]
        show = _by_hand(profile, shlex.join(words))
        if loaded.error is not None and loaded is not libraries.python:
            findings.append(Finding(loaded.subject, loaded.error, "can be loaded", source, show))
        for soname in loaded.missing:
            findings.append(Finding(loaded.subject, f"{soname} not found", "found", source, show))
        own, others = _origins(loaded, libraries)
        compared += own
        if not own and not others and loaded.error is None:
            found = "loads nothing of the image"
            findings.append(Finding(loaded.subject, found, "its libraries", source, show))
        for path in others[:_MANY]:
            found = f"loads {path}, which is the host's"
            wanted = f"the image's own, {libraries.image}{path}"
            findings.append(Finding(loaded.subject, found, wanted, source, show))
        if len(others) > _MANY:
            found = f"and {len(others) - _MANY} more files of {libraries.other}"
            findings.append(Finding(loaded.subject, found, "none", source, show))
    if not compared and not findings and libraries.python.error is not None:
        return not_tried("python3 does not run on the host (see on-host-programs)")
    return judged(compared, findings)


def _shell(shell: HostShell, profile: Profile) -> Verdict:
    """Whether the script does in a shell what is promised."""
    source = profile.source("on_host", "script")
    script = "IMAGE_DIR" + shell.script.removeprefix(shell.image)
    # As it was tried: where PYTHONHOME leads nowhere, and before any file of the user's own.
    options = ("--norc", "--noprofile") if shell.shell == "bash" else ("-f",)
    asked = f". {shlex.quote(shell.script)}; echo returns $?; printenv | sort"
    asked += '; ls -lL "$SSL_CERT_FILE" "$MAMBA_EXE"'
    words = ("env", "PYTHONHOME=/nowhere", shell.shell, *options, "-c", asked)
    show = ShowOnHost(profile.expect.prefix or "/", words)
    if shell.code != 0:
        found = shell.result.how_it_ended if shell.code is None else f"returns {shell.code}"
        lines = shell.result.stderr.strip().splitlines()
        found += f": {lines[-1][:300]}" if lines and lines[-1][:200] not in found else ""
        return judged(1, [Finding(script, found, "returns 0", source, show)])
    there = shell.variables
    prefix = profile.expect.prefix or ""
    if shell.outside:
        found = f"leads by an absolute link to {shell.outside}, which on a host is not the image's"
        led = ShowFile("ls -ld", prefix)
        return judged(1, [Finding(prefix, found, "a directory or a relative link", source, led)])
    wanted = {
        name: value.format(image=shell.image, prefix=prefix) for name, value in _EXPECTED.items()
    }
    findings = [
        Finding(name, there.get(name, "not set"), value, source, show)
        for name, value in wanted.items()
        if there.get(name) != value
    ]
    for name, what in (("SSL_CERT_FILE", "a file that can be read"), ("MAMBA_EXE", "a program")):
        value = there.get(name)
        inside = value is not None and value.startswith(f"{shell.image}/")
        if not (inside and name in shell.usable) and name not in (f.subject for f in findings):
            wanted_file = f"{what} in {shell.image}"
            findings.append(Finding(name, value or "not set", wanted_file, source, show))
    if "PYTHONHOME" in there:
        findings.append(Finding("PYTHONHOME", there["PYTHONHOME"], "not set", source, show))
    first = there.get("PATH", "").partition(":")[0]
    if first != f"{shell.image}{prefix}/bin":
        wanted_path = f"{shell.image}{prefix}/bin first"
        findings.append(Finding("PATH", there.get("PATH", "not set"), wanted_path, source, show))
    if not findings:
        findings += _again(shell, source, show)
    for name in ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH"):
        if all(finding.subject != name for finding in findings):
            findings += _of_the_host(shell, name, source, show)
    return judged(2 * len(wanted) + 6, findings)


def _of_the_host(
    shell: HostShell, name: str, source: Source | None, show: ShowOnHost
) -> list[Finding]:
    """What the script does to a variable by which the host's own programs load files too."""
    for there, how in ((shell.variables, ""), (shell.again, " (where the host has set it before)")):
        value = there.get(name, "")
        entries = re.split("[:; ]", value) if name != "PATH" else ()
        if any(entry.startswith(f"{shell.image}/") for entry in entries):
            wanted = "nothing of the image, which the host's own programs would load"
            return [Finding(name, f"{value}{how}", wanted, source, show)]
        found = depends_on_directory(name, value or "/") if name != "LD_PRELOAD" else ()
        if found:
            wanted = "absolute directories alone"
            return [Finding(name, f"{one}{how}", wanted, source, show) for one in found]
    return []


def _again(shell: HostShell, source: Source | None, show: ShowOnHost) -> Iterator[Finding]:
    """What is otherwise when the script is sourced twice, by a relative path."""
    script = "IMAGE_DIR" + shell.script.removeprefix(shell.image)
    how = "sourced twice by a relative path"
    if shell.again_code != 0:
        ended = "ends the shell" if shell.again_code is None else f"returns {shell.again_code}"
        yield Finding(script, f"{how}, it {ended}", "returns 0", source, show)
        return
    for name in (*_EXPECTED, "MAMBA_EXE", "PYTHONHOME"):
        once, twice = shell.variables.get(name), shell.again.get(name)
        if once != twice:
            found = f"{twice or 'not set'} ({how})"
            yield Finding(name, found, once or "not set", source, show)
    first, path = (one.get("PATH", "").partition(":")[0] for one in (shell.variables, shell.again))
    if first != path:
        yield Finding("PATH", f"begins with {path} ({how})", f"{first} first", source, show)


def _origins(loaded: LoadedFiles, libraries: HostLibraries) -> tuple[int, list[str]]:
    """How many files are the image's, and those of the host's directory of the prefix's name."""
    tops = (f"{libraries.image}{libraries.other}/", f"{libraries.own}/")
    own = sum(path.startswith(tops) for path in loaded.paths)
    return own, sorted(path for path in loaded.paths if path.startswith(f"{libraries.other}/"))


def _modules(profile: Profile) -> set[str]:
    return set(promised(profile.expect.on_host).modules)


def _by_hand(profile: Profile, command: str) -> ShowOnHost:
    """A command after the script was sourced on the host."""
    script = promised(profile.expect.on_host).script
    asked = f". {shlex.quote(f'/image{script}')} > /dev/null 2>&1 < /dev/null; {command}"
    words = ("bash", "--norc", "--noprofile", "-c", asked)
    return ShowOnHost(profile.expect.prefix or "/", words)


def _failure(answer: CommandResult) -> str:
    found = answer.how_it_ended
    if "GLIBC_" in answer.stderr:
        found += " (this machine's C library is older than the program needs)"
    return found
