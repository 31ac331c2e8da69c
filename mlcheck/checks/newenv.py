"""Environments of the user's own on top of the image's."""

from __future__ import annotations

import posixpath

from mlcheck.checks.system import how_it_ended
from mlcheck.facts import EnvArchive, EnvAttempt, EnvPython, EnvSession, NewEnv
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Source, Verdict

CREATED = Rule(
    "newenv-created",
    "Sourced with -p DIR, the script makes an environment on top of the image's and enters it.",
    "Source the script in bash as the command shows; what it prints says what is missing.",
    "The image is read-only for most users: this script is how they add packages of their own "
    '(README of usatlas/ML-Containers, "Env Extension in Container Running").',
    keys=("new_env",),
)
PYVENV = Rule(
    "newenv-pyvenv",
    "pyvenv.cfg of a new environment lets the image's Python see both: its packages and those of "
    "the image.",
    "Write home, include-system-site-packages = true and version as the image's Python has them.",
    "Python looks for pyvenv.cfg beside its executable and finds by it the packages of both "
    "(https://docs.python.org/3/library/site.html).",
    keys=("new_env",),
)
PATH = Rule(
    "newenv-path",
    "In a new environment its own packages come before the image's: what is installed there "
    "hides the image's copy, and all others stay.",
    "See that pyvenv.cfg is beside the environment's bin/, and that PYTHONPATH does not name the "
    "image's packages.",
    "Who installs another version of a package expects to get it (README of "
    'usatlas/ML-Containers, "Env Extension in Container Running").',
    keys=("new_env",),
)
REUSE = Rule(
    "newenv-reuse",
    "A new session enters the environment by the script in it, and finds what was installed.",
    "Let the script make its environment's setup script, with what a new session needs.",
    "An environment is used for weeks: the next session enters it by its setup script (README of "
    'usatlas/ML-Containers, "Env Extension in Container Running").',
    keys=("new_env",),
)
USAGE = Rule(
    "newenv-usage",
    "Sourced with -h the script tells how to use it and returns 0; without a directory it returns "
    "another number; neither makes anything.",
    "Return after the usage, and before anything is made.",
    "Asked for help, a script must not make anything; without the directory that it needs, it "
    'must not look as if it had worked (README of usatlas/ML-Containers, "Fast Way of Env '
    'Extension").',
    keys=("new_env",),
)
EXECUTED = Rule(
    "newenv-executed",
    "Run as a program instead of sourced, the script ends.",
    "`return` does nothing in a program: use `return 2> /dev/null || exit`.",
    "`return` does nothing outside of a function or a sourced script: the one of "
    "usatlas/ML-Containers then reads its options for ever (bash(1), return).",
    keys=("new_env",),
)
ARCHIVE = Rule(
    "newenv-archive",
    "The archive from which environments are made has links into the image alone, each to "
    "something, and the scripts for activation and deactivation.",
    "Make the archive anew, as the last step of the image's build.",
    "Environments are made within a second because the archive has their links ready; one that "
    'leads nowhere breaks all of them (README of usatlas/ML-Containers, "Fast Way of Env '
    'Extension").',
    keys=("new_env.archive",),
)

_SCRIPTS = ("etc/conda/activate.d/", "etc/conda/deactivate.d/")
_MANY = 20


def created(fact: NewEnv | None, profile: Profile) -> Verdict:
    """The script's answer, what is in the environment, and which Python is current then."""
    expected = profile.expect.new_env
    if fact is None or expected is None:
        return CREATED.skipped("the profile promises no environments on top of the image's")
    show = ShowRun(("bash", "-c", f"cd /tmp && . {fact.script} -p myEnv; echo $?; ls -l myEnv"))
    source = profile.source("new_env", "script")
    failed = _failed(fact.create, fact.script)
    findings = [Finding(fact.script, failed, "returns 0", source, show)] if failed else []
    if not failed:
        for index, name in enumerate((*expected.entries, expected.reuse)):
            if name not in fact.entries:
                where = ("entries", index) if name in expected.entries else ("reuse",)
                named = profile.source("new_env", *where)
                findings.append(Finding(name, "not in the environment", "there", named, show))
        link = fact.entries.get("baseEnv_dir")
        if link is not None and link != f"link {fact.base}":
            findings.append(Finding("baseEnv_dir", link, f"link {fact.base}", source, show))
        if fact.create.conda_prefix != fact.directory:
            found = fact.create.conda_prefix or "not set"
            findings.append(Finding("CONDA_PREFIX", found, fact.directory, source, show))
        findings += _not_current(fact, fact.create, source, show)
    notes = []
    if fact.seconds is not None and fact.python_start_s:
        starts = fact.seconds / fact.python_start_s
        notes.append(
            f"an environment was made in {fact.seconds:.2f} s; one start of Python takes "
            f"{fact.python_start_s:.2f} s here, {starts:.0f} of them as long"
        )
    return CREATED.judged(len(expected.entries) + 3, findings, notes)


def pyvenv(fact: NewEnv | None, profile: Profile) -> Verdict:
    """pyvenv.cfg as the documentation of Python's `site` has it."""
    if fact is None or _none_made(fact):
        return _skipped(PYVENV, fact)
    show = ShowRun(("bash", "-c", f"cd /tmp && . {fact.script} -p myEnv; cat myEnv/pyvenv.cfg"))
    if fact.pyvenv is None:
        finding = Finding("pyvenv.cfg", "not there", "a readable file", show=show)
        return PYVENV.judged(1, [finding])
    python = next((python for python in fact.create.pythons if python is not None), None)
    wanted = {"home": f"{fact.base}/bin", "include-system-site-packages": "true"}
    if python is not None:
        wanted["version"] = python.version
    findings = []
    for key, value in wanted.items():
        found = fact.pyvenv.get(key)
        same = found == value if key == "version" else (found or "").lower() == value.lower()
        if not same:
            findings.append(Finding(key, found or "not set", value, show=show))
    return PYVENV.judged(len(wanted), findings)


def path(fact: NewEnv | None, profile: Profile) -> Verdict:
    """Where a package comes from, before and after another version was installed on top."""
    if fact is None or _none_made(fact):
        return _skipped(PATH, fact)
    name, pythons = fact.package, fact.create.pythons
    show = ShowRun(
        (
            "bash",
            "-c",
            f"cd /tmp && . {fact.script} -p myEnv; python3 -c 'import sys; print(sys.path)'",
        )
    )
    before = pythons[0] if pythons else None
    after = pythons[1] if len(pythons) > 1 else None
    if before is None:
        reason = "python3 does not answer in the environment"
        return PATH.judged(1, [Finding("python3", reason, "its sys.path", show=show)])
    findings = []
    own = f"{fact.directory}/lib/"
    site = [index for index, entry in enumerate(before.path) if _is_site(entry, own)]
    base = [index for index, entry in enumerate(before.path) if _of_base(entry, fact)]
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
        findings += _installed(fact, after, show)
    return PATH.judged(3, findings)


def _installed(fact: NewEnv, after: EnvPython | None, show: ShowRun) -> list[Finding]:
    """Whether the version that pip installed on top is the one that is imported."""
    name, wanted = fact.package, f"{fact.package} {fact.installed} of {fact.directory}"
    if fact.pip is None or fact.pip.exit_code != 0:
        found = "nothing" if fact.pip is None else how_it_ended(fact.pip)
        found += f": {fact.pip.stdout}" if fact.pip is not None and fact.pip.stdout else ""
        return [Finding(f"pip install {name}", found, "pip installs", show=show)]
    if after is None:
        return [Finding(name, "python3 does not answer any more", wanted, show=show)]
    own = after.module is not None and after.module.startswith(f"{fact.directory}/lib/")
    if after.package != fact.installed or not own:
        found = f"{name} {after.package}, imported from {after.module}"
        return [Finding(name, found, wanted, show=show)]
    return []


def reuse(fact: NewEnv | None, profile: Profile) -> Verdict:
    """A new bash, in which only the environment's own script is sourced."""
    if fact is None or _none_made(fact):
        return _skipped(REUSE, fact)
    expected = profile.expect.new_env
    name = expected.reuse if expected is not None else ""
    source = profile.source("new_env", "reuse")
    commands = f"cd /tmp && . {fact.script} -p myEnv; bash -c '. myEnv/{name}; which python3'"
    show = ShowRun(("bash", "-c", commands))
    failed = _failed(fact.reuse, name)
    if failed:
        return REUSE.judged(1, [Finding(name, failed, "returns 0", source, show)])
    findings = _not_current(fact, fact.reuse, source, show)
    if fact.reuse.conda_prefix != fact.directory:
        found = fact.reuse.conda_prefix or "not set"
        findings.append(Finding("CONDA_PREFIX", found, fact.directory, source, show))
    python = fact.reuse.pythons[0] if fact.reuse.pythons else None
    made = fact.create.pythons[1] if len(fact.create.pythons) > 1 else None
    if findings or python is None or made is None:
        return REUSE.judged(3, findings)
    if (python.package, python.module) != (made.package, made.module):
        found = f"{fact.package} {python.package} from {python.module}"
        wanted = f"{made.package} from {made.module}, as in the session that installed it"
        findings.append(Finding(fact.package, found, wanted, source, show))
    return REUSE.judged(3, findings)


def usage(fact: NewEnv | None, profile: Profile) -> Verdict:
    """-h, and no directory."""
    if fact is None:
        return USAGE.skipped("the profile promises no environments on top of the image's")
    source = profile.source("new_env", "script")
    findings = []
    for subject, words, attempt in (
        ("-h", " -h", fact.help),
        ("no directory", "", fact.missing),
    ):
        show = ShowRun(("bash", "-c", f"cd /tmp && . {fact.script}{words}; echo $?"))
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
    return USAGE.judged(2, findings)


def executed(fact: NewEnv | None, profile: Profile) -> Verdict:
    """`bash SCRIPT -h` ends by itself; upstream's loops for ever."""
    if fact is None:
        return EXECUTED.skipped("the profile promises no environments on top of the image's")
    argv = ("timeout", f"{fact.executed.limit_s:.0f}", "bash", fact.script, "-h")
    found = _came_to(fact.executed)
    findings = []
    if found is not None:
        source = profile.source("new_env", "script")
        findings.append(Finding(fact.script, found, "it ends by itself", source, ShowRun(argv)))
    return EXECUTED.judged(1, findings)


def archive(fact: EnvArchive | None, profile: Profile) -> Verdict:
    """Members and links of newEnv-base.tgz."""
    if fact is None:
        return ARCHIVE.skipped("the profile promises no archive of links")
    source = profile.source("new_env", "archive")
    show = ShowFile("tar -tvzf", fact.path)
    findings = [Finding(p.path, p.what, "a .tgz of links", source, show) for p in fact.problems]
    notes = []
    dead = []
    for link in fact.links:
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
        findings.append(Finding(fact.path, more, "links to files", source, show))
    into_base = [link for link in fact.links if (link.within or "").startswith("baseEnv_dir/")]
    if not into_base and not fact.problems:
        findings.append(Finding(fact.path, "no link into baseEnv_dir", "links", source, show))
    for directory in _SCRIPTS:
        there = [
            size
            for name, size in fact.files.items()
            if name.startswith(directory) and name.endswith("-python.sh")
        ]
        if not any(there) and not fact.problems:
            found = "empty" if there else "not in the archive"
            findings.append(Finding(f"{directory}*-python.sh", found, "a script", source, show))
    return ARCHIVE.judged(len(fact.links) + len(_SCRIPTS), findings, notes[:_MANY])


def _none_made(fact: NewEnv) -> bool:
    return bool(_failed(fact.create, fact.script)) or not fact.entries


def _skipped(rule: Rule, fact: NewEnv | None) -> Verdict:
    if fact is None:
        return rule.skipped("the profile promises no environments on top of the image's")
    return rule.not_tried("no environment was made (see newenv-created)")


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
    return f"ends the shell that sources it, {how_it_ended(session.result)}"


def _not_current(
    fact: NewEnv, session: EnvSession, source: Source | None, show: ShowRun
) -> list[Finding]:
    """Findings when `python3` of a session is not the environment's."""
    python = session.pythons[0] if session.pythons else None
    if python is None:
        return [Finding("python3", "does not answer", "the environment's Python", source, show)]
    if python.prefix != fact.directory:
        return [Finding("sys.prefix", python.prefix, fact.directory, source, show)]
    return []


def _came_to(attempt: EnvAttempt) -> str | None:
    """Why an attempt did not come back; None when it did."""
    if attempt.result.ended != "exited":
        printing = ", printing all the time" if attempt.result.ended == "output-limit" else ""
        return f"did not end within {attempt.limit_s:.0f} s: it loops{printing}"
    return None if attempt.code is not None else "ends the shell that sources it"


def _is_site(entry: str, own: str) -> bool:
    return entry.startswith(own) and entry.rstrip("/").endswith("/site-packages")


def _of_base(entry: str, fact: NewEnv) -> bool:
    """Whether an entry of sys.path is the image's own site-packages."""
    places = (f"{fact.base}/lib/", f"{fact.directory}/baseEnv_dir/lib/")
    return any(_is_site(entry, place) for place in places)
