"""What is read out of an image's shell scripts, accounts, history and versions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.packages import requested
from mlcheck.inspect.server import agreements, python_wrappers, shell_scripts, users
from mlcheck.inspect.server.shell_variables import Variables
from mlcheck.model.files import File

ENV = {"PATH": "/bin", "TOOLS": "/opt/tools"}


def put(root: Path, path: str, text: str, mode: int = 0o755) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ('exec lost "$@"', ("lost",)),
        ('lost --server "$SERVER" \\\n  --password "$@"', ("lost",)),
        ('A=1 exec lost "$@"', ("lost",)),
        ('echo x | lost "$@"', ("lost",)),
        ('"$TOOLS/lost" "$@"', ("/opt/tools/lost",)),
        ('exec there "$@"', ()),
        ("lost --version", ()),  # no wrapper
        ('set -- "$@"', ()),
        ('"$(dirname "$0")/lost" "$@"', ()),
        ('lost() { true; }\nlost "$@"', ()),
        ('if command -v lost; then lost "$@"; fi', ()),
        ('cat <<EOF\nlost "$@"\nEOF', ()),
        ('# lost "$@"', ()),
        ('exec "${TRINO:-/opt/trino/bin/trino}" "$@"', ("/opt/trino/bin/trino",)),
        ('exec ${TRINO-/opt/trino/bin/trino} "$@"', ("/opt/trino/bin/trino",)),
        (': "${TRINO:=/opt/lost}"\nexec "$TRINO" "$@"', ("/opt/lost",)),
        ('exec "${A:-${B:-/opt/lost}}" "$@"', ("/opt/lost",)),
        ('exec "${TOOLS:-/opt/lost}/there" "$@"', ("/opt/tools/there",)),
        ('BIN=/opt/lost\nexec "$BIN/run" "$@"', ("/opt/lost/run",)),
        ('export BIN="/opt/lost"\n"$BIN" "$@"', ("/opt/lost",)),
        ('BIN=/bin\nBIN=$BIN/lost\nexec $BIN "$@"', ("/bin/lost",)),
        ('JAVA="/opt/lost -Xmx1g"\nexec $JAVA "$@"', ("/opt/lost",)),
        ('exec "${TRINO:-there}" "$@"', ()),
        ('[ -x "$BIN" ] || BIN=$(find / -name x)\nexec "$BIN" "$@"', ()),
        ('if true; then BIN=/a; else BIN=/b; fi\nexec "$BIN" "$@"', ()),
        ('if true\nthen\n  BIN=/a\nfi\nexec "$BIN" "$@"', ()),
        ('BIN=/opt/lost\n. /etc/settings\nexec "$BIN" "$@"', ()),
        ('. /etc/settings\nexec "${BIN:-/opt/lost}" "$@"', ()),
        ('for BIN in /a /b; do "$BIN" "$@"; done', ()),
        ('read BIN\nexec "$BIN" "$@"', ()),
        ('exec "$1" "$@"', ()),
        ('exec "${1:-lost}" "$@"', ()),
    ],
)
def test_what_a_wrapper_calls(tmp_path: Path, body: str, missing: tuple[str, ...]) -> None:
    put(tmp_path, "/bin/there", "#!/bin/sh\n")
    put(tmp_path, "/usr/bin/wrapper", f"#!/bin/bash\n{body}\n")
    found = shell_scripts.programs(DirectoryRootFS(tmp_path), ["/usr/bin/*"], ENV)
    assert [(program.path, program.calls) for program in found.programs] == [
        ("/usr/bin/wrapper", missing)
    ]


def test_programs_of_any_kind_have_their_mode(tmp_path: Path) -> None:
    put(tmp_path, "/usr/bin/binary", "\x7fELF", 0o644)
    put(tmp_path, "/usr/bin/python", "#!/usr/bin/python3\nlost('$@')\n", 0o755)
    found = shell_scripts.programs(DirectoryRootFS(tmp_path), ["/usr/bin/*"], ENV)
    assert [(p.path, p.mode, p.calls) for p in found.programs] == [
        ("/usr/bin/binary", 0o644, ()),
        ("/usr/bin/python", 0o755, ()),
    ]


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("cat /etc/a >> ~/.bashrc", ["/etc/a"]),
        ("cat < /etc/a", ["/etc/a"]),
        (". /etc/a", ["/etc/a"]),
        ("source /etc/a --verbose", ["/etc/a"]),
        ("sh /etc/a --unattended", ["/etc/a"]),
        ("cp -r /etc/a/. /srv", ["/etc/a"]),
        ('cp -r "$TOOLS/." "$HOME"', ["/opt/tools"]),
        ("if true; then cat /etc/a; fi", ["/etc/a"]),
        ("if [ -f /etc/a ]; then cat /etc/a; fi", []),
        ("echo x > /etc/a\ncat /etc/a", []),
        ("mkdir -p /etc/a\ncat /etc/a/b", []),
        ("cat /var/run/secrets/token /proc/1/status", []),
        ('cat "$UNKNOWN/a" $(ls) /etc/*.conf relative', []),
        ("cat <<EOF > /etc/x\ncat /etc/a\nEOF", []),
        ("echo cat /etc/a", []),
        ("# cat /etc/a", []),
        ('HELPERS=/opt/gone.sh\n\nsource "$HELPERS"', ["/opt/gone.sh"]),
        ('DIR=/opt/gone\n. "$DIR/helpers.sh"', ["/opt/gone/helpers.sh"]),
        ('. "${HELPERS:-/opt/gone.sh}"', ["/opt/gone.sh"]),
        ('HELPERS=/opt/gone.sh\nif [ -f "$HELPERS" ]; then . "$HELPERS"; fi', []),
        ('HELPERS=$(mktemp)\n. "$HELPERS"', []),
        ('F=/etc/a\n. /etc/b\ncat "$F"', ["/etc/b"]),
        ('for F in /etc/*.sh; do . "$F"; done', []),
    ],
)
def test_what_a_start_script_reads(tmp_path: Path, body: str, read: list[str]) -> None:
    put(tmp_path, "/bin/start", f"#!/bin/bash\n{body}\n")
    found = shell_scripts.read_files(DirectoryRootFS(tmp_path), ["tini", "start"], ENV, "/home/me")
    assert [file.path for file in found.files] == read
    assert found.scripts == ("/bin/start",)


def test_commands_times_tests_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = "".join(f'[ -f "$A/{n}" ]\n' for n in range(1000))
    text = f"#!/bin/sh\n[ -f /plain ]\n{tests}cat /plain /read\n"
    put(tmp_path, "/bin/start", text)
    rootfs = DirectoryRootFS(tmp_path)
    asked = []
    path = shell_scripts._path

    def counted(word: str, variables: Variables) -> str | None:
        asked.append(word)
        return path(word, variables)

    monkeypatch.setattr(shell_scripts, "_path", counted)
    assert not shell_scripts.read_files(rootfs, ["start"], ENV, "/root").files
    assert len(asked) < shell_scripts._TESTS_LIMIT * 1.1
    put(tmp_path, "/bin/start", text.replace("$A", "/a"))
    asked.clear()
    (found,) = shell_scripts.read_files(rootfs, ["start"], ENV, "/root").files
    assert found.path == "/read"
    assert len(asked) < 2000


def test_lines_and_presence_of_what_is_read(tmp_path: Path) -> None:
    put(tmp_path, "/etc/a", "")
    put(tmp_path, "/bin/start", "#!/bin/sh\n\ncat /etc/a\ncat /etc/b\n")
    found = shell_scripts.read_files(DirectoryRootFS(tmp_path), ["start"], ENV, "/")
    assert [(file.script, file.path, file.there) for file in found.files] == [
        ("/bin/start:3", "/etc/a", True),
        ("/bin/start:4", "/etc/b", False),
    ]


def test_accounts_with_their_groups(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nme:x:1000:100::/home/me:\nme:x:0:0::/:\n",
    )
    put(tmp_path, "/etc/group", "users:x:100:\nextra:x:7:me,root\n")
    found = users.accounts(DirectoryRootFS(tmp_path))
    assert (found.accounts["me"].uid, found.accounts["me"].groups) == (1000, (7, 100))
    assert found.accounts["root"].groups == (0, 7)
    assert not found.problems


@pytest.mark.parametrize("line", ["me:x:1000", "me:x:many:100::/:", "me:x:-1:1::/:"])
def test_lines_that_are_no_accounts_are_told(tmp_path: Path, line: str) -> None:
    put(tmp_path, "/etc/group", "")
    put(tmp_path, "/etc/passwd", f"{line}\n")
    found = users.accounts(DirectoryRootFS(tmp_path))
    assert [problem.path for problem in found.problems] == ["/etc/passwd:1"]


def test_what_the_group_can_write_where_owners_are_unknown(tmp_path: Path) -> None:
    put(tmp_path, "/opt/a/good", "", 0o664)
    put(tmp_path, "/opt/a/closed", "", 0o644)
    put(tmp_path, "/opt/a/closed-too", "", 0o444)
    for path, mode in (("opt", 0o2775), ("opt/a", 0o2775)):
        (tmp_path / path).chmod(mode)
    (tmp_path / "opt/b").mkdir()
    (tmp_path / "opt/b").chmod(0o775)
    (tmp_path / "opt/link").symlink_to("/nowhere")
    rootfs = DirectoryRootFS(tmp_path)
    tops = ["/opt", "/gone"]
    found = users.writability(rootfs, tops, 54321, 100, [100], "/home/me", True)
    assert not found.owners
    assert found.missing == ("/gone",)
    told = [(one.path, one.count, one.no_setgid) for one in found.closed]
    assert told == [("/opt/a", 2, False), ("/opt/b", 1, True)]
    found = users.writability(rootfs, tops, 54321, 100, [100], "/home/me", False)
    assert [one.path for one in found.closed] == ["/opt/a"]


@pytest.mark.parametrize(
    ("history", "names"),
    [
        (
            "# update specs: ['numpy=1.26', 'conda-forge::Blas=*[build=openblas]']",
            ("blas", "numpy"),
        ),
        ('# update specs: ["r-base>=4", "python=3.11.*"]', ("python", "r-base")),
        ("# install specs: ['a', 'b']\n# remove specs: ['b']", ("a",)),
        ("# cmd: conda install c\n+conda-forge/noarch::d-1-0", ()),
    ],
)
def test_what_was_asked_for(tmp_path: Path, history: str, names: tuple[str, ...]) -> None:
    put(tmp_path, "/opt/conda-meta/history", f"==> 2025-01-01 00:00:00 <==\n{history}\n")
    found = requested.read(DirectoryRootFS(tmp_path), "/opt")
    assert (found.names, found.problems) == (names, ())


def test_a_history_of_something_else(tmp_path: Path) -> None:
    put(tmp_path, "/opt/conda-meta/history", "# update specs: [1, (\n# update specs: [3]\n")
    found = requested.read(DirectoryRootFS(tmp_path), "/opt")
    assert [problem.path for problem in found.problems] == ["/opt/conda-meta/history:1"]
    assert found.names == ()
    assert requested.read(DirectoryRootFS(tmp_path), "/gone").problems


def test_what_files_say(tmp_path: Path) -> None:
    put(tmp_path, "/etc/a-1.0/x.json", '{"version": "1.0"}')
    put(tmp_path, "/etc/b.json", '{"name": "b"}')
    asked = {"v": {"/etc/a-*/x.json": '"version": "([^"]+)"', "/etc/b.json": "v(.)x", "/c": "(.)"}}
    found = agreements.probe(DirectoryRootFS(tmp_path), asked)
    assert [(one.path, one.text) for one in found.said["v"]] == [
        ("/etc/a-1.0/x.json", "1.0"),
        ("/etc/b.json", None),
        ("", None),
    ]


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "good"),
    [
        (1000, 100, 0o664, True),
        (1000, 100, 0o644, False),
        (1000, 101, 0o664, False),
        (1000, 101, 0o666, True),
        (0, 100, 0o664, True),
        (0, 100, 0o644, False),
        (0, 0, 0o664, False),
        (1000, 100, 0o464, False),
    ],
)
def test_what_the_user_and_its_group_can_write(uid: int, gid: int, mode: int, good: bool) -> None:
    """As the kernel decides for jovyan (1000:100), and for another member of the group 100."""
    files = {
        "/etc/passwd": File("/etc/passwd", "file", 0o644, 0, 0, 1, None, (0, 1)),
        "/home/me": File("/home/me", "directory", 0o2775, 1000, 100, 0, None, (0, 2)),
        "/opt": File("/opt", "directory", 0o2775, 1000, 100, 0, None, (0, 3)),
    }
    judged = File("/opt/x", "file", mode, uid, gid, 1, None, (0, 4))
    rootfs: Any = SimpleNamespace(
        lstat=files.get,
        resolve=lambda path: SimpleNamespace(final=files[path]),
        walk=lambda path: [judged],
    )
    found = users.writability(rootfs, ["/opt"], 1000, 100, [100], "/home/me", True)
    assert found.owners
    assert [one.example.path for one in found.closed] == ([] if good else ["/opt/x"])


@pytest.mark.parametrize(
    ("body", "programs"),
    [
        ("os.execv('/opt/lost', sys.argv)", ("/opt/lost",)),
        ("os.execvp('lost', ['lost'] + sys.argv[1:])", ("lost",)),
        ("sys.exit(subprocess.call(['/opt/lost'] + sys.argv[1:]))", ("/opt/lost",)),
        ("subprocess.run(['/opt/lost', *sys.argv[1:]], check=True)", ("/opt/lost",)),
        ("MC = '/opt/lost'\nsubprocess.run([MC, *sys.argv[1:]])", ("/opt/lost",)),
        ("argv = ['/opt/lost'] + sys.argv[1:]\nsubprocess.Popen(argv)", ("/opt/lost",)),
        ("os.execv(os.path.join('/opt', 'lost'), sys.argv)", ("/opt/lost",)),
        ("os.execv(os.environ.get('MC', '/opt/lost'), sys.argv)", ("/opt/lost",)),
        ("os.execv(os.environ.get('MC') or '/opt/lost', sys.argv)", ("/opt/lost",)),
        ("os.execv(os.environ['TOOLS'] + '/lost', sys.argv)", ("/opt/tools/lost",)),
        ("os.execv(f\"{os.environ['TOOLS']}/lost\", sys.argv)", ("/opt/tools/lost",)),
        ("os.execv(str(Path('/opt') / 'lost'), sys.argv)", ("/opt/lost",)),
        ("from os import execv\nexecv('/opt/lost', sys.argv)", ("/opt/lost",)),
        ("os.spawnv(os.P_WAIT, '/opt/lost', sys.argv)", ("/opt/lost",)),
        ("os.execv(find(), sys.argv)", ()),
        ("a = '/x'\na = '/y'\nos.execv(a, sys.argv)", ()),
        ("if os.path.exists('/opt/lost'): os.execv('/opt/lost', sys.argv)", ()),
        ("try:\n    os.execv('/opt/lost', sys.argv)\nexcept OSError:\n    pass", ()),
        ("subprocess.run(['/opt/lost', '--version'])", ()),
        ("print 'Python 2', sys.argv", ()),
        ("x = " + "(" * 5000, ()),
    ],
)
def test_programs_that_wrappers_in_python_call(body: str, programs: tuple[str, ...]) -> None:
    text = f"import os, subprocess, sys\nfrom pathlib import Path\n{body}\n"
    assert python_wrappers.called(text, ENV) == programs


def test_a_wrapper_in_python_whose_program_is_missing(tmp_path: Path) -> None:
    put(tmp_path, "/bin/there", "")
    for name in ("there", "lost"):
        body = f"import os, sys\nos.execvp('{name}', sys.argv)\n"
        put(tmp_path, f"/usr/local/bin/{name}-wrapper", f"#!/usr/bin/env python3\n{body}")
    found = shell_scripts.programs(DirectoryRootFS(tmp_path), ["/usr/local/bin/*"], ENV)
    assert {one.path: one.calls for one in found.programs} == {
        "/usr/local/bin/there-wrapper": (),
        "/usr/local/bin/lost-wrapper": ("lost",),
    }
