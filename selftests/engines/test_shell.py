"""The kept-open shell, with every shell that a Linux distribution calls /bin/sh."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlcheck.engines import shell_kill
from mlcheck.engines.base import Command, Completed
from mlcheck.engines.shell import Channels, NoShell, PipeStream, StreamEnded
from mlcheck.model.errors import EngineError
from selftests.waiting import eventually

SHELLS = {
    "dash": "Debian, Ubuntu",
    "bash --posix": "CentOS, AlmaLinux, Fedora",
    "busybox sh": "Alpine",
    "zsh --emulate sh": "",
}


PATH = os.pathsep.join(
    directory for directory in os.get_exec_path() if os.access(directory, os.X_OK)
)

"""Where this user may look: for some shells a program that is nowhere is forbidden if a directory
is (exit code 126)."""


WITHOUT_NOHUP = ("env", "--default-signal=HUP")
"""nohup(1), with which somebody may have begun the self-tests, has the signal ignored."""


class Shells:
    """Channels to shells that are processes of this machine, and which of them were started."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.processes: list[subprocess.Popen[bytes]] = []
        self.killed: list[int] = []
        self.unstoppable = 0
        self.channels = Channels(self.connect, self.kill, self.end)

    def connect(self) -> PipeStream:
        process = subprocess.Popen(
            [*WITHOUT_NOHUP, *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH, "FROM_START": "1"},
            start_new_session=True,
        )
        self.processes.append(process)
        return PipeStream(process)

    def kill(self, group: int, since: int | None) -> None:
        self.killed.append(group)
        os.killpg(os.getpgid(group), signal.SIGKILL)

    def end(self) -> None:
        self.unstoppable += 1

    def run(
        self,
        *argv: str,
        env: dict[str, str] | None = None,
        cwd: str = "/",
        stdin: bytes = b"",
        limit_s: float = 60,
        output_limit: int = 64 * 1024 * 1024,
    ) -> Completed:
        return self.channels.run(Command(argv, env or {}, cwd, stdin, limit_s, output_limit))

    def sh(self, script: str, **options: float) -> Completed:
        return self.run("sh", "-c", script, limit_s=options.get("limit_s", 60))


def inside(root: Path) -> list[str]:
    """A shell in a small image, which has no program that the channel could lean on."""
    if shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed")
    (root / "usr/bin/setsid").unlink()
    options = ["--new-session", "--die-with-parent", "--dev", "/dev", "--proc", "/proc"]
    return ["bwrap", "--bind", str(root), "/", *options, "/bin/sh"]


@pytest.fixture(params=[*SHELLS, "in an image"])
def shells(request: pytest.FixtureRequest) -> Iterator[Shells]:
    if request.param == "in an image":
        command = inside(request.getfixturevalue("root"))
    else:
        command = shlex.split(request.param)
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
    opened = Shells(command)
    yield opened
    opened.channels.close()
    assert all(process.returncode is not None for process in opened.processes)


def test_output_is_exact_and_streams_are_apart(shells: Shells) -> None:
    done = shells.sh("printf 'a\\000\\377 no newline'; printf 'err\\r\\n' >&2")
    assert (done.stdout, done.stderr) == (b"a\0\xff no newline", b"err\r\n")
    assert (done.exit_code, done.ended) == (0, "exited")
    done = shells.sh("true")
    assert (done.stdout, done.stderr) == (b"", b"")


def test_much_output_on_both_streams(shells: Shells) -> None:
    done = shells.sh("head -c 9000000 /dev/zero & head -c 8000000 /dev/zero >&2; wait")
    assert (len(done.stdout), len(done.stderr)) == (9_000_000, 8_000_000)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_exit_codes(shells: Shells, script: str, code: int) -> None:
    done = shells.sh(script)
    # What a shell says of a killed child ("Killed") is not the command's.
    assert (done.exit_code, done.stdout, done.stderr) == (code, b"", b"")


def test_what_cannot_be_started(shells: Shells) -> None:
    missing = shells.run("no-such-program")
    assert missing.exit_code == 127
    assert b"no-such-program" in missing.stderr
    assert shells.run("/etc").exit_code == 126
    nowhere = shells.run("pwd", cwd="/no/such")
    assert (nowhere.exit_code, nowhere.stdout) == (126, b"")
    assert b"/no/such" in nowhere.stderr
    if shells.command[0] != "busybox":  # which needs no execve(2) for its own programs
        # E2BIG; zsh says 127.
        assert shells.run("echo", "x" * 200_000).exit_code in (126, 127)
    assert shells.run("echo", "and", "on").stdout == b"and on\n"


def test_arguments_variables_and_directory(shells: Shells) -> None:
    odd = 'it\'s "$HOME" `id` \\ \n * \udcff é'
    assert shells.run("echo", odd, "").stdout == f"{odd} \n".encode("utf-8", "surrogateescape")
    printed = shells.run("env", env={"ODD": odd, "a.b-c": "x y", "FROM_START": "2"}).stdout
    assert f"ODD={odd}\n".encode("utf-8", "surrogateescape") in printed
    assert b"\na.b-c=x y\n" in b"\n" + printed
    assert b"\nFROM_START=2\n" in b"\n" + printed
    # And not for the next command.
    assert b"ODD=" not in shells.run("env").stdout
    assert b"FROM_START=1\n" in shells.run("env").stdout
    assert shells.sh("cd -P . && echo $PWD").stdout == b"/\n"
    assert shells.run("sh", "-c", "pwd", cwd="/etc").stdout == b"/etc\n"


def test_a_program_is_searched_on_the_path_that_is_given(shells: Shells) -> None:
    if shells.command[0] != "busybox":  # which has its own programs on no PATH
        assert shells.run("true", env={"PATH": "/no/such"}).exit_code == 127
    assert shells.run("/bin/true", env={"LD_LIBRARY_PATH": "/no"}).exit_code == 0


def test_stdin(shells: Shells) -> None:
    data = bytes(range(256)) * 40 + b"%s %d \\n no newline"
    assert shells.run("cat", stdin=data).stdout == data
    assert shells.run("cat").stdout == b""
    assert shells.run("true", stdin=b"x" * 300_000).exit_code == 0  # nobody reads it


def test_signals_are_those_of_the_shell_s_start(shells: Shells) -> None:
    """As a shell's background jobs, commands would ignore SIGINT and SIGQUIT."""

    def ignored(status: bytes) -> list[bytes]:
        return [line for line in status.splitlines() if line.startswith(b"SigIgn")]

    # This process itself may be somebody's background job.
    status = [*WITHOUT_NOHUP, "cat", "/proc/self/status"]
    usual = subprocess.run(status, capture_output=True, check=True).stdout
    assert ignored(shells.run("cat", "/proc/self/status").stdout) == ignored(usual)


@pytest.mark.slow
def test_a_time_limit_ends_the_whole_group(shells: Shells) -> None:
    done = shells.sh("echo out; echo err >&2; sleep 1000 & sleep 1000", limit_s=0.3)
    assert (done.exit_code, done.ended) == (None, "timeout")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert eventually(lambda: group_is_gone(shells.killed[0]))
    assert shells.run("echo", "next").stdout == b"next\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_what_left_the_group_is_ended_too(shell: str, tmp_path: Path) -> None:
    """In a PID namespace of the test's own: everything that is no older than the command, even by
    a misleading name, but nothing that was there before, and nothing of another shell."""
    if shutil.which(shlex.split(shell)[0]) is None:
        pytest.skip(f"{shell} is not installed")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    orphan = "until read -r _ _ _ parent _ </proc/$$/stat; [ $parent = 1 ]; do :; done"
    daemon = f"{orphan}; printf 'x\\n) Z 0 1' >/proc/$$/comm; echo daemon >{fifo}; sleep 1002"
    names = 'for f in /proc/[2-9] /proc/[1-9]?*; do tr "\\0" " " <$f/cmdline; echo; done'
    script = f"""
        setsid sleep 1001 & sleep 0.05; {shell_kill.NOW}; since=$u
        setsid sh -c '(setsid sh -c "$1" &); sleep 1003' sh "$1" & group=$!
        read -r _ <{fifo}; {shell_kill.line(11, 22)}
        for _ in {" ".join(["again"] * 100)}; do
            {{ {names}; }} >{tmp_path}/left
            case $(cat {tmp_path}/left) in *100[23]*) ;; *) break;; esac
            sleep 0.05  # killed, and not yet gone
        done
    """.replace("=11;", "=$group;").replace("=22;", "=$since;")
    unshare = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc"
    argv = [*shlex.split(f"{unshare} {shell}"), "-c", script, "sh", daemon]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    left = (tmp_path / "left").read_text()
    assert set(re.findall(r"sleep (\d+)", left)) == {"1001"}, done.stderr


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("redirection", ["", ">&2"])
def test_endless_output_is_cut(shells: Shells, redirection: str) -> None:
    done = shells.run("sh", "-c", f"yes {redirection}", output_limit=10_001)
    assert (done.exit_code, done.ended) == (None, "output-limit")
    assert len(done.stdout) + len(done.stderr) == 10_001
    assert shells.run("echo", "next").stdout == b"next\n"


def test_output_up_to_the_limit_is_fine(shells: Shells) -> None:
    done = shells.run("head", "-c", "5000", "/dev/zero", output_limit=5000)
    assert (len(done.stdout), done.ended, done.exit_code) == (5000, "exited", 0)


@pytest.mark.slow
def test_what_a_command_leaves_behind_is_ended(shells: Shells) -> None:
    done = shells.sh("sleep 1000 >/dev/null 2>&1 & echo $!")
    assert done.exit_code == 0
    assert eventually(lambda: has_ended(int(done.stdout)))


def has_ended(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_late_output(shells: Shells) -> None:
    done = shells.sh("(sleep 0.2; echo late; echo late >&2) & echo early")
    assert (done.stdout, done.stderr) == (b"early\nlate\n", b"late\n")


def test_the_output_of_one_is_never_taken_for_anothers(shells: Shells) -> None:
    # Text that looks like a mark, with any number but the right one.
    forged = "".join(f"{number:032x} d 0;{number:032x} e 0;" for number in range(50))
    assert shells.run("echo", "-n", forged).stdout == forged.encode()
    # A shell's own name for the command must not show how answers are marked.
    failed = shells.run("no-such").stderr + shells.sh("echo $0; cat /proc/$$/cmdline").stdout
    assert b"printf" not in failed


def test_commands_run_side_by_side_and_shells_are_used_again(shells: Shells) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: shells.sh(f"sleep 0.1; echo {n}"), range(12)))
    assert [each.stdout for each in done] == [f"{n}\n".encode() for n in range(12)]
    assert len(shells.processes) <= 4


def test_a_command_that_signals_its_group(shells: Shells) -> None:
    # As `trap "kill 0" EXIT` does in many a script: the shell must live.
    for name in ("TERM", "INT", "HUP"):
        assert shells.sh(f"kill -{name} 0; sleep 5").exit_code in (129, 130, 143)
    assert shells.run("echo", "next").stdout == b"next\n"
    assert len(shells.processes) == 1


def test_a_banner_and_a_shell_that_is_none(tmp_path: Path) -> None:
    script = tmp_path / "sh"
    script.write_text("#!/bin/sh\necho welcome; printf 'no newline'; exec /bin/sh\n")
    script.chmod(0o755)
    shells = Shells([str(script)])
    assert shells.run("echo", "hi").stdout == b"hi\n"
    shells.channels.close()
    for command in (["true"], ["head", "-c", "1"]):
        none = Shells(command)
        with pytest.raises(NoShell):
            none.run("true")
        assert none.processes[0].returncode is not None


@pytest.mark.parametrize(
    "answer",
    [
        'printf "%s e 0;" $n; printf "%s e;" $n >&2',  # never says how the command ended
        'printf "%s d 99999999999999;%s e 0;" $n $n; printf "%s e;" $n >&2',
        'printf "%s " $n; yes | head -c 3000000',  # a mark that does not end
    ],
)
def test_a_hostile_shell(tmp_path: Path, answer: str) -> None:
    script = tmp_path / "sh"
    script.write_text(
        "#!/bin/bash\n"
        "read -r line; [[ $line =~ ([0-9a-f]{32}) ]]; printf '%s g 1;' ${BASH_REMATCH[1]}\n"
        f"read -r line; [[ $line =~ ([0-9a-f]{{32}}) ]]; n=${{BASH_REMATCH[1]}}; {answer}\n"
    )
    script.chmod(0o755)
    shells = Shells([str(script)])
    with pytest.raises(StreamEnded):
        shells.run("true")
    assert shells.killed == []


def test_a_shell_that_reads_nothing(tmp_path: Path) -> None:
    """A command's limit holds while its words are sent, too."""
    script = tmp_path / "sh"
    script.write_text(
        "#!/bin/bash\nread -r line; [[ $line =~ ([0-9a-f]{32}) ]]; "
        "printf '%s g %d;' ${BASH_REMATCH[1]} $$; exec sleep 1000\n"
    )
    script.chmod(0o755)
    shells = Shells([str(script)])
    done = shells.run("true", "x" * 1_000_000, limit_s=0.2)
    assert (done.exit_code, done.ended) == (None, "timeout")
    assert shells.processes[0].returncode == -signal.SIGKILL
    assert shells.killed == [shells.processes[0].pid]


def test_a_command_that_cannot_be_ended_takes_its_container_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shells = Shells(["sh"])

    def refuse(_: int, __: int | None) -> None:
        raise EngineError("no process can be started in the container")

    monkeypatch.setattr(shells, "kill", refuse)
    shells.channels = Channels(shells.connect, shells.kill, shells.end)
    assert shells.sh("sleep 1000", limit_s=0.1).ended == "timeout"
    assert shells.unstoppable == 1
    assert shells.sh("echo next").stdout == b"next\n"


def test_the_shell_dies_in_mid_command() -> None:
    shells = Shells(["sh"])
    with pytest.raises(StreamEnded):
        shells.sh("kill -9 $PPID")
    shells.channels.close()
    assert shells.processes[0].returncode == -signal.SIGKILL
