"""Commands by which people see what was found: each has one, and none runs anything of the image
on this machine. That it shows what was found, test_defects.py sees for every planted fault."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcheck import inspect, reference
from mlcheck.engines import base
from mlcheck.inspect.packages import installed
from mlcheck.inspect.packages.facts import InstalledPackages, ListedPackage, PackageList
from mlcheck.inspect.prefix import probe as prefixes
from mlcheck.inspect.rules import all_rules
from mlcheck.inspect.work.facts import NotebookRun, NotebookRuns
from mlcheck.model.verdict import ShowFile, ShowHere, ShowMlcheck, ShowOnHost, ShowRun
from mlcheck.profile.catalog import SUITE, Profile
from mlcheck.pytest_plugin.outcome import show_with
from mlcheck.report import github, text
from selftests import by_hand, reports, rules
from selftests.images import opened, write
from selftests.judging import judge, slow_rules, with_lists, without_slow_tests

INSPECT = Path(inspect.__file__).parent
FILES = sorted(
    file
    for directory, names in (
        (INSPECT, ("*differences.py", "shown.py")),
        (SUITE, ("test_*.py",)),
    )
    for name in names
    for file in directory.glob(f"*/{name}")
)
READERS = {"ls", "cat", "head", "grep", "readelf", "sha256sum", "tar"}
"""Programs by which files are looked at: all of them read, and run nothing."""
NAMED = {"_VERSION", "_READELF", "tool"}
NAMED |= {"shown.lines_about(subject)", "shown.lines_about(names[name])"}
"""Tools that are no literals, in a constant or function of the module; they were looked at."""
WITHOUT = {
    "general/test_integrity.py": 1,  # the list of the base is the user's file
    "gpu/test_gpu.py": 10,  # of the machine, or in words; the ladder has test_gpu_ladder.py
}
"""Findings without a command, by file; of all others each has one."""


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
                yield file, node


def _name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def test_every_finding_has_a_command() -> None:
    bare: dict[str, list[int]] = {}
    for file, node in calls("Finding"):
        named = {word.arg: word.value for word in node.keywords}
        shown = named.get("show") or (node.args[4] if len(node.args) > 4 else None)
        if shown is None or (isinstance(shown, ast.Constant) and shown.value is None):
            bare.setdefault(_name(file), []).append(node.lineno)
    assert {name: lines for name, lines in bare.items() if len(lines) > WITHOUT.get(name, 0)} == {}


def test_files_are_looked_at_by_what_runs_nothing() -> None:
    seen = 0
    for file, node in calls("ShowFile"):
        tool = node.args[0]
        choices = [tool.body, tool.orelse] if isinstance(tool, ast.IfExp) else [tool]
        for choice in choices:
            where = f"{_name(file)}:{choice.lineno}"
            if isinstance(choice, ast.Constant):
                first = shlex.split(str(choice.value))[0]
            elif isinstance(choice, ast.Call) and ast.unparse(choice.func) == "shlex.join":
                words = choice.args[0]
                first = ast.literal_eval(words.elts[0]) if isinstance(words, ast.List) else "grep"
            else:  # a name of the module's own: a constant or a function that quotes
                assert isinstance(choice, ast.Name | ast.Call), where
                assert ast.unparse(choice) in NAMED, where
                first = "grep"
            assert first in READERS, where
            seen += 1
    assert seen > 40


def test_no_remedy_speaks_of_a_command_that_is_elsewhere() -> None:
    assert [name for name, rule in all_rules().items() if "below" in rule.fix] == []


def test_an_annotation_has_the_command() -> None:
    image = reports.image()
    finding = reports.finding(by_hand="ls -ld /opt/x")
    result = reports.result(image, outcome="failed", findings=(finding,))
    report = reports.report(result, images=(image,))
    (line,) = github.errors(report)
    assert "reproduce: ls -ld /opt/x" in line


SHOWS = [
    ShowRun(("/opt/conda/bin/root.exe", "-b")),
    ShowRun(("env", "LD_TRACE_LOADED_OBJECTS=1", "/opt/conda/bin/root.exe")),
    ShowFile("ls -ld", "/usr/bin/true", ("/etc/os-release",)),
    ShowFile("readelf -d", "/usr/bin/true"),
    ShowOnHost("/opt/conda", ("env", "LD_TRACE_LOADED_OBJECTS=1", "/image/usr/bin/true")),
    ShowMlcheck("layers"),
    ShowHere(("readlink", "-f", "/")),
]


@pytest.mark.parametrize("show", SHOWS, ids=str)
def test_nothing_of_the_image_runs_on_this_machine(root: Path, show: object) -> None:
    with opened(root) as image:
        shown = show_with(image, base.PLAINLY)(show)  # type: ignore[arg-type]
    assert {*by_hand.programs(shown)} <= by_hand.HOST_PROGRAMS, shown


@pytest.mark.parametrize(
    "command",
    [
        "env LD_TRACE_LOADED_OBJECTS=1 /i/opt/conda/bin/root.exe",
        "LD_TRACE_LOADED_OBJECTS=1 /i/opt/conda/bin/root.exe",
        "bash -c '. \"$0\"; env' /i/setupMe-on-host.sh",
        'file=$(mktemp) && /i/bin/cat /i/x >"$file" && readelf -d "$file"',
        "ls -l /i/x; /i/bin/x",
        "chroot /i /bin/ls",
        "ls -l $(/i/bin/x)",
    ],
)
def test_the_guard_finds_what_would(command: str) -> None:
    assert not {*by_hand.programs(command)} <= by_hand.HOST_PROGRAMS


def test_the_version_of_a_package_in_a_virtual_environment(root: Path) -> None:
    place = "/opt/venv/lib/python3.11/site-packages"
    write(root, "opt/venv/pyvenv.cfg", "home = /usr/bin\n")
    metadata = "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n"
    write(root, f"{place}/numpy-1.26.4.dist-info/METADATA", metadata)
    required = {"numpy": {"version": "2.*"}, "pandas": {}}
    profile = Profile.of({"prefix": "/opt/venv", "packages": {"required": required}})
    with opened(root) as image:
        found = installed.from_files(image.rootfs, prefixes.at(image.rootfs, "/opt/venv"))
        show = show_with(image, base.PLAINLY)
        numpy, pandas = rules.judge("packages-promised", found, profile).findings
        assert numpy.show is not None
        assert pandas.show is not None
        assert "Version: 1.26.4" in by_hand.run(show(numpy.show))
        said = by_hand.run(show(pandas.show))
    assert "numpy-1.26.4.dist-info" in said
    assert "pandas" not in said


def test_a_hostile_name_of_a_package_is_a_word(root: Path, tmp_path: Path) -> None:
    name = "x';touch${IFS}pwned;'$(touch${IFS}pwned)\x1b[2J"
    path = write(root, "list", f"{name} 1\n")
    listed = PackageList("/list", (ListedPackage(name, "1", 1),))
    checked_in = PackageList(str(path), ())
    nothing = InstalledPackages((), frozenset())
    with opened(root) as image:
        show = show_with(image, base.PLAINLY)
        for verdict in (
            rules.judge("package-list-installed", listed, nothing, Profile.of({})),
            rules.judge("package-list-checked-in", listed, checked_in),
        ):
            (finding,) = verdict.findings
            assert finding.show is not None
            shown = show(finding.show)
            assert text.printable(shown) == shown
            said = by_hand.run(f"cd {shlex.quote(str(tmp_path))} && {shown}")
            assert "touch${IFS}pwned" in said
    assert not (tmp_path / "pwned").exists()


def test_the_notebook_by_hand_is_a_whole_command() -> None:
    profile = Profile.of({"notebooks": {"python3": {"code": "print({a} * {b})"}}})
    failed = NotebookRun("python3", "ended with exit code 1", "", "42", 0.1)
    (finding,) = rules.judge("notebooks", NotebookRuns((failed,)), profile).findings
    show = finding.show
    assert isinstance(show, ShowRun)
    assert "FILE" not in " ".join(show.argv)
    assert "6 * 7" in show.argv[-1]


TOGETHER = (
    *("list-wrong-version", "conda-record-version", "elf-missing-library", "elf-truncated"),
    *("entrypoint-activates", "env-locale", "file-mode", "host-inside", "kernel-extra"),
    *("label-missing", "libgl-32bit", "micromamba-dynamic", "os-wrong", "package-version"),
    *("requirement-missing", "root-config-not-executable", "rpath-last-entry", "rpath-relative"),
    *("rpath-required", "singularity-d-incomplete", "zsh-missing", "banner-no-list"),
    *("import-fails", "wrapper-mute", "conda-file-missing", "shebang-absolute"),
    *("depends-missing", "rpath", "host-certificates-dangling", "conda-file-changed"),
)
"""Faults that an image can have at once, and each is found."""
QUICK = ("test_system.py", "test_packages.py", "test_integrity.py", "test_on_host.py")
SEEN = 28
"""Checks that find them."""


@pytest.mark.slow
def test_each_command_shows_what_was_found(tmp_path: Path) -> None:
    image = reference.build("ml-pyroot", defects=TOGETHER)
    quick = {name for name, rule in slow_rules().items() if rule.file.name in QUICK}
    arguments = [f"--image={image}", *without_slow_tests(quick)]
    lists = with_lists("ml-pyroot", tmp_path)
    report = judge(tmp_path / "report.json", *lists, *arguments)
    assert by_hand.without_command(report) == set()
    found = list(by_hand.findings(report))
    assert len(found) >= SEEN, [check for check, _ in found]
    for check, finding in found:
        command = finding["by_hand"]
        assert {*by_hand.programs(command)} <= by_hand.HOST_PROGRAMS, command
        said = by_hand.run(command)
        assert by_hand.found_in(said, finding), (check, finding, said)
    # As the programs of upstream's images are: the host's libraries, not the image's own.
    image = reference.build("ml-pyroot", defects=["rpath"])
    arguments = [f"--image={image}", "-k", "test_on_host_libraries"]
    report = judge(tmp_path / "rpath.json", *lists, *arguments)
    ((_, finding),) = by_hand.findings(report)
    assert finding["found"] == "loads /opt/conda/lib/libCore.so, which is the host's"
    assert "libCore.so => /opt/conda/lib/libCore.so" in by_hand.run(finding["by_hand"])
