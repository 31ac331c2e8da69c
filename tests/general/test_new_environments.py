"""Environments of the user's own on top of the image's."""

from __future__ import annotations

import posixpath

from mlcheck.inspect.environments.facts import (
    EnvArchive,
    EnvAttempt,
    EnvPython,
    EnvSession,
    NewEnv,
)
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, ShowRun, Source, Verdict, judged, not_tried
from mlcheck.profile.catalog import Profile, promised

_SCRIPTS = ("etc/conda/activate.d/", "etc/conda/deactivate.d/")
_MANY = 20
_NONE_MADE = "no environment was made (see newenv-created)"


@rule("newenv-archive", keys=["new_env.archive"])
def test_newenv_archive(archive: EnvArchive, profile: Profile) -> Verdict:
    """The archive from which environments are made has links into the image alone, each to
    something, and the scripts for activation and deactivation.

    Why: Environments are made within a second because the archive has their links ready; one that
    leads nowhere breaks all of them (README of usatlas/ML-Containers, "Fast Way of Env Extension").

    Fix: Make the archive anew, as the last step of the image's build.
    """
    source = profile.source("new_env", "archive")
    show = ShowFile("tar -tvzf", archive.path)
    findings = [Finding(p.path, p.what, "a .tgz of links", source, show) for p in archive.problems]
    notes = []
    dead = []
    for link in archive.links:
        if link.within is None:
            found = f"leads to {link.target[:200]}"
            findings.append(Finding(link.name, found, "a link below baseEnv_dir", source, show))
        elif not link.found and posixpath.basename(link.target) == "*":
            notes.append(f"{link.name} stands for a pattern that matched nothing: harmless")
        elif not link.found:
            dead.append(
                Finding(link.name, f"{link.target[:200]}: leads nowhere", "a file", source, show)
            )
    findings += dead[:_MANY]
    if len(dead) > _MANY:
        more = f"{len(dead) - _MANY} more links lead nowhere"
        findings.append(Finding(archive.path, more, "links to files", source, show))
    into_base = [link for link in archive.links if (link.within or "").startswith("baseEnv_dir/")]
    if not into_base and not archive.problems:
        findings.append(Finding(archive.path, "no link into baseEnv_dir", "links", source, show))
    for directory in _SCRIPTS:
        there = [
            size
            for name, size in archive.files.items()
            if name.startswith(directory) and name.endswith("-python.sh")
        ]
        if not any(there) and not archive.problems:
            found = "empty" if there else "not in the archive"
            findings.append(Finding(f"{directory}*-python.sh", found, "a script", source, show))
    return judged(len(archive.links) + len(_SCRIPTS), findings, notes[:_MANY], archive.unread)


@rule("newenv-created", keys=["new_env"], slow=True)
def test_newenv_created(env: NewEnv, profile: Profile) -> Verdict:
    """Sourced with -p DIR, the script makes an environment on top of the image's and enters it,
    whether DIR is relative or absolute; it can be left, too.

    Why: The image is read-only for most users: this script is how they add packages of their own
    (README of usatlas/ML-Containers, "Env Extension in Container Running").

    Fix: Source the script in bash as the command shows; what it prints says what is missing.
    """
    expected = promised(profile.expect.new_env)
    show = ShowRun(("bash", "-c", f"cd /tmp && . {env.script} -p myEnv; echo $?; ls -l myEnv"))
    source = profile.source("new_env", "script")
    failed = _failed(env.create, env.script)
    findings = [Finding(env.script, failed, "returns 0", source, show)] if failed else []
    if not failed:
        for index, name in enumerate((*expected.entries, expected.reuse)):
            if name not in env.entries:
                where = ("entries", index) if name in expected.entries else ("reuse",)
                named = profile.source("new_env", *where)
                findings.append(Finding(name, "not in the environment", "there", named, show))
        link = env.entries.get("baseEnv_dir")
        if link is not None and link != f"link {env.base}":
            findings.append(Finding("baseEnv_dir", link, f"link {env.base}", source, show))
        if env.create.conda_prefix != env.directory:
            found = env.create.conda_prefix or "not set"
            findings.append(Finding("CONDA_PREFIX", found, env.directory, source, show))
        findings += _not_current(env.directory, env.create, source, show)
        findings += _absolute(env, source)
        for path, complaint in env.leaving.items():
            if complaint:
                script = posixpath.relpath(path, env.directory)
                wanted = "a shell script, which is sourced when the environment is left"
                leave = f"cd /tmp && . {env.script} -p myEnv; . myEnv/{script}"
                seen = ShowRun(("bash", "-c", leave))
                findings.append(Finding(script, complaint, wanted, source, seen))
    notes = []
    if env.seconds is not None and env.python_start_s:
        starts = env.seconds / env.python_start_s
        notes.append(
            f"an environment was made in {env.seconds:.2f} s; one start of Python takes "
            f"{env.python_start_s:.2f} s here, {starts:.0f} of them as long"
        )
    return judged(len(expected.entries) + 6 + len(env.leaving), findings, notes)


@rule("newenv-pyvenv", keys=["new_env"], slow=True)
def test_newenv_pyvenv(env: NewEnv) -> Verdict:
    """pyvenv.cfg of a new environment lets the image's Python see both: its packages and those of
    the image.

    Why: Python looks for pyvenv.cfg beside its executable and finds by it the packages of both
    (https://docs.python.org/3/library/site.html).

    Fix: Write home, include-system-site-packages = true and version as the image's Python has them.
    """
    if _none_made(env):
        return not_tried(_NONE_MADE)
    show = ShowRun(("bash", "-c", f"cd /tmp && . {env.script} -p myEnv; cat myEnv/pyvenv.cfg"))
    if env.pyvenv is None:
        finding = Finding("pyvenv.cfg", "not there", "a readable file", show=show)
        return judged(1, [finding])
    python = next((python for python in env.create.pythons if python is not None), None)
    wanted = {"home": f"{env.base}/bin", "include-system-site-packages": "true"}
    if python is not None:
        wanted["version"] = python.version
    findings = []
    for key, value in wanted.items():
        found = env.pyvenv.get(key)
        same = found == value if key == "version" else (found or "").lower() == value.lower()
        if not same:
            findings.append(Finding(key, found or "not set", value, show=show))
    return judged(len(wanted), findings)


@rule("newenv-path", keys=["new_env"], slow=True)
def test_newenv_path(env: NewEnv) -> Verdict:
    """In a new environment its own packages come before the image's: what is installed there hides
    the image's copy, and all others stay.

    Why: Who installs another version of a package expects to get it (README of
    usatlas/ML-Containers, "Env Extension in Container Running").

    Fix: See that pyvenv.cfg is beside the environment's bin/, and that PYTHONPATH does not name the
    image's packages.
    """
    if _none_made(env):
        return not_tried(_NONE_MADE)
    name, pythons = env.package, env.create.pythons
    show = ShowRun(
        (
            "bash",
            "-c",
            f"cd /tmp && . {env.script} -p myEnv; python3 -c 'import sys; print(sys.path)'",
        )
    )
    before = pythons[0] if pythons else None
    after = pythons[1] if len(pythons) > 1 else None
    if before is None:
        reason = "python3 does not answer in the environment"
        return judged(1, [Finding("python3", reason, "its sys.path", show=show)])
    findings = []
    own = f"{env.directory}/lib/"
    site = [index for index, entry in enumerate(before.path) if _is_site(entry, own)]
    base = [index for index, entry in enumerate(before.path) if _of_base(entry, env)]
    shown = ", ".join(before.path)[:500]
    if not site:
        wanted = f"an entry {own}python*/site-packages"
        findings.append(Finding("sys.path", shown, wanted, show=show))
    elif base and base[0] < site[0]:
        wanted = "the environment's site-packages before the image's"
        findings.append(Finding("sys.path", shown, wanted, show=show))
    if not base or before.package is None:
        wanted = "the packages of the image, too"
        text = f"no {name} is found" if base else shown
        findings.append(Finding("sys.path", text, wanted, show=show))
    if not findings:
        findings += _installed(env, after, show)
    return judged(3, findings)


@rule("newenv-reuse", keys=["new_env"], slow=True)
def test_newenv_reuse(env: NewEnv, profile: Profile) -> Verdict:
    """A new session enters the environment by the script in it, by any path and also twice, and
    finds what was installed.

    Why: An environment is used for weeks: the next session enters it by its setup script (README of
    usatlas/ML-Containers, "Env Extension in Container Running").

    Fix: Let the script make its environment's setup script, with what a new session needs.
    """
    if _none_made(env):
        return not_tried(_NONE_MADE)
    name = promised(profile.expect.new_env).reuse
    source = profile.source("new_env", "reuse")
    commands = f"cd /tmp && . {env.script} -p myEnv; bash -c '. myEnv/{name}; which python3'"
    show = ShowRun(("bash", "-c", commands))
    failed = _failed(env.reuse, name)
    if failed:
        return judged(1, [Finding(name, failed, "returns 0", source, show)])
    findings = _not_current(env.directory, env.reuse, source, show)
    if env.reuse.conda_prefix != env.directory:
        found = env.reuse.conda_prefix or "not set"
        findings.append(Finding("CONDA_PREFIX", found, env.directory, source, show))
    if not findings:
        twice = f"cd /tmp && . {env.script} -p myEnv; . myEnv/{name}; . myEnv/{name}; echo $?"
        again = ShowRun(("bash", "-c", twice))
        failed = _failed(env.again, name)
        if failed:
            found = f"sourced twice by a relative path, it {failed}"
            findings.append(Finding(name, found, "returns 0", source, again))
        else:
            findings += _not_current(env.directory, env.again, source, again)
    python = env.reuse.pythons[0] if env.reuse.pythons else None
    made = env.create.pythons[1] if len(env.create.pythons) > 1 else None
    if findings or python is None or made is None:
        return judged(3, findings)
    if (python.package, python.module) != (made.package, made.module):
        found = f"{env.package} {python.package} from {python.module}"
        wanted = f"{made.package} from {made.module}, as in the session that installed it"
        findings.append(Finding(env.package, found, wanted, source, show))
    return judged(3, findings)


@rule("newenv-usage", keys=["new_env"], slow=True)
def test_newenv_usage(env: NewEnv, profile: Profile) -> Verdict:
    """Sourced with -h the script tells how to use it and returns 0; without a directory it returns
    another number; neither makes anything.

    Why: Asked for help, a script must not make anything; without the directory that it needs, it
    must not look as if it had worked (README of usatlas/ML-Containers, "Fast Way of Env
    Extension").

    Fix: Return after the usage, and before anything is made.
    """
    source = profile.source("new_env", "script")
    findings = []
    for subject, words, attempt in (
        ("-h", " -h", env.help),
        ("no directory", "", env.missing),
    ):
        show = ShowRun(("bash", "-c", f"cd /tmp && . {env.script}{words}; echo $?"))
        wanted = "its usage, and 0" if words else "a message, and another number than 0"
        found = _came_to(attempt)
        if found is None and (attempt.code == 0) != bool(words):
            found = f"returns {attempt.code}"
        if found is None and not attempt.output.strip():
            found = "prints nothing"
        if found is None and attempt.made:
            found = f"makes {', '.join(attempt.made[:5])}"
            wanted = "nothing is made"
        if found is not None:
            findings.append(Finding(subject, found, wanted, source, show))
    return judged(2, findings)


@rule("newenv-executed", keys=["new_env"], slow=True)
def test_newenv_executed(env: NewEnv, profile: Profile) -> Verdict:
    """Run as a program instead of sourced, the script ends.

    Why: `return` does nothing outside of a function or a sourced script: the one of
    usatlas/ML-Containers then reads its options for ever (bash(1), return).

    Fix: `return` does nothing in a program: use `return 2> /dev/null || exit`.
    """
    argv = ("timeout", f"{env.executed.limit_s:.0f}", "bash", env.script, "-h")
    found = _came_to(env.executed)
    findings = []
    if found is not None:
        source = profile.source("new_env", "script")
        findings.append(Finding(env.script, found, "it ends by itself", source, ShowRun(argv)))
    return judged(1, findings)


def _installed(env: NewEnv, after: EnvPython | None, show: ShowRun) -> list[Finding]:
    """Whether the version that pip installed on top is the one that is imported."""
    name, wanted = env.package, f"{env.package} {env.installed} of {env.directory}"
    if env.pip is None or env.pip.exit_code != 0:
        found = "nothing" if env.pip is None else env.pip.how_it_ended
        found += f": {env.pip.stdout}" if env.pip is not None and env.pip.stdout else ""
        return [Finding(f"pip install {name}", found, "pip installs", show=show)]
    if after is None:
        return [Finding(name, "python3 does not answer any more", wanted, show=show)]
    own = after.module is not None and after.module.startswith(f"{env.directory}/lib/")
    if after.package != env.installed or not own:
        found = f"{name} {after.package}, imported from {after.module}"
        return [Finding(name, found, wanted, show=show)]
    return []


def _none_made(env: NewEnv) -> bool:
    return bool(_failed(env.create, env.script)) or not env.entries


def _failed(session: EnvSession, script: str) -> str:
    """How sourcing `script` went wrong; "" when it did not."""
    if session.code == 0 and session.result.ended == "exited":
        return ""
    lines = session.result.stderr.strip().splitlines()
    said = f": {lines[-1].strip()[:300]}" if lines else ""
    if session.code is not None:
        return f"returns {session.code}{said}"
    if session.result.ended == "timeout":
        return f"did not come back in {session.result.seconds:.0f} s"
    return f"ends the shell that sources it, {session.result.how_it_ended}"


def _absolute(env: NewEnv, source: Source | None) -> list[Finding]:
    """Findings when none is made in a directory with an absolute name, from elsewhere."""
    show = ShowRun(
        ("bash", "-c", f"cd / && . {env.script} -p /tmp/myEnv; echo $?; ls -l /tmp/myEnv")
    )
    session, directory = env.absolute, env.absolute_directory
    failed = _failed(session, env.script)
    if failed:
        found = f"with an absolute directory, it {failed}"
        return [Finding(env.script, found, "returns 0", source, show)]
    if session.conda_prefix != directory:
        found = session.conda_prefix or "not set"
        return [Finding("CONDA_PREFIX", found, directory, source, show)]
    return _not_current(directory, session, source, show)


def _not_current(
    directory: str, session: EnvSession, source: Source | None, show: ShowRun
) -> list[Finding]:
    """Findings when `python3` of a session is not the environment's."""
    python = session.pythons[0] if session.pythons else None
    if python is None:
        return [Finding("python3", "does not answer", "the environment's Python", source, show)]
    if python.prefix != directory:
        return [Finding("sys.prefix", python.prefix, directory, source, show)]
    return []


def _came_to(attempt: EnvAttempt) -> str | None:
    """Why an attempt did not come back; None when it did."""
    if attempt.result.ended != "exited":
        printing = ", printing all the time" if attempt.result.ended == "output-limit" else ""
        return f"did not end within {attempt.limit_s:.0f} s: it loops{printing}"
    return None if attempt.code is not None else "ends the shell that sources it"


def _is_site(entry: str, own: str) -> bool:
    return entry.startswith(own) and entry.rstrip("/").endswith("/site-packages")


def _of_base(entry: str, env: NewEnv) -> bool:
    """Whether an entry of sys.path is the image's own site-packages."""
    places = (f"{env.base}/lib/", f"{env.directory}/baseEnv_dir/lib/")
    return any(_is_site(entry, place) for place in places)
