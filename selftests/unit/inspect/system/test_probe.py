"""Operating system, files, shells, commands, Python, scripts and root-config."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mlcheck.engines.base import PLAINLY
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.answers import on_path
from mlcheck.inspect.files import promised
from mlcheck.inspect.files.facts import Script, Scripts
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.probe_catalog import PROBES, facts_about, to_json
from mlcheck.inspect.root import root_config
from mlcheck.inspect.root.facts import RootConfig
from mlcheck.inspect.system import probe as system
from mlcheck.model.files import Problem
from selftests.images import opened, script, write

# The operating system

ALMA = """\
NAME="AlmaLinux"
VERSION="9.5 (Teal Serval)"
ID="almalinux"
ID_LIKE="rhel centos fedora"
VERSION_ID='9.5'
# a comment

ANSI_COLOR=0;34
HOME_URL="https://almalinux.org/"
EMPTY=
QUOTED="a \\"word\\" for \\$5"
"""


def test_os_release(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", ALMA)
    write(tmp_path, "etc/redhat-release", "AlmaLinux release 9.5 (Teal Serval)\nmore\n")
    found = system.os_release(DirectoryRootFS(tmp_path))
    assert found.fields["ID"] == "almalinux"
    assert found.fields["VERSION_ID"] == "9.5"
    assert found.fields["EMPTY"] == ""
    assert found.fields["ANSI_COLOR"] == "0;34"
    assert found.fields["QUOTED"] == 'a "word" for $5'
    assert found.release_file == "AlmaLinux release 9.5 (Teal Serval)"
    assert not found.problems


def test_os_release_of_this_machine_as_a_shell_reads_it() -> None:
    found = system.os_release(DirectoryRootFS(Path("/")))
    shell = ". /etc/os-release; echo $ID; echo $VERSION_ID; echo $PRETTY_NAME"
    said = subprocess.check_output(["sh", "-c", shell], text=True)
    fields = found.fields
    assert [fields["ID"], fields.get("VERSION_ID", ""), fields["PRETTY_NAME"]] == said.splitlines()


def test_os_release_in_the_other_place_and_centos(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/os-release", "ID=centos\n")
    write(tmp_path, "etc/centos-release", "CentOS Linux release 7.9.2009 (Core)\n")
    found = system.os_release(DirectoryRootFS(tmp_path))
    assert found.fields == {"ID": "centos"}
    assert found.release_file == "CentOS Linux release 7.9.2009 (Core)"


def test_os_release_with_broken_lines(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", b"ID=x\nnothing\nA='open\nB=one two\n\xff=1\n")
    found = system.os_release(DirectoryRootFS(tmp_path))
    assert found.fields == {"ID": "x"}
    assert [p.path for p in found.problems] == [f"/etc/os-release:{n}" for n in (2, 3, 4, 5)]


def test_no_os_release(tmp_path: Path) -> None:
    found = system.os_release(DirectoryRootFS(tmp_path))
    assert (found.fields, found.release_file) == ({}, None)
    assert [problem.path for problem in found.problems] == ["/etc/os-release"]


def test_os_release_that_links_to_the_host(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("../" * 20 + "etc/passwd")
    found = system.os_release(DirectoryRootFS(tmp_path))
    assert found.fields == {}


# Files


def test_files(tmp_path: Path) -> None:
    write(tmp_path, "opt/zsh", "x", 0o750)
    (tmp_path / "zsh").symlink_to("/opt/zsh")
    found = system.files(DirectoryRootFS(tmp_path), ["/zsh", "/absent"]).files
    link = found["/zsh"]
    assert link.file is not None
    assert (link.file.type, link.file.target) == ("symlink", "/opt/zsh")
    assert link.final is not None
    assert (link.final_path, link.final.mode) == ("/opt/zsh", 0o750)
    assert found["/absent"].file is None


# Shells, commands, Python


def test_shells_and_commands(root: Path) -> None:
    (root / "bin/link").symlink_to("/bin/bash")
    shutil.copy(root / "bin/echo", root / "bin/parrot")
    with opened(root) as image:
        shells = system.shells(
            image, PLAINLY, ["/bin/sh", "/bin/link", "/bin/parrot", "/bin/zsh"]
        ).shells
        said = system.commands(image, {"cat": ["cat", "--version"], "absent": ["absent"]}).answers
    answers = {s.path: s.result.stdout if s.result else None for s in shells}
    assert answers["/bin/sh"] == answers["/bin/link"] == "mlcheck-42\n"
    assert answers["/bin/parrot"] != "mlcheck-42\n"
    assert answers["/bin/zsh"] is None
    assert [s.final_path for s in shells[1:2]] == ["/usr/bin/bash"]
    assert said["cat"].exit_code == 0
    assert said["absent"].exit_code == 127


@pytest.mark.parametrize(("own", "term"), [(None, "xterm"), ("linux", "linux")])
def test_commands_have_a_terminal(root: Path, own: str | None, term: str) -> None:
    script(root, "bin/curses", "echo $TERM")
    if own is not None:
        configured = f'export TERM="${{TERM:-"{own}"}}"\n'
        write(root, ".singularity.d/env/10-docker2singularity.sh", configured, 0o755)
    with opened(root) as image:
        said = system.commands(image, {"curses": ["curses"]}).answers["curses"]
    assert said.stdout == f"{term}\n"


@pytest.mark.skipif(not shutil.which("tcsh"), reason="there is no tcsh here")
def test_tcsh_of_this_machine() -> None:
    with opened(Path("/")) as image:
        (shell,) = system.shells(image, PLAINLY, [str(shutil.which("tcsh"))]).shells
    assert shell.result is not None
    assert shell.result.stdout == "mlcheck-42\n"


def test_python_of_this_machine() -> None:
    with opened(Path("/")) as image:
        if on_path(image.rootfs, "python3", "/usr/local/sbin:/usr/local/bin:/usr/bin") is None:
            pytest.skip("there is no python3 on the default PATH here")
        found = system.python(image)
        said = image.run(["python3", "-c", "import sys; print(sys.prefix)"]).stdout.decode()
    assert found.info is not None
    assert found.info.prefix == said.strip()
    assert found.info.version.startswith("3.")


def test_banners_are_not_taken_for_an_answer(root: Path) -> None:
    script(root, "bin/python3", 'echo \'["/x", "/y", "3.11.0"]\'')
    with opened(root) as image:
        found = system.python(image)
    assert found.info is None
    assert found.result.exit_code == 0


def test_no_python(root: Path) -> None:
    with opened(root) as image:
        found = system.python(image)
    assert found.info is None
    assert found.result.exit_code == 127


# Scripts

PATH = "/opt/conda/bin:/usr/bin"


def scripts(root: Path, **texts: str | bytes) -> tuple[dict[str, Script], tuple[Problem, ...]]:
    for name, text in texts.items():
        write(root, f"opt/conda/bin/{name}", text, 0o755)
    found: Scripts = system.scripts(DirectoryRootFS(root), "/opt/conda", PATH)
    return {s.path.rpartition("/")[2]: s for s in found.scripts}, found.problems


@pytest.mark.parametrize(
    ("path", "line", "good"),
    [
        ("libexec/tool", "#!/opt/conda/bin/python3", True),
        ("libexec/tool", "#!/opt/conda/bin/python2", False),
        ("share/x/tool", "#!/home/conda/feedstock_root/build_artifacts/x/bin/perl -w", False),
        ("pkgs/x-1.0/bin/tool", "#!/home/conda/feedstock_root/x_placehold/bin/perl", True),
        ("envs/x/bin/tool", "#!/opt/conda/envs/x/bin/python", True),
        ("share/tool", "#!/bin/ksh", True),  # the system may have it, or not
        ("lib/libx.so.1", "#!/opt/conda/bin/gone", True),
    ],
)
def test_scripts_outside_bin(root: Path, path: str, line: str, good: bool) -> None:
    write(root, f"opt/conda/{path}", f"{line}\n", 0o755)
    write(root, "opt/conda/bin/python3", "", 0o755)
    write(root, "opt/conda/share/text", "#!/opt/conda/bin/gone\n", 0o644)
    found = system.scripts(DirectoryRootFS(root), "/opt/conda", PATH).elsewhere
    assert [one.path for one in found] == ([] if good else [f"/opt/conda/{path}"])


def test_what_gdb_loads_is_no_script(root: Path) -> None:
    """CPython installs `python3.11-gdb.py` with a first line that most machines have not."""
    found, problems = scripts(root, **{"python3.11-gdb.py": "#!/usr/bin/python\n"})
    assert "python3.11-gdb.py" not in found
    assert not problems


def test_scripts_of_the_systems_python(root: Path) -> None:
    write(root, "usr/lib/python3.11/cgi.py", "#! /usr/local/bin/python\n", 0o755)
    assert not system.scripts(DirectoryRootFS(root), "/usr", PATH).elsewhere


def test_scripts_of_an_image_without_path(root: Path) -> None:
    """Engines give a process a PATH where the image sets none."""
    write(root, "usr/bin/python3", "", 0o755)
    write(root, "opt/conda/bin/tool", "#!/usr/bin/env python3\n", 0o755)
    with opened(root) as image:
        assert "PATH" not in image.environment.env
        found = promised.scripts(image, PLAINLY, PrefixPath("/opt/conda"))
    tool = next(one for one in found.scripts if one.path.endswith("/tool"))
    assert tool.resolved == "/usr/bin/python3"


@pytest.mark.parametrize(
    ("line", "resolved"),
    [
        ("#!/usr/bin/env python3", "/opt/conda/bin/python3"),
        ("#! /usr/bin/env python3", "/opt/conda/bin/python3"),
        ("#!/usr/bin/env -S python3 -I", "/opt/conda/bin/python3"),
        ("#!/usr/bin/env -S A=1 python3", "/opt/conda/bin/python3"),
        ("#!/usr/bin/env python3 -I", None),
        ("#!/usr/bin/env absent", None),
        ("#!/bin/env python3", "/opt/conda/bin/python3"),
        ("#!/absent/env python3", None),
        ("#!/opt/conda/bin/python3 -I", "/opt/conda/bin/python3"),
        ("#!/absent/python3", None),
        ("#!python3", None),
        ("#!/usr/bin/env\tpython3", "/opt/conda/bin/python3"),
        ("#!/usr/bin/env python3\r", None),
    ],
)
def test_interpreters(root: Path, line: str, resolved: str | None) -> None:
    write(root, "opt/conda/bin/python3", b"\x7fELF", 0o755)
    found, problems = scripts(root, tool=f"{line}\nprint()\n")
    assert found["tool"].resolved == resolved
    assert found["tool"].interpreter == tuple(line[2:].strip(" ").replace("\t", " ").split(" "))
    assert not problems


def test_env_as_linux_reads_it(root: Path) -> None:
    """The rule that all behind the interpreter is one word, shown by running it."""
    shutil.copy(root / "bin/true", root / "bin/python3")
    write(root, "opt/one", "#!/usr/bin/env python3\n", 0o755)
    write(root, "opt/two", "#!/usr/bin/env python3 -I\n", 0o755)
    write(root, "opt/crlf", "#!/usr/bin/env python3\r\n", 0o755)
    with opened(root) as image:
        assert image.run(["/opt/one"]).exit_code == 0
        assert image.run(["/opt/two"]).exit_code == 127
        assert image.run(["/opt/crlf"]).exit_code == 127


def test_only_scripts_and_each_once(root: Path) -> None:
    write(root, "opt/elsewhere/far", "#!/bin/sh\n", 0o755)
    directory = root / "opt/conda/bin"
    directory.mkdir(parents=True)
    (directory / "link").symlink_to("tool")
    (directory / "far").symlink_to("/opt/elsewhere/far")
    (directory / "loop").symlink_to("loop")
    (directory / "below").mkdir()
    os.mkfifo(directory / "fifo")
    write(root, "opt/conda/bin/plain", "#!/bin/sh\n", 0o644)
    found, problems = scripts(root, tool="#!/bin/sh\n", text="text", elf=b"\x7fELF", empty=b"")
    assert sorted(found) == ["far", "plain", "tool"]
    assert (found["plain"].mode, found["tool"].mode) == (0o644, 0o755)
    assert not problems


def test_first_lines_that_linux_refuses(root: Path) -> None:
    found, problems = scripts(root, long="#!/" + "x" * 300 + "\n", none="#!\n", odd=b"#!/\xff\0\n")
    assert sorted(problem.path for problem in problems) == [
        "/opt/conda/bin/long",
        "/opt/conda/bin/none",
    ]
    assert all(script.resolved is None for script in found.values())


# root-config


def root_config_of(root: Path) -> RootConfig:
    write(
        root,
        ".singularity.d/env/10-docker2singularity.sh",
        "export PATH='/opt/conda/bin:/usr/bin:/bin'\n",
    )
    with opened(root) as image:
        return root_config.probe(image, PLAINLY)


def test_root_config(root: Path) -> None:
    script(root, "opt/conda/bin/root-config", 'test "$1" = --libs && echo -lCore -lz')
    found = root_config_of(root)
    assert found.path == "/opt/conda/bin/root-config"
    assert found.run is not None
    assert (found.run.exit_code, found.run.stdout) == (0, "-lCore -lz\n")
    assert found.text is not None
    assert "--libs" in found.text
    assert not found.problems


def test_no_root_config(root: Path) -> None:
    assert root_config_of(root) == RootConfig(None, None, None)


def test_root_config_that_is_no_text(root: Path) -> None:
    shutil.copy(root / "bin/true", root / "bin/root-config")
    found = root_config_of(root)
    assert found.text is None
    assert [problem.path for problem in found.problems] == ["/usr/bin/root-config"]
    assert found.run is not None
    assert found.run.exit_code == 0


def test_root_config_that_prints_without_end(root: Path) -> None:
    script(root, "bin/root-config", "exec yes -- -lz")
    found = root_config_of(root)
    assert found.run is not None
    assert found.run.ended == "output-limit"
    assert len(found.run.stdout) <= root_config.OUTPUT_LIMIT


# All probes together


def test_all_probes_of_a_bare_image_give_json(root: Path) -> None:
    """Without Python, conda or Jupyter there is no exception, and the same answer twice."""
    write(root, b"opt/conda/bin/\xff\xfe".decode("utf-8", "surrogateescape"), "#!/bin/sh\n", 0o755)
    with opened(root) as image:
        for probe in PROBES.values():
            text = json.dumps(to_json(probe(facts_about(image))), allow_nan=False)
            text.encode("utf-8")
            if '"seconds"' not in text:  # how long a command took is not the same twice
                assert json.dumps(to_json(probe(facts_about(image)))) == text


def test_json_of_odd_names_and_orders() -> None:
    odd = b"/\xff".decode("utf-8", "surrogateescape")
    scripts = Scripts((Script(odd, ("/bin/sh",), None, 0o755),), (Problem(odd, "x"),))
    assert to_json(scripts) == {
        "scripts": [
            {
                "path": "/\\udcff",
                "interpreter": ["/bin/sh"],
                "resolved": None,
                "mode": 0o755,
                "line": 1,
            }
        ],
        "problems": [{"path": "/\\udcff", "what": "x"}],
        "elsewhere": [],
    }
    assert to_json({"b": frozenset({"z", "a"}), "a": 1}) == {"a": 1, "b": ["a", "z"]}
    assert list(to_json({"b": 1, "a": 2}) or ()) == ["a", "b"]  # type: ignore[call-overload]
