"""What this process promised to undo is undone when it ends, however it ends."""

from __future__ import annotations

import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mlcheck.machine import janitor, janitor_process
from selftests.checkout import CHECKOUT
from selftests.waiting import eventually

CODE = str(CHECKOUT)


def tool(body: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, which prints a line when it has come to its end of `body`."""
    code = "import os, sys, subprocess, threading\nfrom pathlib import Path\n"
    code += f"from mlcheck.machine import janitor\n{body}\n"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=CODE, stdout=subprocess.PIPE, text=True
    )


READY = "print('ready', flush=True); threading.Event().wait()"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_directory_is_removed(tmp_path: Path, number: signal.Signals) -> None:
    body = f"with janitor.undone(janitor.remove(Path(sys.argv[1]))):\n    {READY}"
    (tmp_path / "gone/deep").mkdir(parents=True)
    with tool(body, str(tmp_path / "gone")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait() != 0
    assert eventually(lambda: not (tmp_path / "gone").exists())
    assert tmp_path.exists()


def test_a_dropped_action_is_not_done(tmp_path: Path) -> None:
    body = (
        "with janitor.promised(janitor.remove(Path(sys.argv[1]))): pass\n"
        "with janitor.promised(janitor.run(['touch', sys.argv[2]])):\n    os.kill(os.getpid(), 9)"
    )
    (tmp_path / "kept").mkdir()
    with tool(body, str(tmp_path / "kept"), str(tmp_path / "done")) as process:
        process.wait()
    assert eventually((tmp_path / "done").exists)  # the janitor has done all that it had to
    assert (tmp_path / "kept").exists()


def test_a_child_of_the_process_does_not_hold_up_the_janitor(tmp_path: Path) -> None:
    body = (
        "with janitor.promised(janitor.run(['touch', sys.argv[1]])):\n"
        "    import time\n"
        "    child = os.fork()\n"
        "    if child == 0: time.sleep(1000)\n"
        "    print(child, flush=True); os.kill(os.getpid(), 9)"
    )
    with tool(body, str(tmp_path / "done")) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert eventually((tmp_path / "done").exists)
            assert Path(f"/proc/{child}").exists()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_process_is_killed_with_its_group_but_never_another_of_its_number() -> None:
    sleeper = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"], start_new_session=True)
    action = janitor.kill(sleeper.pid, group=True)
    with janitor.undone(action | {"started": "1"}):
        pass
    assert sleeper.poll() is None
    with janitor.undone(action):
        pass
    assert sleeper.wait() == -signal.SIGTERM


@pytest.mark.parametrize("at_last", [True, False])
def test_a_group_may_finish_what_it_is_doing(
    at_last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child, as podman's server without root is; it goes on when its leader has ended."""
    if not at_last:
        monkeypatch.setattr(janitor_process, "_GRACE_S", 0.5)
    work = f"until [ -e '{tmp_path}/go' ]; do sleep 0.05; done; touch '{tmp_path}/done'"
    leader = f"sh -c 'trap : TERM; echo ready; {work.replace(chr(39), chr(34))}' & wait"
    with subprocess.Popen(
        ["sh", "-c", leader], start_new_session=True, stdout=subprocess.PIPE
    ) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == b"ready\n"
        timer = threading.Timer(0.3, (tmp_path / "go").touch)
        if at_last:
            timer.start()
        with janitor.undone(janitor.kill(sleeper.pid, group=True)):
            pass
        assert (tmp_path / "done").exists() == at_last
        assert sleeper.stdout.read() == b""  # nobody has it open any more
    timer.cancel()


class _Handler(BaseHTTPRequestHandler):
    deleted: list[str]
    first = 409
    """The status at first: of a container that is being removed already."""

    def do_DELETE(self) -> None:
        self.deleted.append(self.path)
        self.wait()
        self.send_response(self.first if self.deleted.count(self.path) == 1 else 204)
        self.end_headers()

    def wait(self) -> None:
        """For a test that holds answers back."""

    def address_string(self) -> str:
        return ""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Stands in for an engine's API on a unix socket."""
    handler = type("Handler", (_Handler,), {"deleted": []})
    path = tmp_path / "socket"
    with socketserver.ThreadingUnixStreamServer(str(path), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"unix://{path}", handler.deleted  # type: ignore[attr-defined]
        listening.shutdown()
        thread.join()


@pytest.mark.slow
def test_http_delete_waits_for_a_server_that_is_busy(
    server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is undone after this may end the server, with half of something removed."""
    host, deleted = server
    monkeypatch.setattr(janitor_process, "_LIMIT_S", 0.2)
    held = threading.Event()
    threading.Timer(1, held.set).start()
    monkeypatch.setattr(_Handler, "wait", lambda _: held.wait(), raising=False)
    janitor_process.undo(janitor.http_delete(host, "/containers/x"))
    assert held.is_set()
    assert len(deleted) > 1


@pytest.mark.slow
def test_http_delete_is_repeated_until_it_succeeds(server: tuple[str, list[str]]) -> None:
    host, deleted = server
    with janitor.undone(janitor.http_delete(host, "/containers/x?force=1")):
        assert deleted == []
    assert deleted == ["/containers/x?force=1"] * 2


@pytest.mark.parametrize("refused", [True, False])
def test_what_a_server_still_creates_is_deleted_when_it_exists(
    refused: bool, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """podman goes on with a container for seconds after its client has ended; what it refused to
    create never comes."""
    host, deleted = server
    monkeypatch.setattr(_Handler, "first", 404)
    body = (
        "try:\n"
        "    with janitor.answered(\n"
        "        janitor.http_delete(sys.argv[1], '/containers/x', in_work=True), OSError\n"
        "    ):\n"
        "        raise OSError if sys.argv[2] == 'True' else KeyboardInterrupt\n"
        "except BaseException: pass\n"
        "with janitor.promised(janitor.http_delete(sys.argv[1], '/last')):\n"
        "    os.kill(os.getpid(), 9)"
    )
    with tool(body, host, str(refused)) as process:
        process.wait()
    last = ["/last"]
    assert eventually(lambda: len(deleted) == (1 if refused else 3))
    assert deleted == (last if refused else [*last, *["/containers/x"] * 2])


def test_only_an_ended_process_of_this_machine_has_abandoned_its_label() -> None:
    mine = janitor.owner()
    machine, boot, namespace, pid, started = mine.split("/")
    assert pid == str(os.getpid())
    assert not janitor.is_abandoned(mine)
    assert janitor.is_abandoned("/".join((machine, boot, namespace, pid, "1")))
    assert janitor.is_abandoned("/".join((machine, "another-boot", namespace, pid, started)))
    assert not janitor.is_abandoned("/".join(("another-machine", boot, namespace, pid, "1")))
    assert not janitor.is_abandoned("/".join((machine, boot, "another-namespace", pid, "1")))
    for strange in ("", "x", "a/b/c/d/e", f"{mine}/more"):
        assert not janitor.is_abandoned(strange)


def test_an_owner_that_ended_has_abandoned_its_label() -> None:
    with tool("print(janitor.owner(), flush=True)") as process:
        assert process.stdout is not None
        label = process.stdout.read().strip()
        process.wait()
    assert janitor.is_abandoned(label)


def test_a_directory_whose_owner_has_ended_is_removed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the kernel's OOM killer took both processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    body = (
        "directory = janitor.labelled('mlcheck-image-')\n"
        "(directory / 'image').mkdir(parents=True); (directory / 'image/file').touch()\n"
        "print(directory, flush=True)"
    )
    with tool(body) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
    # Of a living process, of an unknown machine, of nobody, of another boot, and no directory.
    alive = janitor.labelled("mlcheck-image-", tmp_path)
    machine, boot, *rest = left.name.removeprefix("mlcheck-image-").split("-")
    elsewhere = left.with_name("-".join(["mlcheck-image", "0" * 8, boot, *rest]))
    nobody = left.with_name("mlcheck-image-0123456789abcdef")
    earlier = left.with_name("-".join(["mlcheck-rpm", machine, "0" * 8, *rest]))
    for directory in (alive, elsewhere, nobody, earlier):
        directory.mkdir()
    link = left.with_name(f"{left.name[:-8]}{'0' * 8}")
    link.symlink_to(alive)
    assert {*janitor.abandoned_directories(tmp_path)} == {left, earlier}
    body = f"with janitor.promised(janitor.remove(Path(sys.argv[1]))):\n    {READY}"
    with tool(body, str(tmp_path / "none")) as process:
        assert eventually(lambda: not left.exists() and not earlier.exists())
        process.kill()
    assert {*tmp_path.iterdir()} == {alive, elsewhere, nobody, link}
