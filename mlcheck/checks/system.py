"""Operating system, Python, micromamba, commands and shells."""

from __future__ import annotations

from mlcheck.facts import (
    CommandResult,
    Commands,
    ElfFiles,
    Files,
    OsRelease,
    PromisedPrefix,
    PythonProbe,
    Shell,
    Shells,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Finding, Rule, ShowFile, ShowRun, Verdict

OS_RELEASE = Rule(
    "os-release",
    "The operating system is the one that the tag promises.",
    "Build from the base image of that system, or correct the tag.",
    "The tag names the operating system, and users choose by it what their C library has to bear "
    '(README of usatlas/ML-Containers, "Image Types").',
    keys=("os",),
)
PYTHON_VERSION = Rule(
    "python-version",
    "python3 on the image's PATH is the Python that the tag promises, and lives in the prefix.",
    "Pin python in the build, and put the prefix's bin/ first in PATH.",
    "The tag names Python's version; a solver may take another, and the system's Python may come "
    'first in PATH (README of usatlas/ML-Containers, "Image Types").',
    keys=("python",),
)
MICROMAMBA = Rule(
    "micromamba",
    "micromamba is one statically linked ELF file: it brings no Python and needs no library.",
    "Install the released micromamba binary itself.",
    '"A tiny statically linked C++ executable" that comes without a Python of its own, and so '
    "cannot break with the environment that it manages (README of usatlas/ML-Containers, "
    '"Package Manager micromamba").',
    keys=("micromamba",),
)
COMMANDS = Rule(
    "commands",
    "Every promised command runs, ends with 0 and prints something.",
    "Run it in the image; its message says what is missing.",
    "A program can be installed and not run, for want of a library or of its interpreter (README "
    'of usatlas/ML-Containers, "Image Content").',
    keys=("commands",),
)
SHELLS = Rule(
    "shells",
    "Every promised shell is there and runs a command.",
    "Install the shell, and link it to where users look for it.",
    "zsh and tcsh come from conda and are linked to where users' accounts have them; a link that "
    "leads nowhere makes a terminal that closes at once (README of usatlas/ML-Containers, "
    '"Packages in Image ml-base").',
    keys=("shells",),
)

SHELL_ANSWER = "mlcheck-42"
"""What a shell prints when it has worked out the answer."""


def os_release(fact: OsRelease, profile: Profile) -> Verdict:
    """ID and VERSION_ID of /etc/os-release."""
    expected = profile.expect.os
    if expected is None:
        return OS_RELEASE.skipped("the profile (or an image without a tag) promises no system")
    show = ShowFile("cat -v", "/etc/os-release")
    findings = [Finding(p.path, p.what, "os-release(5)", show=show) for p in fact.problems]
    if not findings:
        found_id = fact.fields.get("ID", "")
        if found_id != expected.id:
            source = profile.source("os", "id")
            findings.append(Finding("ID", found_id or "not set", expected.id, source, show))
        version = fact.fields.get("VERSION_ID", "")
        if not leads(expected.version, version):
            source = profile.source("os", "version")
            wanted = f"{expected.version} or {expected.version}.x"
            findings.append(Finding("VERSION_ID", version or "not set", wanted, source, show))
    return OS_RELEASE.judged(2, findings)


def python_version(fact: PythonProbe, place: PromisedPrefix | None, profile: Profile) -> Verdict:
    """The version and the prefix that the image's python3 gives of itself.

    Args:
        place: what is at the profile's prefix; where there is nothing, another rule says so.
    """
    expected = profile.expect.python
    if expected is None:
        return PYTHON_VERSION.skipped("the profile (or an image without a tag) promises no Python")
    source = profile.source("python", "version")
    show = ShowRun(("python3", "-c", "import sys; print(sys.version, sys.prefix)"))
    findings = []
    if fact.info is None:
        findings.append(
            Finding("python3", how_it_ended(fact.result), expected.version, source, show)
        )
    else:
        if not leads(expected.version, fact.info.version):
            wanted = f"{expected.version}.x"
            findings.append(Finding("version", fact.info.version, wanted, source, show))
        if place is not None and place.filled and fact.info.prefix != place.path:
            source = profile.source("prefix")
            findings.append(Finding("sys.prefix", fact.info.prefix, place.path, source, show))
    return PYTHON_VERSION.judged(1, findings)


def micromamba(elf: ElfFiles, files: Files, profile: Profile) -> Verdict:
    """micromamba under each of its names is a static ELF file, and they are one and the same."""
    expected = profile.expect.micromamba
    if expected is None:
        return MICROMAMBA.skipped("the profile promises no micromamba")
    findings = []
    paths = [path for path in (expected.path, expected.link) if path is not None]
    sizes = set()
    for path in paths:
        source = profile.source("micromamba", "path" if path == expected.path else "link")
        show = ShowFile("readelf -ld", path)
        there = files.files[path]
        if there.final is None:
            findings.append(Finding(path, there.problem or "missing", "an ELF file", source, show))
            continue
        sizes.add(there.final.size)
        file = elf.files.get(path)
        if file is None:
            broken = next((p.what for p in elf.problems if p.path == path), "is no ELF file")
            findings.append(Finding(path, broken, "a static ELF file", source, show))
        elif file.dynamic or file.interpreter:
            needs = ", ".join(file.needed) or file.interpreter or "a loader"
            found = f"dynamically linked, needs {needs}"
            findings.append(Finding(path, found, "a static ELF file", source, show))
    if len(sizes) > 1 and not findings:
        findings.append(
            Finding(
                paths[1],
                "a file of another size",
                f"the same file as {paths[0]}",
                profile.source("micromamba", "link"),
                ShowFile("ls -l", paths[1], (paths[0],)),
            )
        )
    return MICROMAMBA.judged(len(paths), findings)


def commands(fact: Commands, profile: Profile) -> Verdict:
    """The commands of `commands` end with 0 and print something."""
    promised = profile.expect.commands
    if not promised:
        return COMMANDS.skipped("the profile promises no command")
    findings = []
    for name, argv in promised.items():
        result = fact.answers[name]
        if result.ended != "exited" or result.exit_code != 0:
            found = how_it_ended(result)
        elif not (result.stdout.strip() or result.stderr.strip()):
            found = "ended with 0 and printed nothing"
        else:
            continue
        source = profile.source("commands", name)
        findings.append(Finding(name, found, "ends with 0 and prints", source, ShowRun(argv)))
    return COMMANDS.judged(len(promised), findings)


def shells(fact: Shells, profile: Profile) -> Verdict:
    """The shells of `shells` run `echo`."""
    promised = profile.expect.shells
    if not promised:
        return SHELLS.skipped("the profile promises no shell")
    there = {shell.path: shell for shell in fact.shells}
    findings = []
    for index, path in enumerate(promised):
        shell = there[path]
        if shell.final_path is None or shell.result is None:
            found = "not there, or a link that leads nowhere in the image"
        elif not answered(shell):
            found = how_it_ended(shell.result)
        else:
            continue
        source = profile.source("shells", index)
        show = ShowRun(shell.result.argv if shell.result else (path, "-c", "exit"))
        findings.append(Finding(path, found, f"prints {SHELL_ANSWER}", source, show))
    return SHELLS.judged(len(promised), findings)


def answered(shell: Shell) -> bool:
    """Whether a shell ran its command."""
    result = shell.result
    return result is not None and result.stdout.strip() == SHELL_ANSWER and result.exit_code == 0


def how_it_ended(result: CommandResult) -> str:
    """A command's end and the last line that it printed, for a table."""
    last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
    said = f": {last[0][:200]}" if last else " and printed nothing"
    if result.ended == "timeout":
        return f"did not end within {result.seconds:.0f} s{said}"
    if result.ended == "output-limit":
        return "printed without end and was stopped"
    if result.exit_code is not None and result.exit_code > 128:
        return f"ended by signal {result.exit_code - 128}{said}"
    return f"exit code {result.exit_code}{said}"


def leads(expected: str, found: str) -> bool:
    """Whether the parts of a version begin with the expected ones: 3.1 does not lead 3.11."""
    parts = expected.split(".")
    return found.split(".")[: len(parts)] == parts
