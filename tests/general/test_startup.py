"""The start of the image: configuration, entrypoint, banner."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from mlcheck.inspect.server.facts import Accounts
from mlcheck.inspect.startup.facts import (
    LINE,
    Banner,
    EntrypointProgram,
    EntrypointRuns,
    Heard,
    StartProgram,
    Stopped,
)
from mlcheck.inspect.startup.variables import depends_on_directory
from mlcheck.model.command import CommandResult
from mlcheck.model.environment import Environment, plain_command
from mlcheck.model.rule import rule
from mlcheck.model.verdict import (
    Finding,
    ShowFile,
    ShowMlcheck,
    ShowRun,
    Verdict,
    judged,
    not_tried,
    skipped,
)
from mlcheck.profile.catalog import Profile, promised

CONFIGURED = ShowMlcheck("facts", ("--probe", "environment"))
"""How a person sees an image's configuration, wherever the engine has it."""
_ACTIVE = ("CONDA_DEFAULT_ENV", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER")
"""What activating sets: https://docs.conda.io/projects/conda/en/latest/dev-guide/deep-dives/activation.html"""


@rule("environment", keys=["environment"])
def test_environment(config: Environment, profile: Profile) -> Verdict:
    """The image's configuration sets the promised variables, no list of directories in it has an
    entry that depends on the working directory, and no other variable breaks a promise.

    Why: What is in PATH and in CONDA_PREFIX decides which Python runs, for everybody who does not
    start a login shell (README of usatlas/ML-Containers, "Image Content"). An empty entry is the
    directory in which somebody happens to be (bash(1), PATH; ld.so(8), LD_LIBRARY_PATH), and a
    variable such as PYTHONHOME makes another Python of it.

    Fix: Set the variable with ENV in the image's build, without a colon at its beginning or its
    end: `ENV LD_LIBRARY_PATH=/usr/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}`.
    """
    expected = profile.expect.environment
    findings = [
        Finding(p.path, p.what, "a readable configuration", show=ShowFile("ls -l", p.path))
        for p in config.problems
    ]
    for name, value in expected.equals.items():
        found = config.env.get(name)
        if found != value:
            source = profile.source("environment", "equals", name)
            findings.append(Finding(name, _value(found, config), value, source, CONFIGURED))
    for name, entries in expected.starts.items():
        found = config.env.get(name)
        if found is None or tuple(found.split(":")[: len(entries)]) != entries:
            source = profile.source("environment", "starts", name)
            wanted = f"begins with {':'.join(entries)}"
            findings.append(Finding(name, _value(found, config), wanted, source, CONFIGURED))
    others = [name for name in config.env if name not in expected.equals]
    for name in others:
        for found in depends_on_directory(name, config.env[name]):
            wanted = "absolute directories alone"
            findings.append(
                Finding(name, f"{found}: the working directory", wanted, show=CONFIGURED)
            )
    for name, why in _breaking(profile).items():
        if name in others and name not in expected.starts and config.env[name]:
            found = _value(config.env[name], config)
            findings.append(Finding(name, found, f"not set: {why}", show=CONFIGURED))
    return judged(len(expected.equals) + len(expected.starts) + 1, findings)


@rule("entrypoint", keys=["entrypoint"])
def test_entrypoint(config: Environment, program: EntrypointProgram, profile: Profile) -> Verdict:
    """The image starts by the promised entrypoint, and the engine can execute it.

    Why: An entrypoint that is missing or not executable keeps the container from starting at all
    (https://github.com/opencontainers/image-spec/blob/main/config.md#properties).

    Fix: Correct ENTRYPOINT and CMD, and make the script executable, in the image's build.
    """
    expected = promised(profile.expect.entrypoint)
    findings = []
    show = ShowFile("ls -ld", expected.argv[0])
    for name, found, wanted in (
        ("ENTRYPOINT", config.entrypoint, expected.argv),
        ("CMD", config.cmd, expected.cmd),
    ):
        if name == "CMD" and wanted and found and plain_command(found) == plain_command(wanted):
            continue  # written in shell form
        if wanted is not None and found != wanted:
            key = "argv" if name == "ENTRYPOINT" else "cmd"
            said = " ".join(found) if found else f"not set in {config.source}"
            source = profile.source("entrypoint", key)
            findings.append(Finding(name, said, " ".join(wanted), source, CONFIGURED))
    if program.final is None:
        found_file = program.problem or "missing"
        findings.append(Finding(expected.argv[0], found_file, "a file", show=show))
    elif program.final.type != "file" or not program.final.mode & 0o111:
        found_mode = f"{program.final.type}, mode {program.final.mode:04o}"
        findings.append(Finding(expected.argv[0], found_mode, "an executable file", show=show))
    return judged(1, findings)


@rule("startable", keys=["startable"])
def test_startable(
    config: Environment, program: StartProgram | None, accounts: Accounts, profile: Profile
) -> Verdict:
    """The user and the program that the image's configuration names are in the image, and the
    program can be executed.

    Why: No engine starts an image whose USER is in no /etc/passwd, or whose ENTRYPOINT is missing,
    closed to that user, neither a program nor a script, or a script with an interpreter that is not
    there (https://github.com/opencontainers/image-spec/blob/main/config.md#properties). A script
    with line ends of Windows has none.

    Fix: Correct USER, ENTRYPOINT or CMD in the image's build, create the user before, copy the
    program into the image, and make it executable.
    """
    source = profile.source("startable")
    findings = []
    checked = 0
    if program is not None:
        checked += 1
        if found := _not_executable(program) or _closed(program, config.user, accounts):
            path = program.file.path if program.file else program.word
            show = ShowFile("ls -ld", path) if path.startswith("/") else CONFIGURED
            subject = f"{program.instruction} {program.word}"
            findings.append(Finding(subject, found, "an executable file", source, show))
    user, _, group = (config.user or "").partition(":")
    known = (
        ("USER", user, accounts.accounts, "/etc/passwd"),
        ("USER's group", group, accounts.groups, "/etc/group"),
    )
    for name, word, names, file in known:
        checked += bool(word)
        # A number needs no line.
        if word and not word.isdecimal() and word not in names:
            show = ShowFile("cat -v", file)
            subject = f"{name} {word}"
            findings.append(Finding(subject, f"not in {file}", f"a line of {file}", source, show))
    if not checked:
        return skipped(f"{config.source} names neither a program nor a user")
    return judged(checked, findings)


def _not_executable(program: StartProgram) -> str:
    """Say why a program cannot be started; "" if it can."""
    if program.file is None:
        return f"in no directory of PATH={program.path_env}"
    final = program.file.final
    if final is None:
        return program.file.problem or "missing"
    if final.type != "file" or not final.mode & 0o111:
        return f"{final.type}, mode {final.mode:04o}"
    if program.kind == "other":
        return "neither a program (ELF) nor a script (#!)"
    if program.kind == "script" and not program.interpreter:
        return "begins with #! and names no interpreter"
    if not program.interpreter_there:
        return f"begins with #!{program.interpreter}, which is not in the image"
    return ""


def _closed(program: StartProgram, user: str | None, accounts: Accounts) -> str:
    """Say why the user of the configuration may not execute a program; "" if it may."""
    name, _, group = (user or "").partition(":")
    # As runc reads it: a number is also looked up, for its groups; a named group replaces them.
    known = (one for one in accounts.accounts.values() if name in (one.name, str(one.uid)))
    account = next(known, None)
    uid = account.uid if account else int(name) if name.isdecimal() else 0
    named = bool(group) and not group.isdecimal()
    if uid == 0 or named or not program.owners_known:
        return ""
    assert program.file is not None
    assert program.file.final is not None
    groups = {int(group)} if group else set(account.groups) if account else {0}
    for one in (*program.way, program.file.final):
        shift = 6 if one.uid == uid else 3 if one.gid in groups else 0
        if not one.mode >> shift & 1:
            what = f"{one.path}: {one.type}, mode {one.mode:04o}, owner {one.uid}:{one.gid}"
            return f"closed to USER {user} ({what})"
    return ""


@rule("entrypoint-command", keys=["entrypoint"], also=["banner", "entrypoint.activates"])
def test_entrypoint_command(runs: EntrypointRuns | None, profile: Profile) -> Verdict:
    """The entrypoint runs the command behind it with all its words, its input and its exit code,
    and SIGTERM ends it: otherwise `docker run IMAGE sh -c ...` in somebody's CI is green whatever
    happens, and `docker stop` waits and kills.

    A program as the entrypoint, which takes the words behind it for its own, is not judged, unless
    the profile says what comes before a command: a banner, or whether the environment is activated.

    Why: The entrypoints of usatlas/ML-Containers lose words and exit code: `docker run IMAGE bash
    -c "exit 7"` ends with 0.

    Fix: End the entrypoint with `exec "$@"`, with the quotes, and change the words in no way before
    (`set $*`, `eval`). A launcher that stays must pass on signals and exit codes.
    """
    if runs is None:
        return not_tried("the image has no entrypoint (see the check entrypoint)")
    expected = promised(profile.expect.entrypoint)
    before_commands = expected.activates is not None or profile.expect.banner is not None
    if not (runs.launcher or before_commands) and runs.heard.words is None:
        return skipped("the entrypoint is a program of its own, and starts no command behind it")
    findings = []
    for code, answer in runs.codes.items():
        if answer.ended != "exited" or answer.exit_code != code:
            found = _end(answer)
            findings.append(
                Finding("exit code", found, f"exit code {code}", show=ShowRun(answer.argv))
            )
            break  # the others are lost in the same way
    if runs.killed is not None and (runs.killed.ended != "exited" or runs.killed.exit_code == 0):
        wanted = "another exit code than 0, the command being killed"
        show = ShowRun(runs.killed.argv)
        found = "exit code 0" if runs.killed.ended == "exited" else _end(runs.killed)
        findings.append(Finding("signal", found, wanted, show=show))
    findings += _heard(runs.heard, wrong_code=bool(findings))
    if runs.stopped is not None:
        findings += _stopped(runs.stopped)
    return judged(4 + len(runs.codes), findings)


@rule("configuration", keys=["configuration"])
def test_configuration(config: Environment, profile: Profile) -> Verdict:
    """The image's configuration has the promised labels, and sets USER, WORKDIR and EXPOSE as
    promised.

    Why: Labels tell of which build an image is; USER, WORKDIR and EXPOSE decide how a platform
    starts it (https://github.com/opencontainers/image-spec/blob/main/config.md#properties).

    Fix: Correct LABEL, USER, WORKDIR and EXPOSE in the image's build.
    """
    expected = promised(profile.expect.configuration)
    findings = []
    notes = []
    checked = 0
    if config.labels is None:
        notes.append(f"{config.source} does not tell the labels")
    for index, name in enumerate(expected.labels if config.labels is not None else ()):
        checked += 1
        if name not in (config.labels or {}):
            source = profile.source("configuration", "labels", index)
            wanted_label = "a label of this name"
            findings.append(Finding(f"label {name}", "missing", wanted_label, source, CONFIGURED))
    # The root directory is where an image without WORKDIR starts; some builders write it down.
    workdir = "" if config.workdir == "/" else config.workdir
    for name, key, found, wanted in (
        ("USER", "user", config.user, expected.user),
        ("WORKDIR", "workdir", workdir, expected.workdir),
        ("EXPOSE", "exposed", _words(config.exposed), _words(expected.exposed)),
    ):
        if wanted is None:
            continue
        if found is None:
            notes.append(f"{config.source} does not tell {name}")
            continue
        checked += 1
        if found != wanted:
            source = profile.source("configuration", key)
            said = found or "not set"
            findings.append(Finding(name, said, wanted or "not set", source, CONFIGURED))
    if not checked:
        return skipped("; ".join(notes))
    return judged(checked, findings, notes)


@rule("entrypoint-banner", keys=["banner"])
def test_entrypoint_banner(banner: Banner, profile: Profile) -> Verdict:
    """On start the image says where its list of packages is and how to add to it, in the way that
    works there, and is silent when asked to be.

    Why: The banner is the one page of help that every user sees; `micromamba install` in it is
    wrong where the image cannot be written (README of usatlas/ML-Containers, "Extension of ML Image
    Envs").

    Fix: Correct the script of the banner, and source it in the entrypoint.
    """
    expected = promised(profile.expect.banner)
    said, silenced = banner.said, banner.silenced
    if said is None or silenced is None:
        return not_tried(f"there is no {banner.path} (see the check files)")
    findings = []
    for index, text in enumerate(expected.says):
        if text not in said.stdout:
            source = profile.source("banner", "says", index)
            show = ShowRun(said.argv)
            findings.append(Finding(banner.path, _printed(said), f"names {text}", source, show))
    if silenced.stdout.strip():
        source = profile.source("banner", "silenced_by")
        wanted = f"silent when {expected.silenced_by} is set"
        show = ShowRun(silenced.argv)
        findings.append(Finding(expected.silenced_by, _printed(silenced), wanted, source, show))
    compared = len(expected.says) + 1
    # Why a command does not answer behind the entrypoint, entrypoint-command says.
    if banner.started is not None and banner.writable is not None:
        findings += _of_a_start(banner.path, said, banner.started, banner.writable, profile)
        quiet = banner.quiet
        before = "" if quiet is None else quiet.stdout.rpartition(banner.answer)[0]
        if quiet is not None and not findings and before.strip():
            source = profile.source("banner", "silenced_by")
            wanted = f"silent when {expected.silenced_by} is set"
            found = _printed(replace(quiet, stdout=before))
            show = ShowRun(("env", f"{expected.silenced_by}=yes", *quiet.argv))
            findings.append(Finding("entrypoint", found, wanted, source, show))
        compared += 2
    return judged(compared, findings)


@rule("entrypoint-activation", keys=["entrypoint.activates"])
def test_entrypoint_activation(runs: EntrypointRuns | None, profile: Profile) -> Verdict:
    """The entrypoint activates the environment if, and only if, that is promised.

    Why: Between its generations usatlas/ML-Containers changed whether the entrypoint activates:
    what users see in their prompt and CONDA_SHLVL follows from it.

    Fix: Activate in the entrypoint, or leave it out there: ENV in the image's build is enough.
    """
    expected = promised(profile.expect.entrypoint)
    if runs is None or runs.env is None or runs.env.exit_code != 0:
        return not_tried("the entrypoint runs no command (see entrypoint-command)")
    active = re.findall(rf"^(?:{'|'.join(_ACTIVE)})=.*", runs.env.stdout, re.MULTILINE)
    findings = []
    if bool(active) != expected.activates:
        found = ", ".join(active) or f"sets none of {', '.join(_ACTIVE)}"
        wanted = "an activated environment" if expected.activates else "no activation"
        source = profile.source("entrypoint", "activates")
        findings.append(Finding("entrypoint", found, wanted, source, ShowRun(runs.env.argv)))
    return judged(1, findings)


def _breaking(profile: Profile) -> dict[str, str]:
    """Variables that break other promises of the profile, and how."""
    names = {"PYTHONHOME": "every Python takes its standard library from there"}
    if any(kernel.usersite for kernel in profile.expect.kernels().values()):
        for name in ("PYTHONNOUSERSITE", "PYTHONUSERBASE"):
            names[name] = "a promised kernel would not see the packages in ~/.local"
    if profile.expect.jupyterlab is not None:
        for name in ("JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE"):
            names[name] = "the token would be the same for all who have the image"
    return names


def _heard(heard: Heard, *, wrong_code: bool) -> Iterator[Finding]:
    """What is wrong with the words, the input and the end of a command behind the entrypoint."""
    show = ShowRun(heard.result.argv)
    if heard.words is None:
        yield Finding("words", _end(heard.result), "the command runs", show=show)
        return
    if heard.words != heard.given:
        pairs = zip_longest(heard.words, heard.given)
        index, (found, given) = next((n, p) for n, p in enumerate(pairs, 1) if p[0] != p[1])
        said = "is missing" if found is None else f"arrives as {found[:80]!r}"
        wanted = "no such word" if given is None else f"{given!r}"
        yield Finding("words", f"word {index} {said}", wanted, show=show)
    if heard.line != LINE:
        yield Finding("input", f"{(heard.line or '')[:80]!r}", f"{LINE!r}", show=show)
    if heard.more.strip():
        said = heard.more.strip().splitlines()[0][:80]
        yield Finding("output", f"prints {said!r} after the command", "nothing more", show=show)
    if heard.result.exit_code != 0 and not wrong_code:
        yield Finding("exit code", _end(heard.result), "exit code 0", show=show)


def _stopped(stopped: Stopped) -> Iterator[Finding]:
    """What is wrong with an entrypoint that is told to end."""
    if stopped.replaced is None:
        return  # It does not run the command, which "words" says.
    if stopped.ignored:
        found = "is ignored"
    elif not stopped.handled and not stopped.caught:
        # A default action does not reach the first process of a container.
        found = "has no effect on a first process without a handler"
    elif stopped.result.ended == "timeout":
        found = "is not passed on, and the command goes on"
    else:
        return
    yield Finding("SIGTERM", found, "ends the command", show=ShowRun(stopped.result.argv))


def _end(answer: CommandResult) -> str:
    """How a start ended; a last line of its standard output, such as the banner's, is no reason."""
    return answer.how_it_ended if answer.stderr.strip() else replace(answer, stdout="").how_it_ended


def _of_a_start(
    path: str, said: CommandResult, started: CommandResult, writable: bool, profile: Profile
) -> Iterator[Finding]:
    """What is wrong with the banner that a start prints, by the script at `path`."""
    expected = promised(profile.expect.banner)
    show = ShowRun(started.argv)
    missing = [text for text in expected.says if text not in started.stdout]
    if missing:
        wanted = f"the banner, which names {missing[0]}"
        source = profile.source("banner", "script")
        yield Finding("entrypoint", "starts without the banner", wanted, source, show)
        return
    twice = any(0 < said.stdout.count(text) < started.stdout.count(text) for text in expected.says)
    if twice:
        source = profile.source("banner", "script")
        yield Finding("entrypoint", "prints the banner more than once", "once", source, show)
    right, wrong = ("writable", "read_only") if writable else ("read_only", "writable")
    for index, text in enumerate(getattr(expected, right)):
        if text not in started.stdout:
            source = profile.source("banner", right, index)
            wanted = f"names {text}, the prefix being {right}"
            yield Finding(path, _printed(started), wanted, source, show)
    for text in getattr(expected, wrong):
        if text in started.stdout:
            wanted = f"does not name {text}, which does not work here"
            yield Finding(path, _printed(started), wanted, show=show)


def _words(ports: tuple[str, ...] | None) -> str | None:
    return None if ports is None else " ".join(sorted(ports))


def _printed(result: CommandResult) -> str:
    """What a script printed, on one line."""
    said = " / ".join(line.strip() for line in result.stdout.splitlines() if line.strip())
    return f"prints {said}" if said else result.how_it_ended


def _value(found: str | None, config: Environment) -> str:
    return f"not set in {config.source}" if found is None else found or "empty"
