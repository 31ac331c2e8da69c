"""The checks of images that serve: user, server, programs, and what must agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlcheck.checks import serving
from mlcheck.facts import (
    Account,
    Accounts,
    Agreements,
    ClosedDirectory,
    Environment,
    File,
    Page,
    Program,
    Programs,
    ReadFile,
    ReadFiles,
    Started,
    Writability,
    Written,
)
from mlcheck.profile import Profile
from mlcheck.verdict import Verdict

NOTHING = Profile.of({})
PROFILE = Profile.of(
    {
        "prefix": "/opt/conda",
        "user": {"name": "jovyan", "uid": 1000, "gid": 100, "writable": ["/opt/conda"]},
        "server": {
            "port": 8888,
            "page": "/lab",
            "title": "JupyterLab",
            "healthcheck": ["/health"],
            "healthy": ["/ping"],
        },
        "scripts": {"installed": ["/usr/local/bin/*"]},
        "agreements": {"version": {"/a": "v(.)", "/b": "v(.)"}},
    }
)
JOVYAN = Accounts({"jovyan": Account("jovyan", 1000, 100, (100,), "/home/jovyan")})
CONFIG = Environment(
    {}, (), (), "jovyan", "", ("8888/tcp",), {}, "inspect", healthcheck=("CMD", "/health")
)
UNTOLD = replace(CONFIG, user=None, healthcheck=None)
PAGES = (Page("/p/", "/p/lab", 200, "JupyterLab"), Page("/ping", "/ping", 200, ""))
STARTED = Started(("start",), "/p", uid=1000, gid=100, pages=PAGES)


def subjects(verdict: Verdict) -> list[str]:
    return [finding.subject for finding in verdict.findings]


@pytest.mark.parametrize("user", ["jovyan", "1000", "1000:100", "jovyan:users"])
def test_user_may_be_named_in_each_of_the_ways_of_user(user: str) -> None:
    assert serving.user(JOVYAN, replace(CONFIG, user=user), PROFILE).outcome == "passed"


@pytest.mark.parametrize("user", ["", "root", "0", "1001", "jovyan:root"])
def test_another_user_is_found(user: str) -> None:
    assert subjects(serving.user(JOVYAN, replace(CONFIG, user=user), PROFILE)) == ["USER"]


def test_the_account_is_compared_where_the_image_does_not_tell_user() -> None:
    root = Accounts({"jovyan": Account("jovyan", 0, 0, (0,), "/home/jovyan")})
    assert subjects(serving.user(root, UNTOLD, PROFILE)) == ["jovyan"]
    assert subjects(serving.user(Accounts({}), UNTOLD, PROFILE)) == ["jovyan"]
    assert serving.user(JOVYAN, UNTOLD, PROFILE).outcome == "passed"


def test_what_is_closed_is_told_by_directory() -> None:
    file = File("/opt/conda/lib/a", "file", 0o644, 0, 0, 1)
    closed = ClosedDirectory("/opt/conda/lib", 7, file)
    found = serving.writable(Writability(True, 10, (closed,)), PROFILE)
    assert subjects(found) == ["/opt/conda/lib"]
    assert "7" in found.findings[0].found
    assert "0:0" in found.findings[0].found
    unknown = serving.writable(Writability(False, 10, (closed,)), PROFILE)
    assert "0:0" not in unknown.findings[0].found
    assert unknown.notes
    missing = serving.writable(Writability(True, 0, (), ("/opt/conda",)), PROFILE)
    assert subjects(missing) == ["/opt/conda"]
    assert serving.writable(Writability(True, 10, ()), PROFILE).outcome == "passed"


def test_a_server_that_answers() -> None:
    assert serving.starts(STARTED, CONFIG, PROFILE).outcome == "passed"
    assert serving.health(STARTED, CONFIG, PROFILE).outcome == "passed"
    assert serving.installs(STARTED, PROFILE).outcome == "passed"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"error": "ended"}, ["start"]),
        ({"trouble": "no python3"}, ["start"]),
        ({"uid": 0, "gid": 0}, ["the running image"]),
        ({"pages": ()}, ["the prefix"]),
        ({"pages": (Page("/p/", "/p/lab", 503, "JupyterLab"),)}, ["the prefix"]),
        ({"pages": (Page("/p/", "/lab", 200, "JupyterLab"),)}, ["the prefix"]),
        ({"pages": (Page("/p/", "/p/lab", 200, "My Lab"),)}, ["the page's title"]),
    ],
)
def test_a_server_that_does_not(change: dict[str, Any], found: list[str]) -> None:
    assert subjects(serving.starts(replace(STARTED, **change), CONFIG, PROFILE)) == found


def test_who_runs_it_counts_only_where_the_engine_takes_the_images_user() -> None:
    as_root = replace(STARTED, uid=0, gid=0)
    assert serving.starts(as_root, UNTOLD, PROFILE).outcome == "passed"


def test_a_port_in_use_is_the_machines_trouble() -> None:
    assert serving.starts(replace(STARTED, busy=True), CONFIG, PROFILE).outcome == "error"


def test_another_user_must_be_the_one_that_was_asked_for() -> None:
    other = replace(STARTED, uid=serving.ANY_UID)
    assert serving.any_user(other, PROFILE).outcome == "passed"
    assert subjects(serving.any_user(STARTED, PROFILE)) == ["the running image"]
    assert serving.any_user(None, PROFILE).outcome == "skipped"


@pytest.mark.parametrize(
    ("fact", "config", "found"),
    [
        (replace(STARTED, healthcheck="ends with exit code 1"), CONFIG, ["/health"]),
        (STARTED, replace(CONFIG, healthcheck=()), ["HEALTHCHECK"]),
        (STARTED, replace(CONFIG, healthcheck=("NONE",)), ["HEALTHCHECK"]),
        (STARTED, replace(CONFIG, healthcheck=("CMD-SHELL", "/health")), []),
        (STARTED, UNTOLD, []),
        (replace(STARTED, pages=PAGES[:1]), CONFIG, ["/ping"]),
        (replace(STARTED, pages=(Page("/ping", "/ping", 404, ""),)), CONFIG, ["/ping"]),
    ],
)
def test_health(fact: Started, config: Environment, found: list[str]) -> None:
    assert subjects(serving.health(fact, config, PROFILE)) == found


def test_what_did_not_start_has_no_health() -> None:
    fact = replace(STARTED, error="ended")
    assert serving.health(fact, CONFIG, PROFILE).outcome == "skipped"


def test_pip_that_fails_and_pip_that_cannot_be_tried() -> None:
    failed = serving.installs(replace(STARTED, installed="pip install: denied"), PROFILE)
    assert subjects(failed) == ["pip"]
    assert serving.installs(replace(STARTED, read_only=True), PROFILE).outcome == "skipped"


def test_programs() -> None:
    good = Program("/usr/local/bin/a", 0o755)
    closed = Program("/usr/local/bin/mc", 0o644)
    lost = Program("/usr/local/bin/trino", 0o755, ("trino-original",))
    fact = Programs((good, closed, lost))
    assert subjects(serving.executable(fact, PROFILE)) == ["/usr/local/bin/mc"]
    assert subjects(serving.wrappers(fact, PROFILE)) == ["/usr/local/bin/trino"]
    # Without any there is nothing that could be wrong.
    assert serving.executable(Programs(()), PROFILE).outcome == "skipped"


def test_files_that_a_start_script_reads() -> None:
    files = (ReadFile("/start:3", "/etc/a", True), ReadFile("/start:9", "/tmp/b", False))
    assert subjects(serving.start_files(ReadFiles(("/start",), files), PROFILE)) == ["/tmp/b"]
    assert serving.start_files(ReadFiles((), ()), PROFILE).outcome == "skipped"


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (Written("/a", "/a", "1"), Written("/b", "/b", "1"), []),
        (Written("/a", "/a", "1"), Written("/b", "/b", "2"), ["version"]),
        (Written("/a", "/a", "1"), Written("/b", "/b", None), ["/b"]),
        (Written("/a", "/a", "1"), Written("/b", "", None), ["/b"]),
    ],
)
def test_agreements(a: Written, b: Written, found: list[str]) -> None:
    assert subjects(serving.agreements(Agreements({"version": (a, b)}), PROFILE)) == found


def test_a_profile_that_says_nothing_skips_all() -> None:
    verdicts = [
        serving.user(JOVYAN, CONFIG, NOTHING),
        serving.writable(Writability(True, 0, ()), NOTHING),
        serving.installs(STARTED, NOTHING),
        serving.starts(STARTED, CONFIG, NOTHING),
        serving.any_user(STARTED, NOTHING),
        serving.health(STARTED, CONFIG, NOTHING),
        serving.executable(Programs(()), NOTHING),
        serving.wrappers(Programs(()), NOTHING),
        serving.start_files(ReadFiles((), ()), NOTHING),
        serving.agreements(Agreements({}), NOTHING),
    ]
    assert {verdict.outcome for verdict in verdicts} == {"skipped"}
