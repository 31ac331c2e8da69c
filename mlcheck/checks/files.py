"""Promised files, configuration, entrypoint and the scripts in the prefix's bin/."""

from __future__ import annotations

import fnmatch
import posixpath

from mlcheck.checks.system import how_it_ended
from mlcheck.facts import Deployment, EntrypointRuns, Environment, Files, ResolvedFile, Scripts
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Verdict

FILES = Rule(
    "files",
    "Every promised file is there, of its type, with its permissions.",
    "Copy the file into the image, or set its mode, in the image's build.",
)
ENVIRONMENT = Rule(
    "environment",
    "The image's configuration sets the promised variables.",
    "Set the variable with ENV in the image's build.",
)
ENTRYPOINT = Rule(
    "entrypoint",
    "The image starts by the promised entrypoint, and the engine can execute it.",
    "Correct ENTRYPOINT and CMD, and make the script executable, in the image's build.",
)
ENTRYPOINT_COMMAND = Rule(
    "entrypoint-command",
    "The entrypoint runs the command behind it with all its words, and ends with its exit code: "
    "otherwise `docker run IMAGE bash -c ...` in somebody's CI is green whatever happens.",
    'End the entrypoint with `exec "$@"`, with the quotes.',
)
SHEBANGS = Rule(
    "script-shebangs",
    "Every script in the prefix's bin/ can be executed, and the portable ones do not name the "
    "prefix.",
    "Begin the script with `#!/usr/bin/env python3`, or install its interpreter.",
)


def files(fact: Files, profile: Profile, deployment: Deployment | None = None) -> Verdict:
    """The paths of `files`. CVMFS keeps neither owners nor set-uid, set-gid and sticky bits."""
    promised = profile.expect.files
    if not promised:
        return FILES.skipped("the profile promises no file")
    on_cvmfs = deployment is not None and deployment.cvmfs
    compared = 0o777 if on_cvmfs else 0o7777
    notes = []
    if on_cvmfs:
        notes.append("owners and set-uid, set-gid and sticky bits: not judged, CVMFS keeps none")
    findings = []
    for path, expected in promised.items():
        there = fact.files[path]
        show = ShowFile("ls -ld", path)
        if there.file is None or there.final is None:
            found = there.problem or "missing"
            source = profile.source("files", path)
            findings.append(Finding(path, found, f"a {expected.type}", source, show))
            continue
        actual = there.file if expected.type == "symlink" else there.final
        if actual.type != expected.type:
            source = profile.source("files", path, "type")
            findings.append(Finding(path, f"a {actual.type}", f"a {expected.type}", source, show))
            continue
        if expected.target is not None and not fnmatch.fnmatchcase(
            there.file.target or "", expected.target
        ):
            source = profile.source("files", path, "target")
            found = f"points to {there.file.target}"
            findings.append(Finding(path, found, expected.target, source, show))
        mode = there.final.mode
        wanted = expected.mode or "readable by everybody, writable by its owner and group alone"
        good = mode & 0o006 == 0o004
        if expected.mode:
            good = mode & compared == int(expected.mode, 8) & compared
        if not good:
            source = profile.source("files", path, "mode")
            findings.append(Finding(path, f"mode {mode:04o}", wanted, source, show))
    return FILES.judged(len(promised), findings, notes)


def environment(fact: Environment, profile: Profile) -> Verdict:
    """The variables of `environment`."""
    expected = profile.expect.environment
    if not expected.equals and not expected.starts:
        return ENVIRONMENT.skipped("the profile promises no variable")
    show = ShowFile("cat", fact.source) if fact.source.startswith("/") else None
    findings = [Finding(p.path, p.what, "a readable configuration") for p in fact.problems]
    for name, value in expected.equals.items():
        found = fact.env.get(name)
        if found != value:
            source = profile.source("environment", "equals", name)
            findings.append(Finding(name, _value(found, fact), value, source, show))
    for name, entries in expected.starts.items():
        found = fact.env.get(name)
        if found is None or tuple(found.split(":")[: len(entries)]) != entries:
            source = profile.source("environment", "starts", name)
            wanted = f"begins with {':'.join(entries)}"
            findings.append(Finding(name, _value(found, fact), wanted, source, show))
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
            findings.append(Finding(name, said, " ".join(wanted), source))
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
        return ENTRYPOINT_COMMAND.skipped("the image has no entrypoint (see the check entrypoint)")
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


def shebangs(fact: Scripts, profile: Profile) -> Verdict:
    """Interpreters exist, scripts are executable, portable ones do not name the prefix."""
    prefix = profile.expect.prefix
    if prefix is None:
        return SHEBANGS.skipped("the profile names no prefix")
    portable = profile.expect.scripts.portable if profile.expect.scripts else ()
    findings = [Finding(p.path, p.what, "a readable script") for p in fact.problems]
    absolute = []
    for script in fact.scripts:
        line = "#!" + " ".join(script.interpreter)
        show = ShowFile("head -1", script.path)
        name = posixpath.basename(script.path)
        must = [i for i, glob in enumerate(portable) if fnmatch.fnmatchcase(name, glob)]
        if script.resolved is None:
            findings.append(Finding(script.path, line, "an interpreter in the image", None, show))
        elif not script.mode & 0o111:
            found = f"mode {script.mode:04o}"
            findings.append(Finding(script.path, found, "executable", None, show))
        elif script.interpreter[0].startswith(prefix + "/"):
            if must:
                source = profile.source("scripts", "portable", must[0])
                wanted = f"no {prefix} in the first line"
                findings.append(Finding(script.path, line, wanted, source, show))
            else:
                absolute.append(name)
    notes = []
    if absolute:
        notes.append(
            f"{len(absolute)} other scripts name {prefix} in their first line and work only "
            f"there: {', '.join(sorted(absolute))}"
        )
    return SHEBANGS.judged(len(fact.scripts), findings, notes)


def _value(found: str | None, fact: Environment) -> str:
    return f"not set in {fact.source}" if found is None else found or "empty"
