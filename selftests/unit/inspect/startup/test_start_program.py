"""The program and the user that an image's configuration names: what engines look for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.server import users
from mlcheck.inspect.startup import promised
from mlcheck.inspect.startup.facts import StartProgram
from mlcheck.model.environment import Environment
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.images import script, write
from selftests.rules import judge


def config(
    entrypoint: tuple[str, ...] | None = None,
    cmd: tuple[str, ...] | None = None,
    user: str | None = None,
    workdir: str = "",
) -> Environment:
    env = {"PATH": "/opt/bin:/usr/bin"}
    return Environment(env, entrypoint, cmd, user, workdir, None, None, "/env.sh")


def program(root: Path, of: Environment) -> StartProgram | None:
    image = SimpleNamespace(rootfs=DirectoryRootFS(root), environment=of)
    ask = cast(Ask, lambda function, *given: function(*given))
    return promised.start_program(cast(OpenImage, image), ask)


def verdict(root: Path, **said: Any) -> Verdict:
    of = config(**said)
    accounts = users.accounts(DirectoryRootFS(root))
    return judge("startable", of, program(root, of), accounts, Profile.of({"startable": True}))


def found(of: Verdict) -> list[tuple[str, str]]:
    return [(finding.subject, finding.found) for finding in of.findings]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    script(tmp_path, "opt/bin/start", "true")
    script(tmp_path, "usr/bin/sh", "true")
    (tmp_path / "bin").symlink_to("usr/bin")
    write(tmp_path, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\njo:x:7:7::/home/jo:/bin/sh\n")
    write(tmp_path, "etc/group", "root:x:0:\nstaff:x:50:jo\n")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"entrypoint": ("/opt/bin/start",)}, ""),
        ({"entrypoint": ("start", "x")}, ""),
        ({"cmd": ("start",)}, ""),
        ({"entrypoint": (), "cmd": ("/bin/sh", "-c", "exec nothing")}, ""),
        ({"entrypoint": ("./start",), "workdir": "/opt/bin"}, ""),
        ({"entrypoint": ("./start",)}, "ENTRYPOINT ./start: "),
        ({"entrypoint": ("/nothing",), "cmd": ("start",)}, "ENTRYPOINT /nothing: "),
        ({"entrypoint": ("nothing",)}, "ENTRYPOINT nothing: in no directory of PATH=/opt/bin:/usr"),
        ({"cmd": ("/nothing",)}, "CMD /nothing: "),
        ({"entrypoint": ("/opt/bin",)}, "ENTRYPOINT /opt/bin: directory, mode"),
        ({"entrypoint": ("/etc/passwd",)}, "ENTRYPOINT /etc/passwd: file, mode 0644"),
    ],
)
def test_the_program_that_is_started(image: Path, said: dict[str, Any], wrong: str) -> None:
    judged = [f"{subject}: {what}" for subject, what in found(verdict(image, **said))]
    assert len(judged) == bool(wrong)
    assert all(one.startswith(wrong) for one in judged), judged


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"#!/bin/sh\n", ""),
        (b"#! /bin/sh -e\n", ""),
        (b"#!/bin/sh\r\n", "begins with #!/bin/sh\r, which is not in the image"),
        (b"#!/usr/bin/bash\n", "begins with #!/usr/bin/bash, which is not in the image"),
        (b"\x7fELF", ""),
        (b"", "neither a program (ELF) nor a script (#!)"),
        (b"echo no first line\n", "neither a program (ELF) nor a script (#!)"),
        (b"#!\n", "begins with #! and names no interpreter"),
    ],
)
def test_the_interpreter_of_a_script(image: Path, line: bytes, wrong: str) -> None:
    write(image, "run", line, 0o755)
    expected = [("ENTRYPOINT /run", wrong)] if wrong else []
    assert found(verdict(image, entrypoint=("/run",))) == expected


@pytest.mark.parametrize(
    ("user", "wrong"),
    [
        ("jo", []),
        ("jo:staff", []),
        ("12345:6", []),
        ("", []),
        ("jane", [("USER jane", "not in /etc/passwd")]),
        ("jo:users", [("USER's group users", "not in /etc/group")]),
        ("0:users", [("USER's group users", "not in /etc/group")]),
    ],
)
def test_the_user_of_the_configuration(
    image: Path, user: str, wrong: list[tuple[str, str]]
) -> None:
    assert found(verdict(image, entrypoint=("start",), user=user)) == wrong


def test_an_image_that_names_nothing(image: Path) -> None:
    for user in (None, ""):
        judged = verdict(image, user=user)
        assert judged.outcome == "skipped"
        assert judged.not_applicable == "/env.sh names neither a program nor a user"


@pytest.mark.parametrize(
    ("user", "owner", "mode", "closed"),
    [
        ("jo", (0, 0), 0o755, False),
        ("jo", (0, 0), 0o744, True),
        ("jo", (0, 50), 0o754, False),
        ("7", (0, 50), 0o754, False),
        ("7:6", (0, 50), 0o754, True),
        ("7:50", (0, 50), 0o754, False),
        ("jo", (7, 0), 0o455, True),
        ("12345", (0, 0), 0o750, False),
        ("12345", (1, 1), 0o750, True),
        ("root", (7, 7), 0o100, False),
        ("", (7, 7), 0o100, False),
    ],
)
@pytest.mark.parametrize("closes", ["file", "directory"])
def test_a_program_that_is_closed_to_the_user(
    image: Path, user: str, owner: tuple[int, int], mode: int, closed: bool, closes: str
) -> None:
    of = config(entrypoint=("/opt/bin/start",), user=user)
    said = program(image, of)
    assert said is not None
    assert said.file is not None
    assert said.file.final is not None
    assert [one.path for one in said.way] == ["/opt", "/opt/bin"]
    uid, gid = owner
    final = said.file.final._replace(mode=0o755, uid=0, gid=0)
    way = [one._replace(mode=0o755, uid=0, gid=0) for one in said.way]
    if closes == "file":
        final = final._replace(mode=mode, uid=uid, gid=gid)
    else:
        way[0] = way[0]._replace(mode=mode, uid=uid, gid=gid)
    file = dataclasses.replace(said.file, final=final)
    said = dataclasses.replace(said, file=file, way=tuple(way), owners_known=True)
    accounts = users.accounts(DirectoryRootFS(image))
    promise = Profile.of({"startable": True})
    assert (judge("startable", of, said, accounts, promise).outcome == "failed") == closed
    unknown = dataclasses.replace(said, owners_known=False)
    assert judge("startable", of, unknown, accounts, promise).outcome == "passed"
