"""Operating system, Python, commands and shells."""

from __future__ import annotations

from collections.abc import Iterator

from mlcheck.inspect.prefix.facts import PromisedPrefix
from mlcheck.inspect.system.facts import SHELL_ANSWER, Commands, OsRelease, PythonProbe, Shells
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, ShowFile, ShowRun, Verdict, judged
from mlcheck.model.version import leads
from mlcheck.profile.catalog import Profile, promised


@rule("os-release", keys=["os"])
def test_os_release(os_release: OsRelease, profile: Profile) -> Verdict:
    """The operating system is the one that the tag promises, and its release files agree.

    Why: The tag names the operating system, and users choose by it what their C library has to bear
    (README of usatlas/ML-Containers, "Image Types").

    Fix: Build from the base image of that system, or correct the tag.
    """
    expected = promised(profile.expect.os)
    show = ShowFile("cat -v", "/etc/os-release")
    findings = [Finding(p.path, p.what, "os-release(5)", show=show) for p in os_release.problems]
    if not findings:
        found_id = os_release.fields.get("ID", "")
        if found_id != expected.id:
            source = profile.source("os", "id")
            findings.append(Finding("ID", found_id or "not set", expected.id, source, show))
        version = os_release.fields.get("VERSION_ID", "")
        if not leads(expected.version, version):
            source = profile.source("os", "version")
            wanted = f"{expected.version} or {expected.version}.x"
            findings.append(Finding("VERSION_ID", version or "not set", wanted, source, show))
        findings += _releases(os_release)
    return judged(2 + len(os_release.releases), findings)


@rule("python-version", keys=["python"], also=["prefix"])
def test_python_version(
    python: PythonProbe, place: PromisedPrefix | None, profile: Profile
) -> Verdict:
    """python3 on the image's PATH is the Python that the tag promises, and lives in the prefix; so
    do python and python3.X, where they are on PATH.

    Why: The tag names Python's version; a solver may take another, and the system's Python may come
    first in PATH (README of usatlas/ML-Containers, "Image Types").

    Fix: Pin python in the build, and put the prefix's bin/ first in PATH.
    """
    expected = promised(profile.expect.python)
    source = profile.source("python", "version")
    show = ShowRun(("python3", "-c", "import sys; print(sys.version, sys.prefix)"))
    findings = []
    if python.info is None:
        findings.append(
            Finding("python3", python.result.how_it_ended, expected.version, source, show)
        )
    else:
        if not leads(expected.version, python.info.version):
            wanted = f"{expected.version}.x"
            findings.append(Finding("version", python.info.version, wanted, source, show))
        if place is not None and place.filled and python.info.prefix != place.path:
            source = profile.source("prefix")
            findings.append(Finding("sys.prefix", python.info.prefix, place.path, source, show))
    notes = []
    for name, other in python.others.items():
        if name not in ("python", f"python{expected.version}"):
            continue
        show = ShowRun((name, "-c", "import sys; print(sys.version, sys.prefix)"))
        prefix = place.path if place is not None and place.filled else None
        if other.info is None:
            found = other.result.how_it_ended
        elif other.info.version.startswith("2.") and not other.path.startswith(f"{prefix}/"):
            notes.append(f"python is the system's Python {other.info.version}, as PEP 394 allows")
            continue
        elif not leads(expected.version, other.info.version):
            found = f"{other.info.version}, {other.path}"
        elif prefix is not None and other.info.prefix != prefix:
            source = profile.source("prefix")
            found = f"sys.prefix is {other.info.prefix}"
            findings.append(Finding(name, found, prefix, source, show))
            continue
        else:
            continue
        source = profile.source("python", "version")
        findings.append(Finding(name, found, f"{expected.version}.x", source, show))
    return judged(1 + len(python.others), findings, notes)


def _releases(os_release: OsRelease) -> Iterator[Finding]:
    """Release files of Red Hat's family that tell of another system than os-release."""
    fields = os_release.fields
    name, version = fields.get("NAME", ""), fields.get("VERSION_ID", "")
    for path, line in os_release.releases.items():
        said, found, rest = line.partition(" release ")
        number = rest.partition(" ")[0]
        if not found or not name or not version:
            continue
        # Oracle's /etc/redhat-release is Red Hat's own.
        same = said.split()[:1] == name.split()[:1] or (
            fields.get("ID") == "ol" and said.startswith("Red Hat")
        )
        same = same and (
            leads(version, number) or leads(number, version) or not number[:1].isdigit()
        )
        if not same:
            yield Finding(
                path, line, f"{name} {version}, as os-release", None, ShowFile("cat", path)
            )


@rule("commands", keys=["commands"], slow=True)
def test_commands(commands: Commands, profile: Profile) -> Verdict:
    """Every promised command runs, ends with 0 and prints something.

    Why: A program can be installed and not run, for want of a library or of its interpreter (README
    of usatlas/ML-Containers, "Image Content").

    Fix: Run it in the image; its message says what is missing.
    """
    wanted = profile.expect.commands
    findings = []
    for name, argv in wanted.items():
        result = commands.answers[name]
        if result.ended != "exited" or result.exit_code != 0:
            found = result.how_it_ended
        elif not (result.stdout.strip() or result.stderr.strip()):
            found = "ended with 0 and printed nothing"
        else:
            continue
        source = profile.source("commands", name)
        findings.append(Finding(name, found, "ends with 0 and prints", source, ShowRun(argv)))
    return judged(len(wanted), findings)


@rule("shells", keys=["shells"])
def test_shells(shells: Shells, profile: Profile) -> Verdict:
    """Every promised shell is there and runs a command.

    Why: zsh and tcsh come from conda and are linked to where users' accounts have them; a link that
    leads nowhere makes a terminal that closes at once (README of usatlas/ML-Containers, "Packages
    in Image ml-base").

    Fix: Install the shell, and link it to where users look for it.
    """
    wanted = profile.expect.shells
    there = {shell.path: shell for shell in shells.shells}
    findings = []
    for index, path in enumerate(wanted):
        shell = there[path]
        if shell.final_path is None or shell.result is None:
            found = "not there, or a link that leads nowhere in the image"
        elif not shell.answered:
            found = shell.result.how_it_ended
        else:
            continue
        source = profile.source("shells", index)
        show = ShowRun(shell.result.argv if shell.result else (path, "-c", "exit"))
        findings.append(Finding(path, found, f"prints {SHELL_ANSWER}", source, show))
    return judged(len(wanted), findings)
