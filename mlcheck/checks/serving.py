"""An image that serves: its user, its server, and what is installed for it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence

from mlcheck.checks.startup import CONFIGURED
from mlcheck.facts import (
    Accounts,
    Agreements,
    Environment,
    Programs,
    ReadFiles,
    Started,
    Writability,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Source, Verdict

USER = Rule(
    "user",
    "The image runs as the promised user, who is not root.",
    "Create the user in the image's build, and end the build with USER.",
    "Final images end with USER jovyan, so that nobody in a notebook is root (README of "
    "StatCan/aaw-kubeflow-containers; https://jupyter-docker-stacks.readthedocs.io).",
    keys=("user",),
)
WRITABLE = Rule(
    "user-writable",
    "The image's user can change everything in its home and in the prefix: else a package that "
    "was installed as root can neither be updated nor removed.",
    "End every RUN that installs something with `fix-permissions $CONDA_DIR "
    "/home/$NB_USER`, in the same layer.",
    "What root installs during the build belongs to root: users can then neither update nor "
    'remove it (README of StatCan/aaw-kubeflow-containers, "Set User File Permissions after '
    'Every pip/conda Install").',
    keys=("user.writable",),
)
INSTALLS = Rule(
    "user-installs",
    "The image's user can install a package in the prefix with pip, and take it away again.",
    "Give the user the prefix with fix-permissions, in the layer that adds the files.",
    "Modes can look right and pip fail all the same; users install packages in their notebooks "
    '(README of StatCan/aaw-kubeflow-containers, "Set User File Permissions after Every '
    'pip/conda Install").',
    keys=(
        "user",
        "server",
    ),
)
STARTS = Rule(
    "server-starts",
    "Started as users start it, the image serves its page, as its own user, under the prefix that "
    "it is given.",
    "Start the image by hand, and see the first error; the server's base URL must come from the "
    "variable of the prefix.",
    "Kubeflow reaches a notebook server by the path in NB_PREFIX alone; one that answers "
    'elsewhere shows an empty page (README of StatCan/aaw-kubeflow-containers, "Automated '
    'Testing").',
    keys=("server",),
)
HEALTH = Rule(
    "server-health",
    "The image's health check succeeds while its server runs.",
    "Correct HEALTHCHECK, or the paths that answer it.",
    "A platform restarts a container whose health check fails, in the midst of somebody's work "
    "(HEALTHCHECK of https://github.com/jupyter/docker-stacks).",
    keys=("server",),
)
ANY_USER = Rule(
    "server-any-user",
    "The server also starts for another user number in the group of the image's user, as a "
    "platform may choose one.",
    "Let the group write the home and the prefix (fix-permissions), and read no file that belongs "
    "to one user alone.",
    "Platforms may start an image under a number of their own choice in the group `users`, as "
    "the tests of jupyter/docker-stacks do "
    "(https://jupyter-docker-stacks.readthedocs.io/en/latest/using/common.html).",
    keys=(
        "server",
        "user",
    ),
)
EXECUTABLE = Rule(
    "programs-executable",
    "Every program that is installed for users can be executed by them.",
    "Set the mode (chmod 0755, or COPY --chmod=0755) in the image's build.",
    "A program copied in without its mode fails with `Permission denied`, as mc and trino did in "
    "StatCan/aaw-kubeflow-containers.",
    keys=("scripts.installed",),
)
WRAPPERS = Rule(
    "wrapper-targets",
    "Every wrapper finds the program to which it hands its arguments on.",
    "Install the program, or take the wrapper out of images that lack it.",
    "A wrapper is copied into all images and its program installed in one: there it works, "
    "elsewhere it fails when it is called (StatCan/aaw-kubeflow-containers).",
    keys=("scripts.installed",),
)
START_FILES = Rule(
    "start-files",
    "Every file that the start script reads is in the image.",
    "Copy the file into the image and let no later layer delete it; what may be missing is tested "
    "for ([ -f FILE ]) before it is read.",
    "A start script that reads a file which a later layer deletes fails with the first user, not "
    "in the build (StatCan/aaw-kubeflow-containers).",
    keys=("server",),
)
AGREEMENTS = Rule(
    "agreements",
    "Files that tell the same thing, such as the version of an extension, agree.",
    "Write down what is installed; best let the build generate it.",
    "A version that is written down twice is changed once, as that of the language pack of "
    "code-server was (StatCan/aaw-kubeflow-containers).",
    keys=("agreements",),
)

_NOT_STARTED = "the server does not start (see server-starts)"
_CAN_WRITE = (
    "import os, sysconfig; place = sysconfig.get_paths()['purelib']; "
    "print(os.getuid(), 'can' if os.access(place, os.W_OK) else 'cannot', 'write', place)"
)


def _by_hand(fact: Started, variable: str) -> ShowRun:
    """The image's own command, with the prefix that it was given."""
    return ShowRun(("env", f"{variable}={fact.prefix}", *(fact.argv or ("sh",))))


def _fixed(pattern: str) -> str:
    """The directory above the first part of a path that is a pattern."""
    return re.split(r"[*?\[]", pattern)[0].rpartition("/")[0] or "/"


ANY_UID = 54321
"""A number that no account has."""


def user(accounts: Accounts, config: Environment, profile: Profile) -> Verdict:
    """The account, and USER of the configuration."""
    expected = profile.expect.user
    if expected is None:
        return USER.skipped("the profile promises no user")
    source = profile.source("user")
    show = ShowFile("cat -v", "/etc/passwd")
    wanted = f"{expected.name}, {expected.uid}:{expected.gid}"
    findings = []
    notes = []
    account = accounts.accounts.get(expected.name)
    if account is None:
        findings.append(Finding(expected.name, "not in /etc/passwd", wanted, source, show))
    elif (account.uid, account.gid) != (expected.uid, expected.gid):
        found = f"{account.uid}:{account.gid} in /etc/passwd"
        findings.append(Finding(expected.name, found, wanted, source, show))
    if config.user is None:
        notes.append(f"USER: {config.source} does not tell it")
        return USER.judged(1, findings, notes)
    name, _, group = config.user.partition(":")
    names = (expected.name, str(expected.uid))
    if name not in names or group not in ("", "users", str(expected.gid)):
        findings.append(Finding("USER", config.user or "root", wanted, source, CONFIGURED))
    return USER.judged(2, findings, notes)


def writable(fact: Writability, profile: Profile) -> Verdict:
    """Files and directories below `user.writable`, by directory."""
    expected = profile.expect.user
    if expected is None or not expected.writable:
        return WRITABLE.skipped("the profile promises nothing that a user may write")
    source = profile.source("user", "writable")
    findings = [
        Finding(path, "is not there", "a directory", source, ShowFile("ls -ld", path))
        for path in fact.missing
    ]
    for closed in fact.closed:
        file = closed.example
        owner = f", {file.uid}:{file.gid}" if fact.owners else ""
        found = f"{closed.count} of it: {file.path} has mode {file.mode:04o}{owner}"
        bits = "set-gid" if closed.no_setgid else f"writable for {expected.name}"
        where = profile.source("user", "setgid") if closed.no_setgid else source
        findings.append(Finding(closed.path, found, bits, where, ShowFile("ls -ld", file.path)))
    notes = []
    if not fact.owners:
        notes.append(
            "the files do not have the owners that the image gave them: judged by what their "
            "group may write"
        )
    return WRITABLE.judged(fact.looked_at, findings, notes)


def installs(fact: Started, profile: Profile) -> Verdict:
    """pip installs a wheel, without any network."""
    expected = profile.expect.user
    if expected is None or profile.expect.prefix is None:
        return INSTALLS.skipped("the profile promises no user")
    if profile.expect.server is None:
        return INSTALLS.skipped("the profile promises no server, whose user it would be")
    if fact.trouble is not None or fact.busy:
        return INSTALLS.not_tried("the image does not start (see server-starts)")
    if fact.read_only:
        return INSTALLS.not_tried(
            "this engine lets nobody write the image's files: docker and podman do"
        )
    findings = []
    if fact.installed is not None:
        show = ShowRun(("python3", "-c", _CAN_WRITE))
        expectation = f"installs it in {profile.expect.prefix}"
        source = profile.source("user", "writable") or profile.source("user")
        findings = [Finding("pip", fact.installed, expectation, source, show)]
    return INSTALLS.judged(1, findings)


def starts(fact: Started, config: Environment, profile: Profile) -> Verdict:
    """The page behind the prefix; the user, where the engine starts images as theirs."""
    expected = profile.expect.user
    numbers = None
    if expected is not None and config.user is not None:
        numbers = (expected.uid, expected.gid)
    return _served(STARTS, fact, profile, numbers)


def any_user(fact: Started | None, profile: Profile) -> Verdict:
    """The same under a number that no account has."""
    if profile.expect.server is None:
        return ANY_USER.skipped("the profile promises no server")
    if fact is None:
        return ANY_USER.not_tried(
            "this engine starts every image as the user who runs it: docker and podman choose one"
        )
    gid = profile.expect.user.gid if profile.expect.user else 0
    return _served(ANY_USER, fact, profile, (ANY_UID, gid))


def _served(
    rule: Rule, fact: Started, profile: Profile, numbers: tuple[int, int] | None
) -> Verdict:
    expected = profile.expect.server
    if expected is None:
        return rule.skipped("the profile promises no server")
    source = profile.source("server")
    show = _by_hand(fact, expected.prefix)
    if fact.busy:
        return rule.not_judged(
            f"Another program listens at port {expected.port} of this network already.",
            "Run without --network, so that the image has a network of its own.",
        )
    if fact.trouble is not None or fact.error is not None:
        what = fact.trouble or fact.error or ""
        wanted = f"answers at port {expected.port}"
        command = " ".join(fact.argv) or "CMD"
        return rule.judged(1, [Finding(command, what, wanted, source, show)])
    findings = []
    if numbers is not None and (fact.uid, fact.gid) != numbers:
        found = f"runs as {fact.uid}:{fact.gid}"
        where = profile.source("user")
        wanted = "{}:{}".format(*numbers)
        findings.append(Finding("the running image", found, wanted, where, ShowRun(("id",))))
    page = next((one for one in fact.pages if one.asked == f"{fact.prefix}/"), None)
    wanted = f"HTTP 200 at {fact.prefix}{expected.page}"
    if page is None or page.status != 200:
        found = f"HTTP {page.status}" if page and page.status else "no answer"
        findings.append(Finding("the prefix", f"{found} at {fact.prefix}/", wanted, source, show))
    else:
        if page.path.rstrip("/") != f"{fact.prefix}{expected.page}".rstrip("/"):
            where = profile.source("server", "page")
            findings.append(Finding("the prefix", f"leads to {page.path}", wanted, where, show))
        if not page.title.startswith(expected.title):
            where = profile.source("server", "title")
            found = page.title or "no title"
            title = f"begins with {expected.title}"
            findings.append(Finding("the page's title", found, title, where, show))
    return rule.judged(2, findings, [f"answered after {fact.seconds:.1f} s"])


def health(fact: Started, config: Environment, profile: Profile) -> Verdict:
    """HEALTHCHECK is the promised one and succeeds; the promised paths answer."""
    expected = profile.expect.server
    if expected is None or not (expected.healthcheck or expected.healthy):
        return HEALTH.skipped("the profile promises no health check")
    if fact.trouble is not None or fact.busy or fact.error is not None:
        return HEALTH.not_tried(_NOT_STARTED)
    source = profile.source("server", "healthcheck")
    findings = []
    notes = []
    command = " ".join(expected.healthcheck)
    if expected.healthcheck:
        promised = [("CMD", *expected.healthcheck), ("CMD-SHELL", command)]
        if config.healthcheck is None:
            notes.append(f"HEALTHCHECK: {config.source} does not tell it")
        elif config.healthcheck not in promised:
            found = " ".join(config.healthcheck) or "not set"
            findings.append(Finding("HEALTHCHECK", found, command, source, CONFIGURED))
        if fact.healthcheck is not None:
            show = ShowRun(expected.healthcheck)
            wanted = "ends with 0 while the server runs"
            findings.append(Finding(command, fact.healthcheck, wanted, source, show))
    answers = {page.asked: page for page in fact.pages}
    for index, path in enumerate(expected.healthy):
        page = answers.get(path)
        if page is None or page.status != 200:
            found = f"HTTP {page.status}" if page and page.status else "no answer"
            where = profile.source("server", "healthy", index)
            show = _by_hand(fact, expected.prefix)
            findings.append(Finding(path, found, "HTTP 200", where, show))
    return HEALTH.judged(len(expected.healthy) + bool(expected.healthcheck), findings, notes)


def executable(fact: Programs, profile: Profile) -> Verdict:
    """The execute bits of the programs that `scripts.installed` names."""
    promised = profile.expect.scripts
    if promised is None or not promised.installed:
        return EXECUTABLE.skipped("the profile names no installed programs")
    findings = [
        Finding(p.path, p.what, "a readable program", show=ShowFile("ls -l", p.path))
        for p in fact.problems
    ]
    for program in fact.programs:
        if program.mode & 0o111 != 0o111:
            found = f"mode {program.mode:04o}"
            show = ShowFile("ls -l", program.path)
            source = _pattern(program.path, profile)
            findings.append(Finding(program.path, found, "executable by all", source, show))
    findings += _not_installed(fact, profile)
    nothing = _nothing_installed(promised.installed)
    return EXECUTABLE.judged(len(fact.programs), findings, nothing=nothing)


def wrappers(fact: Programs, profile: Profile) -> Verdict:
    """What wrappers call is on PATH."""
    promised = profile.expect.scripts
    if promised is None or not promised.installed:
        return WRAPPERS.skipped("the profile names no installed programs")
    findings = [
        Finding(
            program.path,
            f"calls {name}, which is not there",
            "a program on PATH",
            _pattern(program.path, profile),
            ShowFile("cat -v", program.path),
        )
        for program in fact.programs
        for name in program.calls
    ]
    nothing = _nothing_installed(promised.installed)
    return WRAPPERS.judged(len(fact.programs), findings, nothing=nothing)


def _nothing_installed(patterns: Sequence[str]) -> str:
    return f"no program is there whose path fits {', '.join(patterns)}"


def _not_installed(fact: Programs, profile: Profile) -> Iterator[Finding]:
    """What the profile names that is not there: a program, or the directory of a pattern."""
    assert profile.expect.scripts is not None
    there = {program.path for program in fact.programs} | {p.path for p in fact.problems}
    for index, pattern in enumerate(profile.expect.scripts.installed):
        source = profile.source("scripts", "installed", index)
        directory = pattern.rpartition("/")[0] or "/"
        if directory in fact.no_directories:
            show = ShowFile("ls -ld", directory)
            yield Finding(directory, "no such directory", "a directory", source, show)
        elif not re.search(r"[*?\[]", pattern) and pattern not in there:
            show = ShowFile("ls -l", pattern)
            yield Finding(pattern, "no such file", "a program", source, show)


def _pattern(path: str, profile: Profile) -> Source | None:
    promised = profile.expect.scripts
    patterns = promised.installed if promised else ()
    index = next((n for n, one in enumerate(patterns) if fnmatch.fnmatchcase(path, one)), 0)
    return profile.source("scripts", "installed", index)


def start_files(fact: ReadFiles, profile: Profile) -> Verdict:
    """What the scripts of ENTRYPOINT and CMD read."""
    if profile.expect.server is None:
        return START_FILES.skipped("the profile promises no server")
    if not fact.scripts:
        return START_FILES.skipped("no shell script starts the image")
    findings = [
        Finding(
            file.path,
            f"is not there, and {file.script} reads it",
            "a file of the image",
            profile.source("server"),
            ShowFile("cat -nv", file.script.rpartition(":")[0]),
        )
        for file in fact.files
        if not file.there
    ]
    notes = [f"{len(fact.files)} files are read"]
    return START_FILES.judged(len(fact.scripts), findings, notes)


def agreements(fact: Agreements, profile: Profile) -> Verdict:
    """Each text is there once for all places."""
    promised = profile.expect.agreements
    if not promised:
        return AGREEMENTS.skipped("the profile names nothing that files must agree about")
    findings = []
    for name in promised:
        said = fact.said.get(name, ())
        for place in said:
            if place.text is None:
                found = "does not tell it" if place.path else "no such file"
                source = profile.source("agreements", name, place.pattern)
                where = place.path or place.pattern
                # A pattern that nothing fits is shown by what lies where it would be.
                show = ShowFile("cat -v" if place.path else "ls -la", place.path or _fixed(where))
                findings.append(Finding(where, found, f"the {name}", source, show))
        texts = {place.text for place in said if place.text is not None}
        if len(texts) > 1:
            found = "; ".join(f"{place.text} in {place.path}" for place in said if place.text)
            source = profile.source("agreements", name)
            first, *others = (place.path for place in said if place.text is not None)
            show = ShowFile("cat -v", first, tuple(others))
            findings.append(Finding(name, found, "the same everywhere", source, show))
    return AGREEMENTS.judged(len(promised), findings)
