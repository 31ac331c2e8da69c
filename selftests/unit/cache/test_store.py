"""Where kept facts lie: whole or not at all, once for several processes, within a size."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcheck.cache import Content, Store, store
from mlcheck.cache.fact_json import FactJson
from mlcheck.inspect.system.facts import OsRelease
from selftests.checkout import CHECKOUT

CODEC = FactJson[OsRelease](OsRelease)
IMAGE = Content("image", "mini:v9", "digest sha256:1")
FACT = OsRelease({"ID": "mini"}, None)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "facts"


def refuse() -> OsRelease:
    raise AssertionError("made again")


def ask(
    directory: Path,
    make: Callable[[], OsRelease] = refuse,
    *,
    content: Content = IMAGE,
    question: str = "os-release",
    limit: int = store.LIMIT,
) -> OsRelease:
    """What a new process would do."""
    return Store(directory, limit).kept(content, question, CODEC, make)


def entry(directory: Path) -> Path:
    (found,) = (path for path in directory.glob("*/*") if path.name != "about")
    return found


def test_an_answer_is_made_once(cache: Path) -> None:
    assert ask(cache, lambda: FACT) == FACT
    assert ask(cache) == FACT
    assert Store(cache).find(IMAGE, "os-release", CODEC, refuse).since is not None


@pytest.mark.parametrize(
    "other",
    [
        {"question": "another"},
        {"content": Content("image", "mini:v9", "digest sha256:2")},
        {"content": Content("layer", "mini:v9", "digest sha256:1")},
    ],
)
def test_another_question_has_another_answer(cache: Path, other: dict[str, str]) -> None:
    ask(cache, lambda: FACT)
    with pytest.raises(AssertionError, match="made again"):
        ask(cache, **other)  # type: ignore[arg-type]


def test_other_probes_may_find_something_else(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(cache, lambda: FACT)
    monkeypatch.setattr(store, "version", lambda: "another")
    with pytest.raises(AssertionError, match="made again"):
        ask(cache)


def test_what_is_raised_is_not_kept(cache: Path) -> None:
    with pytest.raises(AssertionError, match="made again"):
        ask(cache)
    assert list(cache.glob("*/*.lock")) == []
    assert ask(cache, lambda: FACT) == FACT


def header(**changes: object) -> Callable[[bytes], bytes]:
    def damage(whole: bytes) -> bytes:
        head, _, rest = whole.partition(b"\n")
        return json.dumps(json.loads(head) | changes).encode() + b"\n" + rest

    return damage


def bomb(whole: bytes) -> bytes:
    packed = zlib.compress(b"\0" * 64 * 1024**2)
    return header(packed=len(packed))(whole.partition(b"\n")[0] + b"\n" + packed)


def cut_with_header(whole: bytes) -> bytes:
    packed = len(whole.partition(b"\n")[2])
    return header(packed=packed - 2)(whole)[:-2]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut in its header": lambda whole: whole[:10],
    "cut": lambda whole: whole[:-1],
    "cut, and its header fits": cut_with_header,
    "longer": lambda whole: whole + b"x",
    "another byte": lambda whole: whole[:-12] + bytes([whole[-12] ^ 1]) + whole[-11:],
    "another checksum": lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
    "no header": lambda whole: whole.partition(b"\n")[2],
    "header of another kind": lambda whole: b"[]\n",
    "deep header": lambda whole: b"[" * 100_000,
    "another format": header(format="x"),
    "another size": header(size=3),
    "a size that is no number": header(size=None),
    "a time that is none": header(made="yesterday"),
    "more than it says": bomb,
    "not UTF-8": lambda whole: b"\xff" * 1000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_answer_is_none(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    ask(cache, lambda: FACT)
    path = entry(cache)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AssertionError, match="made again"):
        ask(cache)
    assert ask(cache, lambda: FACT) == FACT
    assert ask(cache) == FACT


@pytest.mark.parametrize("data", [b"", b"U{", b'U{"x":1}', b"S[]", b"U[1]", b"?", b'S"\\ud800"'])
def test_an_answer_of_another_type_is_none(cache: Path, data: bytes) -> None:
    class Foreign(FactJson[OsRelease]):
        def encode(self, value: OsRelease) -> bytes:
            return data

    Store(cache).kept(IMAGE, "os-release", Foreign(OsRelease), lambda: FACT)
    assert entry(cache).is_file()
    with pytest.raises(AssertionError, match="made again"):
        ask(cache)


# Several at once. The other process says each step on stdout and waits for a line on stdin.

OTHER = """
import sys
from pathlib import Path
from selftests.unit.cache.test_store import CODEC, FACT, IMAGE, Store

def make():
    print("making", flush=True)
    sys.stdin.readline()
    return FACT

assert Store(Path(sys.argv[1])).kept(IMAGE, "os-release", CODEC, make) == FACT
print("done", flush=True)
"""


def other(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, str(cache)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def waits_for_lock(path: Path) -> bool:
    """Whether somebody waits for a lock of this file (proc_locks(5))."""
    inode = f":{path.stat().st_ino}"
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and line.split()[-3].endswith(inode) for line in lines)


def test_two_at_once_make_one_answer(cache: Path) -> None:
    with other(cache) as first:
        assert said(first) == "making"
        (lock,) = cache.glob("*/*.lock")
        found: list[OsRelease] = []
        second = threading.Thread(target=lambda: found.append(ask(cache)))
        second.start()
        while second.is_alive() and not waits_for_lock(lock):
            second.join(0.01)
        assert not found
        first.communicate("\n", timeout=60)
        second.join(60)
    assert first.returncode == 0
    assert found == [FACT]
    assert list(cache.glob("*/*.lock")) == []


def test_a_killed_maker_holds_nobody_up(cache: Path) -> None:
    with other(cache) as first:
        assert said(first) == "making"
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
    assert list(cache.glob("*/*.lock"))
    assert ask(cache, lambda: FACT) == FACT
    assert ask(cache) == FACT
    assert list(cache.glob("*/*.lock")) == []


# Size


def about(number: int) -> Content:
    return Content("image", f"mini:v{number}", f"digest sha256:{number}")


def large(number: int) -> OsRelease:
    return OsRelease({"ID": os.urandom(10_000).hex()}, str(number))


def test_what_was_not_used_for_the_longest_time_goes_first(cache: Path) -> None:
    limit = 100_000  # each takes about 12,000: what is random does not become much smaller
    for number in range(20):
        ask(cache, lambda n=number: large(n), content=about(number), limit=limit)  # type: ignore[misc]
        for folder in cache.iterdir():  # time goes by
            used = folder.stat().st_mtime - 100
            os.utime(folder, (used, used))
        ask(cache, content=about(0), limit=limit)
    folders = Store(cache).folders()
    assert sum(folder.size for folder in folders) <= limit + 20_000
    names = {folder.name for folder in folders}
    assert {"mini:v0", "mini:v19"} <= names
    assert "mini:v1" not in names
    assert len(names) >= 5


def test_an_answer_that_is_too_large_is_not_kept(cache: Path) -> None:
    assert ask(cache, lambda: FACT, limit=100) == FACT
    with pytest.raises(AssertionError, match="made again"):
        ask(cache)


def test_all_can_be_shown_and_forgotten(cache: Path) -> None:
    assert (Store(cache).folders(), Store(cache).clear()) == ([], 0)
    ask(cache, lambda: FACT)
    ask(cache, lambda: FACT, question="another")
    (folder,) = Store(cache).folders()
    assert (folder.kind, folder.name, folder.entries) == ("image", "mini:v9", 2)
    assert Store(cache).clear() == folder.size
    assert list(cache.iterdir()) == []


def test_a_folder_that_goes_while_an_answer_is_made(cache: Path) -> None:
    def make() -> OsRelease:
        Store(cache).clear()
        return FACT

    mine = Store(cache)
    assert mine.kept(IMAGE, "os-release", CODEC, make) == FACT
    assert mine.trouble == ""


# Where nothing can be kept, everything goes on.


def test_only_the_user_can_read_it(cache: Path) -> None:
    ask(cache, lambda: FACT)
    for path in (cache, *cache.glob("*"), *cache.glob("*/*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("place", ["/proc/nowhere/facts", "{tmp}/file/facts"])
def test_no_place_for_it(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mine = Store(Path(place.format(tmp=tmp_path)))
    for _ in range(2):
        assert mine.kept(IMAGE, "os-release", CODEC, lambda: FACT) == FACT
    assert mine.trouble.startswith("facts are not kept: ")
    assert mine.folders() == []


@pytest.mark.user_only
def test_one_that_can_only_be_read_is_read(cache: Path) -> None:
    ask(cache, lambda: FACT)
    for path in (*cache.glob("*"), cache):
        path.chmod(0o500)
    try:
        assert ask(cache) == FACT
        assert ask(cache, lambda: FACT, question="another") == FACT
    finally:
        for path in (cache, *cache.glob("*")):
            path.chmod(0o700)


FULL = """
import resource, sys
from pathlib import Path
from selftests.unit.cache.test_store import CODEC, FACT, IMAGE, Store
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow, as on a full disk
mine = Store(Path(sys.argv[1]))
for question in "ab":
    assert mine.kept(IMAGE, question, CODEC, lambda: FACT) == FACT
print(mine.trouble)
"""


def test_a_full_disk(cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL, str(cache)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"facts are not kept: {cache}: ")
    assert [path for path in cache.glob("*/*") if path.stat().st_size or "." in path.name] == []
    assert ask(cache, lambda: FACT) == FACT
    assert ask(cache) == FACT


def test_a_directory_that_others_can_write_in_is_not_used(cache: Path) -> None:
    ask(cache, lambda: FACT)
    cache.chmod(0o777)
    mine = Store(cache)
    assert mine.kept(IMAGE, "os-release", CODEC, lambda: FACT) == FACT
    assert "it is not this user's alone" in mine.trouble
    (folder,) = cache.iterdir()
    cache.chmod(0o700)
    folder.chmod(0o770)
    with pytest.raises(AssertionError, match="made again"):
        ask(cache)


@pytest.mark.root_only
def test_a_directory_of_somebody_else_is_not_used(cache: Path) -> None:
    ask(cache, lambda: FACT)
    os.chown(cache, 65534, 65534)
    mine = Store(cache)
    assert mine.kept(IMAGE, "os-release", CODEC, lambda: FACT) == FACT
    assert "it is not this user's alone" in mine.trouble


def test_no_planted_symlink_is_followed(cache: Path, tmp_path: Path) -> None:
    ask(cache, lambda: FACT)
    path = entry(cache)
    elsewhere = tmp_path / "elsewhere"
    # An answer that lies elsewhere is none, and is left as it is.
    path.rename(elsewhere)
    before = elsewhere.read_bytes()
    path.symlink_to(elsewhere)
    path.with_name(f"{path.name}.lock").symlink_to(tmp_path / "lock")
    assert ask(cache, lambda: OsRelease({}, None)) == OsRelease({}, None)
    assert elsewhere.read_bytes() == before
    assert not (tmp_path / "lock").exists()
    # Nor is a folder, nor the whole.
    for planted in (path.parent, cache):
        aside = planted.rename(tmp_path / f"aside-{planted.name}")
        planted.symlink_to(aside)
        there = sorted(aside.rglob("*"))
        with pytest.raises(AssertionError, match="made again"):
            ask(cache)
        Store(cache).clear()
        assert ask(cache, lambda: FACT, question="new") == FACT
        assert sorted(aside.rglob("*")) == there
        planted.unlink()
        aside.rename(planted)
