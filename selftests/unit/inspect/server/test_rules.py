"""The rules of images that serve: user, server, programs, and what must agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlcheck.inspect.server.facts import (
    ANY_UID,
    Account,
    Accounts,
    Agreements,
    ClosedDirectory,
    Page,
    Program,
    Programs,
    ReadFile,
    ReadFiles,
    Started,
    Writability,
    Written,
)
from mlcheck.model.environment import Environment
from mlcheck.model.files import File
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

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
    assert judge("user", JOVYAN, replace(CONFIG, user=user), PROFILE).outcome == "passed"


@pytest.mark.parametrize("user", ["", "root", "0", "1001", "jovyan:root"])
def test_another_user_is_found(user: str) -> None:
    assert subjects(judge("user", JOVYAN, replace(CONFIG, user=user), PROFILE)) == ["USER"]


def test_the_account_is_compared_where_the_image_does_not_tell_user() -> None:
    root = Accounts({"jovyan": Account("jovyan", 0, 0, (0,), "/home/jovyan")})
    assert subjects(judge("user", root, UNTOLD, PROFILE)) == ["jovyan"]
    assert subjects(judge("user", Accounts({}), UNTOLD, PROFILE)) == ["jovyan"]
    assert judge("user", JOVYAN, UNTOLD, PROFILE).outcome == "passed"


def test_what_is_closed_is_told_by_directory() -> None:
    file = File("/opt/conda/lib/a", "file", 0o644, 0, 0, 1)
    closed = ClosedDirectory("/opt/conda/lib", 7, file)
    found = judge("user-writable", Writability(True, 10, (closed,)), PROFILE)
    assert subjects(found) == ["/opt/conda/lib"]
    assert "7" in found.findings[0].found
    assert "0:0" in found.findings[0].found
    unknown = judge("user-writable", Writability(False, 10, (closed,)), PROFILE)
    assert "0:0" not in unknown.findings[0].found
    assert unknown.notes
    missing = judge("user-writable", Writability(True, 0, (), ("/opt/conda",)), PROFILE)
    assert subjects(missing) == ["/opt/conda"]
    assert judge("user-writable", Writability(True, 10, ()), PROFILE).outcome == "passed"


def test_a_server_that_answers() -> None:
    assert judge("server-starts", STARTED, CONFIG, PROFILE).outcome == "passed"
    assert judge("server-health", STARTED, CONFIG, PROFILE).outcome == "passed"
    assert judge("user-installs", STARTED, PROFILE).outcome == "passed"


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
    assert subjects(judge("server-starts", replace(STARTED, **change), CONFIG, PROFILE)) == found


def test_who_runs_it_counts_only_where_the_engine_takes_the_images_user() -> None:
    as_root = replace(STARTED, uid=0, gid=0)
    assert judge("server-starts", as_root, UNTOLD, PROFILE).outcome == "passed"


def test_a_port_in_use_is_the_machines_trouble() -> None:
    assert judge("server-starts", replace(STARTED, busy=True), CONFIG, PROFILE).outcome == "error"


def test_another_user_must_be_the_one_that_was_asked_for() -> None:
    other = replace(STARTED, uid=ANY_UID)
    assert judge("server-any-user", other, PROFILE).outcome == "passed"
    assert subjects(judge("server-any-user", STARTED, PROFILE)) == ["the running image"]


SAME = (
    ("CMD-SHELL", "/health"),
    ("CMD-SHELL", "/health || exit 1"),
    ("CMD-SHELL", "exec '/health'"),
    ("CMD-SHELL", "/health >/dev/null 2>&1 || false"),
    ("CMD", "/bin/sh", "-c", "/health || exit 1"),
    ("CMD", "/bin/bash", "-o", "pipefail", "-c", "/health || exit 1"),
)
OTHERS = (
    ("CMD", "/health || exit 1"),  # a program of that name
    ("CMD-SHELL", "/health || exit 0"),
    ("CMD-SHELL", "/health || true"),
    ("CMD-SHELL", "/health; exit 0"),
    ("CMD-SHELL", "true || /health"),
    ("CMD-SHELL", "/health '"),
    ("CMD-SHELL", "/health && true"),
    ("CMD-SHELL", "$HEALTH"),
    ("CMD-SHELL", "curl -f http://localhost:8888 || exit 1"),
)


@pytest.mark.parametrize(
    ("fact", "config", "found"),
    [
        (replace(STARTED, healthcheck="ends with exit code 1"), CONFIG, ["/health"]),
        (STARTED, replace(CONFIG, healthcheck=()), ["HEALTHCHECK"]),
        (STARTED, replace(CONFIG, healthcheck=("NONE",)), ["HEALTHCHECK"]),
        *((STARTED, replace(CONFIG, healthcheck=test), []) for test in SAME),
        *((STARTED, replace(CONFIG, healthcheck=test), ["HEALTHCHECK"]) for test in OTHERS),
        (STARTED, UNTOLD, []),
        (replace(STARTED, pages=PAGES[:1]), CONFIG, ["/ping"]),
        (replace(STARTED, pages=(Page("/ping", "/ping", 404, ""),)), CONFIG, ["/ping"]),
    ],
)
def test_health(fact: Started, config: Environment, found: list[str]) -> None:
    assert subjects(judge("server-health", fact, config, PROFILE)) == found


def test_a_health_check_for_a_shell_is_one_command() -> None:
    asked = replace(
        CONFIG, healthcheck=("CMD-SHELL", "curl -f http://localhost:8888/api || exit 1")
    )
    assert asked.health_command == ("curl", "-f", "http://localhost:8888/api")
    assert UNTOLD.health_command == ()


@pytest.mark.parametrize(
    ("promise", "test", "good"),
    [
        (["/health || exit 1"], ("CMD-SHELL", "/health || exit 1"), True),
        (["/health || exit 1"], ("CMD-SHELL", "/health"), True),
        (["/health || exit 1"], ("CMD", "/health"), True),
        (["/bin/sh", "-c", "/health || exit 1"], ("CMD-SHELL", "/health || exit 1"), True),
        (["CMD-SHELL", "/health || exit 1"], ("CMD-SHELL", "/health || exit 1"), True),
        (["curl", "-f", "http://x"], ("CMD-SHELL", "curl -f http://x || exit 1"), True),
        # More than one command can be promised as it is written.
        (["a | grep b"], ("CMD-SHELL", "a | grep b"), True),
        (["a | grep b"], ("CMD-SHELL", "a | grep c"), False),
        (["a | grep b"], ("CMD-SHELL", "c | grep d"), False),
        (["/health || exit 1"], ("CMD-SHELL", "/other || exit 1"), False),
    ],
)
def test_forms_of_a_promised_health_check(
    promise: list[str], test: tuple[str, ...], good: bool
) -> None:
    server = {"port": 8888, "title": "x", "healthcheck": promise}
    profile = Profile.of({"prefix": "/opt/conda", "server": server})
    verdict = judge("server-health", STARTED, replace(CONFIG, healthcheck=test), profile)
    assert subjects(verdict) == ([] if good else ["HEALTHCHECK"])


def test_what_did_not_start_has_no_health() -> None:
    fact = replace(STARTED, error="ended")
    assert judge("server-health", fact, CONFIG, PROFILE).outcome == "skipped"


def test_pip_that_fails_and_pip_that_cannot_be_tried() -> None:
    failed = judge("user-installs", replace(STARTED, installed="pip install: denied"), PROFILE)
    assert subjects(failed) == ["pip"]
    assert judge("user-installs", replace(STARTED, read_only=True), PROFILE).outcome == "skipped"


def test_programs() -> None:
    good = Program("/usr/local/bin/a", 0o755)
    closed = Program("/usr/local/bin/mc", 0o644)
    lost = Program("/usr/local/bin/trino", 0o755, ("trino-original",))
    fact = Programs((good, closed, lost))
    assert subjects(judge("programs-executable", fact, PROFILE)) == ["/usr/local/bin/mc"]
    assert subjects(judge("wrapper-targets", fact, PROFILE)) == ["/usr/local/bin/trino"]
    # Without any there is nothing that could be wrong.
    assert judge("programs-executable", Programs(()), PROFILE).outcome == "skipped"


def test_files_that_a_start_script_reads() -> None:
    files = (ReadFile("/start:3", "/etc/a", True), ReadFile("/start:9", "/tmp/b", False))
    assert subjects(judge("start-files", ReadFiles(("/start",), files), PROFILE)) == ["/tmp/b"]
    assert judge("start-files", ReadFiles((), ()), PROFILE).outcome == "skipped"


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
    assert subjects(judge("agreements", Agreements({"version": (a, b)}), PROFILE)) == found
