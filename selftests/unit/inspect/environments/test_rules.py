"""The rules of environments on top of the image's, on literal facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlcheck.inspect.environments.facts import (
    ArchiveLink,
    EnvArchive,
    EnvAttempt,
    EnvPython,
    EnvSession,
    NewEnv,
)
from mlcheck.model.command import CommandResult
from mlcheck.model.files import Problem
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

ENV, BASE = "/tmp/x/myEnv", "/opt/conda"
OWN, IMAGES = f"{ENV}/lib/python3.11/site-packages", f"{BASE}/lib/python3.11/site-packages"
PROFILE = Profile.of(
    {
        "prefix": BASE,
        "new_env": {
            "script": "/create.sh",
            "reuse": "setup.sh",
            "entries": ["baseEnv_dir", "pyvenv.cfg"],
            "archive": f"{BASE}/newEnv-base.tgz",
        },
    }
)
DONE = CommandResult(("bash",), 0, "", "", "exited", 1.0)
BEFORE = EnvPython(f"{ENV}/bin/python3", ENV, "3.11.9", (OWN, IMAGES), "1.17.0", f"{IMAGES}/six.py")
AFTER = replace(BEFORE, package="9999.0", module=f"{OWN}/six.py")
GOOD = NewEnv(
    script="/create.sh",
    directory=ENV,
    base=BASE,
    package="six",
    installed="9999.0",
    create=EnvSession(DONE, 0, ENV, (BEFORE, AFTER)),
    reuse=EnvSession(DONE, 0, ENV, (AFTER,)),
    entries={"baseEnv_dir": f"link {BASE}", "pyvenv.cfg": "file", "setup.sh": "file"},
    pyvenv={
        "home": f"{BASE}/bin",
        "include-system-site-packages": "true",
        "version": "3.11.9",
    },
    pip=DONE,
    seconds=0.5,
    python_start_s=0.05,
    absolute=EnvSession(DONE, 0, "/tmp/env", (replace(BEFORE, prefix="/tmp/env"),)),
    absolute_directory="/tmp/env",
    again=EnvSession(DONE, 0, ENV, (AFTER,)),
    leaving={f"{ENV}/etc/conda/deactivate.d/x.sh": ""},
    help=EnvAttempt(DONE, 0, "Usage", (), 5),
    missing=EnvAttempt(DONE, 1, "no directory", (), 5),
    executed=EnvAttempt(DONE, 1, "source me", (), 5),
)
RULES = ("created", "pyvenv", "path", "reuse", "usage", "executed")


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.subject, finding.found) for finding in verdict.findings]


def session(code: int | None = 0, **changed: object) -> EnvSession:
    return replace(GOOD.create, code=code, **changed)  # type: ignore[arg-type]


def judged(rule: str, env: NewEnv) -> Verdict:
    takes_no_profile = rule in ("pyvenv", "path")
    return judge(f"newenv-{rule}", env, *([] if takes_no_profile else [PROFILE]))


@pytest.mark.parametrize("rule", RULES)
def test_a_good_environment(rule: str) -> None:
    assert judged(rule, GOOD).outcome == "passed"


def test_the_time_is_told_and_not_judged() -> None:
    slow = replace(GOOD, seconds=100.0)
    verdict = judged("created", slow)
    assert verdict.outcome == "passed"
    assert "100.00 s" in verdict.notes[0]
    assert "2000 of them" in verdict.notes[0]


def test_creation() -> None:
    failing = replace(DONE, stderr="a\ntar: no such file\n")
    fact = replace(GOOD, create=session(1, result=failing))
    assert found(judged("created", fact)) == [("/create.sh", "returns 1: tar: no such file")]
    for rule in ("pyvenv", "path", "reuse"):
        assert judged(rule, fact).untried == "no environment was made (see newenv-created)"
    ended = replace(GOOD, create=session(None, result=replace(DONE, exit_code=3)))
    assert "ends the shell" in found(judged("created", ended))[0][1]
    hung = replace(DONE, ended="timeout", exit_code=None)
    late = replace(GOOD, create=session(None, result=hung))
    assert "did not come back" in found(judged("created", late))[0][1]
    entries = {"baseEnv_dir": "link /elsewhere", "setup.sh": "file"}
    assert found(judged("created", replace(GOOD, entries=entries))) == [
        ("pyvenv.cfg", "not in the environment"),
        ("baseEnv_dir", "link /elsewhere"),
    ]
    outside = replace(BEFORE, prefix=BASE)
    other = replace(GOOD, create=session(0, conda_prefix="", pythons=(outside, AFTER)))
    assert found(judged("created", other)) == [
        ("CONDA_PREFIX", "not set"),
        ("sys.prefix", BASE),
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("home", "/usr/bin"),
        ("include-system-site-packages", "false"),
        ("version", "3.8.17"),
        ("version", None),
    ],
)
def test_pyvenv(key: str, value: str | None) -> None:
    content = {**(GOOD.pyvenv or {})}
    content.pop(key)
    if value is not None:
        content[key] = value
    verdict = judged("pyvenv", replace(GOOD, pyvenv=content))
    assert found(verdict) == [(key, value or "not set")]
    assert judged("pyvenv", replace(GOOD, pyvenv=None)).outcome == "failed"


def test_path() -> None:
    def with_path(*entries: str) -> NewEnv:
        return replace(GOOD, create=session(0, pythons=(replace(BEFORE, path=entries), AFTER)))

    assert "before the image's" in judged("path", with_path(IMAGES, OWN)).findings[0].expected
    assert judged("path", with_path(IMAGES)).outcome == "failed"
    assert judged("path", with_path(OWN)).outcome == "failed"
    by_link = f"{ENV}/baseEnv_dir/lib/python3.11/site-packages"
    assert judged("path", with_path(f"{ENV}/lib", OWN, by_link)).outcome == "passed"
    # The order is right, and yet the image's copy wins.
    hidden = replace(GOOD, create=session(0, pythons=(BEFORE, BEFORE)))
    assert found(judged("path", hidden)) == [("six", f"six 1.17.0, imported from {IMAGES}/six.py")]
    no_pip = replace(GOOD, pip=replace(DONE, exit_code=1, stdout="ERROR: no"))
    assert "ERROR: no" in found(judged("path", no_pip))[0][1]
    mute = replace(GOOD, create=session(0, pythons=(None, None)))
    assert judged("path", mute).outcome == "failed"
    assert judged("path", replace(GOOD, create=session(0, pythons=()))).outcome == "failed"


def test_reuse() -> None:
    def again(**changed: object) -> NewEnv:
        return replace(GOOD, reuse=replace(GOOD.reuse, **changed))  # type: ignore[arg-type]

    assert found(judged("reuse", again(code=1))) == [("setup.sh", "returns 1")]
    assert found(judged("reuse", again(conda_prefix=BASE))) == [("CONDA_PREFIX", BASE)]
    assert judged("reuse", again(pythons=(None,))).outcome == "failed"
    assert found(judged("reuse", again(pythons=(BEFORE,)))) == [
        ("six", f"six 1.17.0 from {IMAGES}/six.py")
    ]


def test_usage() -> None:
    good = GOOD.help

    def bad(**changed: object) -> str:
        attempt = replace(good, **changed)  # type: ignore[arg-type]
        ((subject, what),) = found(judged("usage", replace(GOOD, help=attempt)))
        assert subject == "-h"
        return what

    assert bad(code=1) == "returns 1"
    assert bad(output=" \n") == "prints nothing"
    assert bad(made=("myEnv",)) == "makes myEnv"
    assert bad(code=None) == "ends the shell that sources it"
    endless = replace(DONE, ended="timeout", exit_code=None)
    assert bad(code=None, result=endless) == "did not end within 5 s: it loops"
    missing = replace(GOOD, missing=replace(GOOD.missing, code=0))
    assert found(judged("usage", missing)) == [("no directory", "returns 0")]


def test_executed() -> None:
    for ended, words in (("timeout", "it loops"), ("output-limit", "printing all the time")):
        result = CommandResult(("bash",), None, "", "", ended, 5.0)  # type: ignore[arg-type]
        fact = replace(GOOD, executed=EnvAttempt(result, None, "", (), 5))
        assert words in found(judged("executed", fact))[0][1]


SCRIPTS = {f"etc/conda/{name}.d/x-python.sh": 9 for name in ("activate", "deactivate")}
LINK = ArchiveLink("bin/a", "../baseEnv_dir/bin/a", "baseEnv_dir/bin/a", True)


def archive(*links: ArchiveLink, files: dict[str, int] | None = None) -> EnvArchive:
    return EnvArchive(f"{BASE}/newEnv-base.tgz", SCRIPTS if files is None else files, links, 1)


def test_archive() -> None:
    assert judge("newenv-archive", archive(LINK), PROFILE).outcome == "passed"
    out = replace(LINK, target="/opt/conda/bin/a", within=None, found=False)
    assert found(judge("newenv-archive", archive(LINK, out), PROFILE)) == [
        ("bin/a", "leads to /opt/conda/bin/a")
    ]
    dead = replace(LINK, name="bin/b", found=False)
    assert found(judge("newenv-archive", archive(LINK, dead), PROFILE)) == [
        ("bin/b", "../baseEnv_dir/bin/a: leads nowhere")
    ]
    star = replace(dead, target="../baseEnv_dir/x/*")
    verdict = judge("newenv-archive", archive(LINK, star), PROFILE)
    assert (verdict.outcome, len(verdict.notes)) == ("passed", 1)
    many = judge("newenv-archive", archive(LINK, *[dead] * 500), PROFILE)
    assert len(many.findings) == 21
    assert "480 more" in many.findings[-1].found
    assert judge("newenv-archive", archive(), PROFILE).outcome == "failed"
    empty = {**SCRIPTS, "etc/conda/activate.d/x-python.sh": 0}
    assert [
        what for _, what in found(judge("newenv-archive", archive(LINK, files=empty), PROFILE))
    ] == ["empty"]
    assert len(found(judge("newenv-archive", archive(LINK, files={}), PROFILE))) == 2
    broken = replace(archive(), problems=(Problem("/x.tgz", "is truncated"),))
    assert found(judge("newenv-archive", broken, PROFILE))[0] == ("/x.tgz", "is truncated")


def test_other_ways_to_make_enter_and_leave_one() -> None:
    fails = EnvSession(replace(DONE, stderr="tar: no such file\n"), 1, "", ())
    other = EnvSession(DONE, 0, ENV, (BEFORE,))
    for absolute, said in (
        (fails, "with an absolute directory, it returns 1: tar: no such file"),
        (other, ENV),
    ):
        (finding,) = judged("created", replace(GOOD, absolute=absolute)).findings
        assert finding.found == said
    complaint = {f"{ENV}/etc/conda/deactivate.d/x.sh": "line 1: import: command not found"}
    assert found(judged("created", replace(GOOD, leaving=complaint))) == [
        ("etc/conda/deactivate.d/x.sh", "line 1: import: command not found")
    ]
    assert found(judged("reuse", replace(GOOD, again=fails)))[0][0] == "setup.sh"
    outside = EnvSession(DONE, 0, ENV, (replace(AFTER, prefix=BASE),))
    assert found(judged("reuse", replace(GOOD, again=outside))) == [("sys.prefix", BASE)]
