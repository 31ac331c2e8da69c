"""The rules of Jupyter, running, on literal facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlcheck.inspect.jupyter.facts import (
    JupyterServer,
    KernelList,
    KernelLists,
    KernelRun,
    KernelRuns,
    Speech,
    UsersServer,
)
from mlcheck.inspect.system.facts import Shell, Shells
from mlcheck.model.command import CommandResult
from mlcheck.model.verdict import Verdict
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

KERNEL: dict[str, Any] = {
    "argv": ["python3-nohome", "-s"],
    "display_name": "ML-Python3",
    "ignores_programs": ["python3"],
    "ignores_variables": ["PYTHONHOME"],
    "usersite": False,
}
DATA: dict[str, Any] = {
    "prefix": "/opt/conda",
    "kernelspecs": {
        "generation": "new",
        "generations": {"new": {"iso": KERNEL, "user": {**KERNEL, "usersite": True}}},
    },
    "jupyterlab": {"kernel": "iso", "terminals": ["/bin/bash", "/bin/tcsh"]},
    "scripts": {"speaking": ["jupyter*"]},
}
PROFILE = Profile.of(DATA)
ALL = ("PATH", "PYTHONHOME", "~/.local")


def run(kernel: str, *hazards: str, error: str | None = None, **changed: Any) -> KernelRun:
    good = KernelRun(kernel, hazards, error, 1.0, "/opt/conda/bin/python3", "/opt/conda")
    return replace(good, sees_usersite=kernel == "user" and "~/.local" in hazards, **changed)


GOOD = (run("iso"), run("iso", *ALL), run("user"), run("user", *ALL))


def subjects(verdict: Verdict) -> list[str]:
    return [finding.subject for finding in verdict.findings]


def of_kernels(*runs: KernelRun, trouble: str | None = None) -> dict[str, Verdict]:
    fact = KernelRuns(runs, trouble)
    rules = ("kernels-start", "kernels-own-python", "kernels-usersite")
    return {rule: judge(rule, fact, PROFILE) for rule in rules}


def outcomes(verdicts: dict[str, Verdict]) -> list[str]:
    return [verdict.outcome for verdict in verdicts.values()]


def test_good_kernels() -> None:
    assert outcomes(of_kernels(*GOOD)) == ["passed"] * 3


def test_a_kernel_that_does_not_start_is_one_finding() -> None:
    found = of_kernels(run("iso", error="Kernel died"), *GOOD[2:])
    assert subjects(found["kernels-start"]) == ["iso"]
    assert found["kernels-start"].findings[0].found == "Kernel died"
    assert outcomes(found) == ["failed", "passed", "passed"]


def test_when_no_kernel_starts_the_rest_is_not_judged() -> None:
    found = of_kernels(run("iso", error="x"), run("user", error="x"))
    assert outcomes(found) == ["failed", "skipped", "skipped"]


def test_without_jupyter_client_there_is_one_finding() -> None:
    found = of_kernels(trouble="ModuleNotFoundError: No module named 'jupyter_client'")
    assert subjects(found["kernels-start"]) == ["jupyter_client"]
    assert outcomes(found) == ["failed", "skipped", "skipped"]


def test_no_kernel_there_is_another_checks_finding() -> None:
    assert outcomes(of_kernels()) == ["skipped"] * 3


def test_the_hazard_that_does_harm_is_named() -> None:
    harmed = run("iso", *ALL, error="said little")
    alone = (
        run("iso", "PATH"),
        run("iso", "PYTHONHOME", error="No module named 'encodings'"),
        run("iso", "~/.local"),
    )
    found = of_kernels(GOOD[0], harmed, *alone, *GOOD[2:])
    assert [finding.found for finding in found["kernels-own-python"].findings] == [
        "with PYTHONHOME set: No module named 'encodings'"
    ]
    assert outcomes(found) == ["passed", "failed", "passed"]


def test_hazards_that_do_harm_only_together() -> None:
    alone = [run("iso", hazard) for hazard in ALL]
    found = of_kernels(GOOD[0], run("iso", *ALL, error="died"), *alone, *GOOD[2:])
    (finding,) = found["kernels-own-python"].findings
    assert "PATH and PYTHONHOME set and packages in ~/.local: died" in finding.found


@pytest.mark.parametrize("hazards", [(), ("PATH",)])
def test_another_interpreter(hazards: tuple[str, ...]) -> None:
    other = run("iso", *hazards, executable="/usr/bin/python3", prefix="/usr")
    found = of_kernels(GOOD[0], other)["kernels-own-python"]
    assert subjects(found) == ["iso"]
    assert "/usr/bin/python3" in found.findings[0].found


def test_modules_of_pythonpath() -> None:
    seen = run("iso", "PYTHONPATH", sees_pythonpath=True)
    assert subjects(of_kernels(GOOD[0], seen)["kernels-own-python"]) == ["iso"]


@pytest.mark.parametrize("kernel", ["iso", "user"])
def test_usersite_the_wrong_way_round(kernel: str) -> None:
    wrong = replace(run(kernel, *ALL), sees_usersite=kernel == "iso")
    found = of_kernels(*(one for one in GOOD if one.kernel != kernel or not one.hazards), wrong)
    assert outcomes(found) == ["passed", "passed", "failed"]
    assert subjects(found["kernels-usersite"]) == [kernel]


# --- the list -----------------------------------------------------------------------------


def server(**changed: Any) -> JupyterServer:
    refused = {
        f"{path} {who}": 302 if path == "lab" else 403
        for path in ("lab", "api/kernels")
        for who in ("without a token", "with a wrong token")
    }
    good = JupyterServer(
        argv=("jupyter-lab", "--port=1", "--ServerApp.base_url=/x/"),
        error=None,
        seconds=1.0,
        status={"api": 200, "lab": 200, "outside": 404, **refused},
        base_in_page=True,
        listed=KernelList("JupyterLab", {}, 2),
        kernel="iso",
        terminals={"/bin/bash": None, "/bin/tcsh": None},
    )
    return replace(good, **changed)


def test_a_clean_list() -> None:
    lists = KernelLists((KernelList("HOME", {}, 2),))
    assert judge("kernels-clean-list", lists, server(), PROFILE).outcome == "passed"


def test_each_place_of_foreign_kernels_is_one_finding() -> None:
    foreign = {"mine": "~/.local/share/jupyter"}
    lists = KernelLists((KernelList("HOME", foreign, 3), KernelList("XDG_DATA_HOME", {}, 2)))
    lab = server(listed=KernelList("JupyterLab", foreign, 3))
    (finding,) = judge("kernels-clean-list", lists, lab, PROFILE).findings
    assert finding.subject == "~/.local/share/jupyter"
    assert "(HOME set) and JupyterLab" in finding.found


def test_a_list_that_is_none() -> None:
    lists = KernelLists((KernelList("HOME", {}, 0, "exit code 1: no"),))
    found = judge("kernels-clean-list", lists, server(listed=None), PROFILE)
    assert subjects(found) == ["jupyter kernelspec list (HOME set)"]
    broken = KernelLists((), "there is no jupyter_client")
    assert subjects(judge("kernels-clean-list", broken, server(listed=None), PROFILE)) == [
        "jupyter_client"
    ]


def test_no_list_at_all_does_not_pass() -> None:
    lists = KernelLists((KernelList("HOME", {}, 0),))
    assert judge("kernels-clean-list", lists, server(listed=None), PROFILE).outcome == "failed"


# --- JupyterLab ---------------------------------------------------------------------------

RUNS = KernelRuns(GOOD)


def shell(path: str, said: str = "mlcheck-42\n") -> Shell:
    return Shell(path, path, CommandResult((path,), 0, said, "", "exited", 0.1))


SHELLS = Shells((shell("/bin/bash"), shell("/bin/tcsh")))


def of_lab(fact: JupyterServer, runs: KernelRuns = RUNS, shells: Shells = SHELLS) -> list[str]:
    return [
        judge("jupyterlab-starts", fact, PROFILE).outcome,
        judge("jupyterlab-token", fact, OWN, PROFILE).outcome,
        judge("jupyterlab-kernels", fact, runs, PROFILE).outcome,
        judge("jupyterlab-terminals", fact, shells, PROFILE).outcome,
    ]


OWN = UsersServer(
    None, "made", {"lab": 200, "lab without a token": 302, "api/kernels without a token": 403}
)


def test_a_good_lab() -> None:
    assert of_lab(server()) == ["passed"] * 4


def test_a_lab_that_does_not_start_is_one_finding() -> None:
    fact = JupyterServer(("jupyter-lab",), "ended with exit code 1 before it answered")
    assert of_lab(fact) == ["failed", "skipped", "skipped", "skipped"]


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"lab": 404, "outside": 200}, ["lab under the base URL", "/lab outside it"]),
        ({"lab": 500}, ["lab under the base URL"]),
        ({"lab": None}, ["lab under the base URL"]),
        ({"outside": 302}, ["/lab outside it"]),
    ],
)
def test_base_url(changed: dict[str, int | None], wrong: list[str]) -> None:
    fact = server(status={**server().status, **changed})
    assert subjects(judge("jupyterlab-starts", fact, PROFILE)) == wrong
    assert of_lab(fact)[1:] == (["skipped"] * 3 if "lab" in changed else ["passed"] * 3)


def test_a_page_for_another_base_url() -> None:
    fact = server(base_in_page=False)
    assert subjects(judge("jupyterlab-starts", fact, PROFILE)) == ["lab under the base URL"]


def test_a_lab_that_falls_silent() -> None:
    fact = server(error="did not answer all questions in 90 s")
    assert subjects(judge("jupyterlab-starts", fact, PROFILE)) == ["jupyter-lab"]


@pytest.mark.parametrize("question", [key for key in server().status if " " in key])
@pytest.mark.parametrize("status", [200, 500, None])
def test_a_lab_that_lets_everybody_in(question: str, status: int | None) -> None:
    fact = server(status={**server().status, question: status})
    assert subjects(judge("jupyterlab-token", fact, OWN, PROFILE)) == [question]


@pytest.mark.parametrize("path", ["lab", "api/kernels"])
def test_a_lab_that_lets_everybody_in_as_the_user_starts_it(path: str) -> None:
    question = f"{path} without a token"
    own = replace(OWN, token="nowhere", status={**OWN.status, question: 200})
    (finding,) = judge("jupyterlab-token", server(), own, PROFILE).findings
    assert finding.subject == f"{question}, as the image's user starts it"


@pytest.mark.parametrize(
    ("token", "wrong"),
    [
        ("made", []),
        ("password", []),
        *((one, [one]) for one in ("JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE", "a configuration")),
    ],
)
def test_where_the_token_comes_from(token: str, wrong: list[str]) -> None:
    own = replace(OWN, token=token)
    assert subjects(judge("jupyterlab-token", server(), own, PROFILE)) == wrong


def test_what_is_switched_off_is_no_open_door() -> None:
    off = {"api/terminals": 404, "api/terminals without a token": 404}
    fact, own = (replace(one, status={**one.status, **off}) for one in (server(), OWN))
    assert judge("jupyterlab-token", fact, own, PROFILE).outcome == "passed"
    # With the token there are terminals, and a 404 for others is no refusal.
    fact = server(status={**fact.status, "api/terminals": 200})
    assert subjects(judge("jupyterlab-token", fact, OWN, PROFILE)) == list(off)[1:]


def test_a_lab_that_fails_its_user_alone() -> None:
    fails = replace(OWN, error="ended with exit code 1 before it answered", status={})
    (finding,) = judge("jupyterlab-token", server(), fails, PROFILE).findings
    assert finding.subject == "jupyter-lab, as the image's user starts it"
    closed = replace(OWN, status={}, untried="/root is closed to the user of this engine")
    verdict = judge("jupyterlab-token", server(), closed, PROFILE)
    assert verdict.outcome == "passed"
    assert verdict.notes == (f"not as the image's user starts it: {closed.untried}",)


def test_a_lab_whose_api_starts_no_kernel() -> None:
    fact = server(kernel_error="POST api/kernels: HTTP 500")
    assert of_lab(fact) == ["passed", "passed", "failed", "passed"]
    dead = KernelRuns((run("iso", error="died"), run("user")))
    assert of_lab(fact, runs=dead) == ["passed", "passed", "skipped", "passed"]


def test_a_terminal_that_dies() -> None:
    fact = server(terminals={"/bin/bash": None, "/bin/tcsh": "the shell ended"})
    assert subjects(judge("jupyterlab-terminals", fact, SHELLS, PROFILE)) == ["/bin/tcsh"]
    mute = Shells((shell("/bin/bash"), shell("/bin/tcsh", "")))
    assert of_lab(fact, shells=mute) == ["passed"] * 4
    mute = Shells((shell("/bin/bash", ""), shell("/bin/tcsh", "")))
    assert of_lab(fact, shells=mute) == ["passed"] * 3 + ["skipped"]


def answer(stdout: str = "", exit_code: int | None = 0, **changed: Any) -> CommandResult:
    return replace(CommandResult(("x",), exit_code, stdout, "", "exited", 0.1), **changed)


def test_wrappers() -> None:
    fact = Speech(
        {
            "/bin/jupyter": answer("1.0"),
            "/bin/jupyter-a": answer(stderr="1.0"),
            "/bin/jupyter-b": answer(),
            "/bin/jupyter-c": answer(exit_code=1, stderr="ImportError: no"),
            "/bin/jupyter-d": answer("x", exit_code=None, ended="timeout"),
            "/bin/jupyter-e": answer(" \n"),
        }
    )
    found = judge("jupyter-wrappers", fact, PROFILE)
    assert [subject[-1] for subject in subjects(found)] == ["b", "c", "d", "e"]
    assert found.findings[1].found == "exit code 1: ImportError: no"


def test_no_wrapper_at_all_does_not_pass() -> None:
    assert judge("jupyter-wrappers", Speech({}), PROFILE).outcome == "failed"
