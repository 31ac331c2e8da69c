"""Images that serve: their user, their server, and programs for users."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator

from mlcheck.inspect.server.facts import (
    ANY_UID,
    Accounts,
    Agreements,
    Programs,
    ReadFiles,
    Started,
    StartedAsAnybody,
    Writability,
)
from mlcheck.model.environment import Environment, health_argv, health_command, promised_health
from mlcheck.model.rule import rule
from mlcheck.model.verdict import (
    Finding,
    ShowFile,
    ShowMlcheck,
    ShowRun,
    Source,
    Verdict,
    judged,
    not_judged,
    not_tried,
    skipped,
)
from mlcheck.profile.catalog import Profile, promised

_CONFIGURED = ShowMlcheck("facts", ("--probe", "environment"))
_NOT_STARTED = "the server does not start (see server-starts)"
_CAN_WRITE = (
    "import os, sysconfig; place = sysconfig.get_paths()['purelib']; "
    "print(os.getuid(), 'can' if os.access(place, os.W_OK) else 'cannot', 'write', place)"
)


@rule("server-starts", keys=["server"], slow=True)
def test_server_starts(started: Started, config: Environment, profile: Profile) -> Verdict:
    """Started as users start it, the image serves its page, as its own user, under the prefix that
    it is given.

    Why: Kubeflow reaches a notebook server by the path in NB_PREFIX alone; one that answers
    elsewhere shows an empty page (README of StatCan/aaw-kubeflow-containers, "Automated Testing").

    Fix: Start the image by hand, and see the first error; the server's base URL must come from the
    variable of the prefix.
    """
    expected = profile.expect.user
    numbers = None
    if expected is not None and config.user is not None:
        numbers = (expected.uid, expected.gid)
    return _served(started, profile, numbers)


@rule("server-health", keys=["server.healthcheck", "server.healthy"], slow=True)
def test_server_health(started: Started, config: Environment, profile: Profile) -> Verdict:
    """The image's health check succeeds while its server runs.

    Why: A platform restarts a container whose health check fails, in the midst of somebody's work
    (HEALTHCHECK of https://github.com/jupyter/docker-stacks).

    Fix: Correct HEALTHCHECK, or the paths that answer it.
    """
    expected = promised(profile.expect.server)
    if started.trouble is not None or started.busy or started.error is not None:
        return not_tried(_NOT_STARTED)
    source = profile.source("server", "healthcheck")
    findings = []
    notes = []
    command = " ".join(expected.healthcheck)
    if expected.healthcheck:
        if config.healthcheck is None:
            notes.append(f"HEALTHCHECK: {config.source} does not tell it")
        elif not _same_check(config, expected.healthcheck):
            found = " ".join(config.healthcheck) or "not set"
            findings.append(Finding("HEALTHCHECK", found, command, source, _CONFIGURED))
        if started.healthcheck is not None:
            show = ShowRun(health_argv(expected.healthcheck))
            wanted = "ends with 0 while the server runs"
            findings.append(Finding(command, started.healthcheck, wanted, source, show))
    answers = {page.asked: page for page in started.pages}
    for index, path in enumerate(expected.healthy):
        page = answers.get(path)
        if page is None or page.status != 200:
            found = f"HTTP {page.status}" if page and page.status else "no answer"
            where = profile.source("server", "healthy", index)
            show = _by_hand(started, expected.prefix)
            findings.append(Finding(path, found, "HTTP 200", where, show))
    return judged(len(expected.healthy) + bool(expected.healthcheck), findings, notes)


def _same_check(config: Environment, promise: tuple[str, ...]) -> bool:
    """Whether HEALTHCHECK is the promised one; in shell form it may be written in several ways."""
    test = promised_health(promise)
    return config.healthcheck == test or health_command(test) == config.health_command != ()


@rule("server-any-user", keys=["user"], also=["server"], slow=True)
def test_server_any_user(started: StartedAsAnybody, profile: Profile) -> Verdict:
    """The server also starts for another user number in the group of the image's user, as a
    platform may choose one.

    Why: Platforms may start an image under a number of their own choice in the group `users`, as
    the tests of jupyter/docker-stacks do
    (https://jupyter-docker-stacks.readthedocs.io/en/latest/using/common.html).

    Fix: Let the group write the home and the prefix (fix-permissions), and read no file that
    belongs to one user alone.
    """
    return _served(started, profile, (ANY_UID, promised(profile.expect.user).gid))


@rule("user-installs", keys=["user"], also=["server", "prefix"], slow=True)
def test_user_installs(started: Started, profile: Profile) -> Verdict:
    """The image's user can install a package in the prefix with pip, and take it away again.

    Why: Modes can look right and pip fail all the same; users install packages in their notebooks
    (README of StatCan/aaw-kubeflow-containers, "Set User File Permissions after Every pip/conda
    Install").

    Fix: Give the user the prefix with fix-permissions, in the layer that adds the files.
    """
    if started.trouble is not None or started.busy:
        return not_tried("the image does not start (see server-starts)")
    if started.read_only:
        return not_tried("this engine lets nobody write the image's files: docker and podman do")
    findings = []
    if started.installed is not None:
        show = ShowRun(("python3", "-c", _CAN_WRITE))
        expectation = f"installs it in {profile.expect.prefix}"
        source = profile.source("user", "writable") or profile.source("user")
        findings = [Finding("pip", started.installed, expectation, source, show)]
    return judged(1, findings)


@rule("user", keys=["user"])
def test_user(accounts: Accounts, config: Environment, profile: Profile) -> Verdict:
    """The image runs as the promised user, who is not root.

    Why: Final images end with USER jovyan, so that nobody in a notebook is root (README of
    StatCan/aaw-kubeflow-containers; https://jupyter-docker-stacks.readthedocs.io).

    Fix: Create the user in the image's build, and end the build with USER.
    """
    expected = promised(profile.expect.user)
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
        return judged(1, findings, notes)
    name, _, group = config.user.partition(":")
    names = (expected.name, str(expected.uid))
    if name not in names or group not in ("", "users", str(expected.gid)):
        findings.append(Finding("USER", config.user or "root", wanted, source, _CONFIGURED))
    return judged(2, findings, notes)


@rule("user-writable", keys=["user.writable"])
def test_user_writable(found: Writability, profile: Profile) -> Verdict:
    """The image's user, and every other member of its group, can change everything in its home and
    in the prefix: else a package that was installed as root can neither be updated nor removed.

    Why: What root installs during the build belongs to root: users can then neither update nor
    remove it (README of StatCan/aaw-kubeflow-containers, "Set User File Permissions after Every
    pip/conda Install").

    Fix: End every RUN that installs something with `fix-permissions $CONDA_DIR /home/$NB_USER`, in
    the same layer.
    """
    expected = promised(profile.expect.user)
    source = profile.source("user", "writable")
    findings = [
        Finding(path, "is not there", "a directory", source, ShowFile("ls -ld", path))
        for path in found.missing
    ]
    for closed in found.closed:
        file = closed.example
        owner = f", {file.uid}:{file.gid}" if found.owners else ""
        what = f"{closed.count} of it: {file.path} has mode {file.mode:04o}{owner}"
        bits = f"writable for {expected.name} and the group {expected.gid}"
        bits = "set-gid" if closed.no_setgid else bits
        where = profile.source("user", "setgid") if closed.no_setgid else source
        findings.append(Finding(closed.path, what, bits, where, ShowFile("ls -ld", file.path)))
    notes = []
    if not found.owners:
        notes.append(
            "the files do not have the owners that the image gave them: judged by what their "
            "group may write"
        )
    return judged(found.looked_at, findings, notes)


@rule("programs-executable", keys=["scripts.installed"])
def test_programs_executable(programs: Programs, profile: Profile) -> Verdict:
    """Every program that is installed for users can be executed by them.

    Why: A program copied in without its mode fails with `Permission denied`, as mc and trino did in
    StatCan/aaw-kubeflow-containers.

    Fix: Set the mode (chmod 0755, or COPY --chmod=0755) in the image's build.
    """
    findings = [
        Finding(p.path, p.what, "a readable program", show=ShowFile("ls -l", p.path))
        for p in programs.problems
    ]
    for program in programs.programs:
        if program.mode & 0o111 != 0o111:
            found = f"mode {program.mode:04o}"
            show = ShowFile("ls -l", program.path)
            source = _pattern(program.path, profile)
            findings.append(Finding(program.path, found, "executable by all", source, show))
    findings += _not_installed(programs, profile)
    nothing = _nothing_installed(profile)
    return judged(len(programs.programs), findings, nothing=nothing)


@rule("wrapper-targets", keys=["scripts.installed"])
def test_wrapper_targets(programs: Programs, profile: Profile) -> Verdict:
    """Every wrapper finds the program to which it hands its arguments on.

    Why: A wrapper is copied into all images and its program installed in one: there it works,
    elsewhere it fails when it is called (StatCan/aaw-kubeflow-containers).

    Fix: Install the program, or take the wrapper out of images that lack it.
    """
    findings = [
        Finding(
            program.path,
            f"calls {name}, which is not there",
            "a program on PATH",
            _pattern(program.path, profile),
            ShowFile("cat -v", program.path),
        )
        for program in programs.programs
        for name in program.calls
    ]
    nothing = _nothing_installed(profile)
    return judged(len(programs.programs), findings, nothing=nothing)


@rule("start-files", keys=["server"])
def test_start_files(reads: ReadFiles, profile: Profile) -> Verdict:
    """Every file that the start script reads is in the image.

    Why: A start script that reads a file which a later layer deletes fails with the first user, not
    in the build (StatCan/aaw-kubeflow-containers).

    Fix: Copy the file into the image and let no later layer delete it; what may be missing is
    tested for ([ -f FILE ]) before it is read.
    """
    if not reads.scripts:
        return skipped("no shell script starts the image")
    findings = [
        Finding(
            file.path,
            f"is not there, and {file.script} reads it",
            "a file of the image",
            profile.source("server"),
            ShowFile("cat -nv", file.script.rpartition(":")[0]),
        )
        for file in reads.files
        if not file.there
    ]
    notes = [f"{len(reads.files)} files are read"]
    return judged(len(reads.scripts), findings, notes)


@rule("agreements", keys=["agreements"])
def test_agreements(agreements: Agreements, profile: Profile) -> Verdict:
    """Files that tell the same thing, such as the version of an extension, agree.

    Why: A version that is written down twice is changed once, as that of the language pack of
    code-server was (StatCan/aaw-kubeflow-containers).

    Fix: Write down what is installed; best let the build generate it.
    """
    names = profile.expect.agreements
    findings = []
    for name in names:
        said = agreements.said.get(name, ())
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
    return judged(len(names), findings)


def _by_hand(started: Started, variable: str) -> ShowRun:
    """The image's own command, with the prefix that it was given."""
    return ShowRun(("env", f"{variable}={started.prefix}", *(started.argv or ("sh",))))


def _fixed(pattern: str) -> str:
    """The directory above the first part of a path that is a pattern."""
    return re.split(r"[*?\[]", pattern)[0].rpartition("/")[0] or "/"


def _served(started: Started, profile: Profile, numbers: tuple[int, int] | None) -> Verdict:
    """Whether the server answers as promised.

    Args:
        numbers: of the user and group as whom it should run; None: nobody knows.
    """
    expected = promised(profile.expect.server)
    source = profile.source("server")
    show = _by_hand(started, expected.prefix)
    if started.busy:
        return not_judged(
            f"Another program listens at port {expected.port} of this network already.",
            "Run without --network, so that the image has a network of its own.",
        )
    if started.trouble is not None or started.error is not None:
        what = started.trouble or started.error or ""
        wanted = f"answers at port {expected.port}"
        command = " ".join(started.argv) or "CMD"
        return judged(1, [Finding(command, what, wanted, source, show)])
    findings = []
    if numbers is not None and (started.uid, started.gid) != numbers:
        found = f"runs as {started.uid}:{started.gid}"
        where = profile.source("user")
        wanted = "{}:{}".format(*numbers)
        findings.append(Finding("the running image", found, wanted, where, ShowRun(("id",))))
    page = next((one for one in started.pages if one.asked == f"{started.prefix}/"), None)
    wanted = f"HTTP 200 at {started.prefix}{expected.page}"
    if page is None or page.status != 200:
        found = f"HTTP {page.status}" if page and page.status else "no answer"
        findings.append(
            Finding("the prefix", f"{found} at {started.prefix}/", wanted, source, show)
        )
    else:
        if page.path.rstrip("/") != f"{started.prefix}{expected.page}".rstrip("/"):
            where = profile.source("server", "page")
            findings.append(Finding("the prefix", f"leads to {page.path}", wanted, where, show))
        if not page.title.startswith(expected.title):
            where = profile.source("server", "title")
            found = page.title or "no title"
            title = f"begins with {expected.title}"
            findings.append(Finding("the page's title", found, title, where, show))
    return judged(2, findings, [f"answered after {started.seconds:.1f} s"])


def _nothing_installed(profile: Profile) -> str:
    patterns = ", ".join(promised(profile.expect.scripts).installed)
    return f"no program is there whose path fits {patterns}"


def _not_installed(programs: Programs, profile: Profile) -> Iterator[Finding]:
    """What the profile names that is not there: a program, or the directory of a pattern."""
    there = {program.path for program in programs.programs} | {p.path for p in programs.problems}
    for index, pattern in enumerate(promised(profile.expect.scripts).installed):
        source = profile.source("scripts", "installed", index)
        directory = pattern.rpartition("/")[0] or "/"
        if directory in programs.no_directories:
            show = ShowFile("ls -ld", directory)
            yield Finding(directory, "no such directory", "a directory", source, show)
        elif not re.search(r"[*?\[]", pattern) and pattern not in there:
            show = ShowFile("ls -l", pattern)
            yield Finding(pattern, "no such file", "a program", source, show)


def _pattern(path: str, profile: Profile) -> Source | None:
    patterns = promised(profile.expect.scripts).installed
    index = next((n for n, one in enumerate(patterns) if fnmatch.fnmatchcase(path, one)), 0)
    return profile.source("scripts", "installed", index)
