"""`mlcheck snapshot`: what is inferred from an image passes on that image at once, and trips over
faults in the next one. Facts here are literal, but for the last tests, which judge real images."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlcheck import reference
from mlcheck.cli import main as cli
from mlcheck.engines import select
from mlcheck.engines.base import Plainly
from mlcheck.inspect.jupyter.facts import Kernelspec, Kernelspecs
from mlcheck.inspect.packages.facts import AskedFor, AskedPackage, InstalledPackages
from mlcheck.inspect.rules import all_rules
from mlcheck.inspect.server.facts import Account
from mlcheck.inspect.system.facts import OsRelease
from mlcheck.model.environment import Environment
from mlcheck.model.errors import EngineError
from mlcheck.model.files import File, ResolvedFile
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import SUITE, Catalog, Profile
from mlcheck.profile.schema import ImageToml
from mlcheck.snapshot import found as looking
from mlcheck.snapshot import infer, writing
from mlcheck.snapshot.document import Document, Entry
from mlcheck.snapshot.found import Found
from mlcheck.snapshot.revision import MARK, Judged, settle
from mlcheck.snapshot.suite_run import Trial
from selftests import archives, warm

TODAY = datetime.date(2026, 3, 1)
RULES = all_rules()
HOSTILE = 'x"\n[[waivers]]\ncheck = "*" # \x1b[31m\x9b\u202e\u2028\\'


def resolved(path: str, mode: int = 0o644, target: str | None = None) -> ResolvedFile:
    final = File(path, "file", mode, 0, 0, 10)
    file = File(path, "symlink", 0o777, 0, 0, 0, target) if target else final
    return ResolvedFile(path, file, final, target or path)


FOUND = Found(
    name="lab",
    tag="v1",
    system=OsRelease({"ID": "debian", "VERSION_ID": "12.4"}, None),
    environment=Environment(
        env={
            "PATH": "/opt/conda/bin:/usr/bin",
            "LANG": "C.UTF-8",
            "HOSTNAME": "build-7",
            "JUPYTER_TOKEN": "s3cret",
            "PYTHON_SHA256": "abc",
        },
        entrypoint=("tini", "--"),
        cmd=("start.sh",),
        user="jovyan",
        workdir="/home/jovyan",
        exposed=("8888/tcp",),
        labels={"maintainer": "me"},
        source="the configuration",
    ),
    prefix="/opt/conda",
    python="3.11",
    packages=InstalledPackages((), frozenset()),
    asked=AskedFor(
        (
            AskedPackage("scikit-learn", "1.6.1", "conda", ("sklearn",)),
            AskedPackage("numpy", "1.26.4", "conda", ("numpy",)),
            AskedPackage("zsh", "5.9", "conda", ()),
        ),
        "the history",
    ),
    listed=None,
    kernels=Kernelspecs(
        (
            Kernelspec(
                name="python3",
                path="/opt/conda/share/jupyter/kernels/python3/kernel.json",
                argv=("python3", "-s", "-m", "ipykernel_launcher", "-f", "{connection_file}"),
                display_name="Python 3",
                language="python",
                metadata={"debugger": True, "odd": {"a": 1}},
                env={},
                argv0="/opt/conda/bin/python3",
            ),
        ),
        ("/opt/conda/share/jupyter",),
        None,
    ),
    tools={"git": "/usr/bin/git", "python3": "/opt/conda/bin/python3"},
    files={
        "/start.sh": resolved("/start.sh", 0o755),
        "/bin/zsh": resolved("/bin/zsh", 0o755, "/opt/conda/bin/zsh"),
    },
    accounts={"jovyan": Account("jovyan", 1000, 100, (100,), "/home/jovyan")},
    unpacked=1_234_567_890,
)


def data_of(found: Found) -> dict[str, Any]:
    text = Document(tuple(infer.entries(found))).text()
    data = tomllib.loads(text)
    ImageToml.model_validate(data)
    return data


def test_facts_become_expectations() -> None:
    data = data_of(FOUND)
    assert data["os"] == {"id": "debian", "version": "12"}
    assert data["prefix"] == "/opt/conda"
    assert data["python"] == {"version": "3.11"}
    assert data["packages"]["required"] == {
        "scikit-learn": {"version": "1.6.*", "import": "sklearn"},
        "numpy": {"version": "1.26.*"},
        "zsh": {"version": "5.9", "import": False},
    }
    assert data["user"]["uid"] == 1000
    assert data["user"]["writable"] == ["/opt/conda", "/home/jovyan"]
    assert data["configuration"] == {
        "labels": ["maintainer"],
        "user": "jovyan",
        "workdir": "/home/jovyan",
        "exposed": ["8888/tcp"],
    }
    assert data["entrypoint"]["argv"] == ["tini", "--"]
    assert data["files"] == {
        "/start.sh": {"mode": "0755"},
        "/bin/zsh": {"type": "symlink", "target": "/opt/conda/bin/zsh", "mode": "0755"},
    }
    kernel = data["kernelspecs"]["generations"]["snapshot"]["python3"]
    assert kernel["metadata"] == {"debugger": True}
    assert kernel["usersite"] is False
    assert data["commands"] == {
        "python3": ["python3", "--version"],
        "git": ["git", "--version"],
    }
    assert data["size"] == {"unpacked": "1.4 GB"}
    assert data["rpath"] == {"forbidden": ["/opt/conda"]}


def test_secrets_are_not_written() -> None:
    """Secrets, and what changes with each build or machine."""
    text = Document(tuple(infer.entries(FOUND))).text()
    assert data_of(FOUND)["environment"]["equals"] == {"LANG": "C.UTF-8"}
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.15.3", "2.15.*"),
        ("2.15", "2.15"),
        ("2024.7.4.1", "2024.7.*"),
        ("", None),
        ("1.*", None),
    ],
)
def test_a_version_keeps_its_leading_parts(version: str, expected: str | None) -> None:
    assert infer.pinned(version) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1_234_567_890, "1.4 GB"),
        (8_000_000_000, "8.8 GB"),
        (123_000_000, "140 MB"),
        (12, "1 kB"),
        (98_000_000_000, "110 GB"),
    ],
)
def test_a_budget_is_above_the_size(size: int, expected: str) -> None:
    assert infer.budget(size) == expected
    amount, unit = expected.split()
    assert float(amount) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit] >= size


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("ubuntu", "22.04", "22.04"),
        ("alpine", "3.20.3", "3.20"),
        ("opensuse-leap", "15.6", "15.6"),
        ("almalinux", "9.5", "9"),
        ("debian", "12", "12"),
    ],
)
def test_the_version_of_the_system_is_that_of_its_release(
    name: str, version: str, expected: str
) -> None:
    system = OsRelease({"ID": name, "VERSION_ID": version}, None)
    assert data_of(dataclasses.replace(FOUND, system=system))["os"]["version"] == expected


def test_packages_of_r_are_loaded_by_rs_own_names() -> None:
    asked = AskedFor(
        (
            AskedPackage("r-base", "4.2.1", "conda", ()),
            AskedPackage("r-irkernel", "1.3.2", "conda", ()),
            AskedPackage("r-crayon", "1.5.2", "conda", ()),
            AskedPackage("numpy", "1.26.4", "conda", ("numpy",)),
        ),
        "the history",
    )
    names = {"irkernel": "IRkernel", "crayon": "crayon"}
    data = data_of(dataclasses.replace(FOUND, asked=asked, r_names=names))
    assert data["packages"]["requested"] == {"r-base": False, "r-irkernel": "IRkernel"}


def test_hostile_names_and_values_are_escaped() -> None:
    """No name of the image becomes a key of its own, and nothing that is printed steers."""
    env = dataclasses.replace(
        FOUND.environment,
        env={HOSTILE: HOSTILE, "SURROGATE": "\udcff"},
        labels={HOSTILE: "x", "description": HOSTILE},
        entrypoint=(HOSTILE,),
    )
    hostile = dataclasses.replace(
        FOUND,
        environment=env,
        tag=None,
        asked=AskedFor((AskedPackage(HOSTILE, HOSTILE, "conda", (HOSTILE,)),), HOSTILE),
        files={f"/{HOSTILE}": resolved(f"/{HOSTILE}", target=HOSTILE)},
    )
    tail = (f"a finding: {HOSTILE}",)
    notes: dict[tuple[str, ...], str] = {("environment", "equals"): HOSTILE}
    text = Document(tuple(infer.entries(hostile)), (), (HOSTILE,), tail, notes).text()
    data = tomllib.loads(text)
    plain = data_of(dataclasses.replace(FOUND, tag=None))
    assert set(data) | {"shells"} == set(plain)
    assert "waivers" not in data
    assert data["environment"]["equals"] == {HOSTILE: HOSTILE}
    assert data["configuration"]["labels"] == ["description", HOSTILE]
    assert all(char.isprintable() or char == "\n" for char in text)


# What of it remains -------------------------------------------------------------------------


def judged_by(*rounds: Sequence[Judged]) -> Any:
    """A suite that answers with these results, one after another, and with success at last."""
    left = [*rounds]
    seen: list[tuple[str, tuple[str, ...]]] = []

    def judge(text: str, tests: Sequence[str]) -> Sequence[Judged]:
        seen.append((text, tuple(tests)))
        return left.pop(0) if left else [result(name, outcome="passed") for name in tests]

    judge.seen = seen  # type: ignore[attr-defined]
    return judge


def result(check: str, *findings: Judged, outcome: str = "failed", message: str = "") -> Judged:
    return {
        "test": check,
        "check": check,
        "outcome": outcome,
        "findings": findings,
        "message": message,
    }


def finding(subject: str, text: str, line: str | None = None) -> Judged:
    """A finding whose expectation stands on the line of `text` that has `line`."""
    source = None
    if line is not None:
        (number,) = [n for n, one in enumerate(text.splitlines(), 1) if line in one]
        source = f"/tmp/{MARK}x/lab/image.toml:{number}"
    return {
        "subject": subject,
        "found": "is otherwise",
        "expected": "this",
        "source": source,
        "waived": False,
    }


def passed(*checks: str) -> list[Judged]:
    return [result(check, outcome="passed") for check in checks]


DOCUMENT = Document(
    (
        Entry(("description",), "x", tells=True),
        Entry(("prefix",), "/opt/conda"),
        Entry(("shells",), ["/bin/bash", "/bin/zsh"]),
        Entry(("commands", "git"), ["git", "--version"]),
        Entry(("commands", "jq"), ["jq", "--version"]),
        Entry(("packages", "required", "numpy"), {}, {"import": False}),
        Entry(("rpath", "forbidden"), ["/opt/conda"], otherwise=[]),
        Entry(("kernelspecs", "generation"), "snapshot"),
        Entry(("kernelspecs", "clean"), True, otherwise=False),
    )
)
DOCUMENT = dataclasses.replace(
    DOCUMENT,
    entries=tuple(
        dataclasses.replace(e, value={"version": "*"}, otherwise={"version": "*", "import": False})
        if e.path[-1] == "numpy"
        else e
        for e in DOCUMENT.entries
    ),
)
TEXT = DOCUMENT.text()
ALL = ["shells", "commands", "packages-promised", "imports", "rpath-hard-coded", "rpath-relative"]
ALL += ["kernelspecs-promised", "kernels-clean-list"]


def settled(*failing: Judged) -> Any:
    names = {one["check"] for one in failing}
    first = [*failing, *passed(*(name for name in ALL if name not in names))]
    return settle(DOCUMENT, RULES, judged_by(first), TODAY)


def test_a_good_image_is_judged_once() -> None:
    judge = judged_by(passed(*ALL))
    found = settle(DOCUMENT, RULES, judge, TODAY)
    assert len(judge.seen) == 1
    assert found.document == DOCUMENT
    assert found.checks == set(ALL)
    assert not found.broken
    assert not found.untried


def test_what_does_not_hold_is_left_out() -> None:
    found = settled(result("commands", finding("jq", TEXT, "jq =")))
    assert "commands" in found.document.data()
    assert set(found.document.data()["commands"]) == {"git"}
    assert found.broken == {"commands": ["jq: is otherwise (expected this)"]}
    assert not found.document.waivers


def test_one_of_a_list_is_left_out() -> None:
    found = settled(result("shells", finding("/bin/zsh", TEXT, "shells =")))
    assert found.document.data()["shells"] == ["/bin/bash"]


def test_an_expectation_is_weakened() -> None:
    found = settled(
        result("imports", finding("numpy", TEXT, "numpy =")),
        result("rpath-hard-coded", *[finding(f"/x{n}", TEXT, "forbidden =") for n in range(3)]),
        result("kernels-clean-list", *[finding(f"k{n}", TEXT, "generation =") for n in range(3)]),
    )
    data = found.document.data()
    assert data["packages"]["required"]["numpy"] == {"version": "*", "import": False}
    assert data["rpath"] == {"forbidden": []}
    assert data["kernelspecs"] == {"generation": "snapshot", "clean": False}
    assert not found.document.waivers


@pytest.mark.parametrize("count", [10, 11, 40])
def test_findings_of_a_rule_for_every_image_are_waived_however_many_there_are(count: int) -> None:
    found = settled(
        result("rpath-relative", *[finding(f"/lib/{n}.so", TEXT, "[rpath]") for n in range(count)])
    )
    matches = [waiver.match for waiver in found.document.waivers]
    assert matches == (["*"] if count > 10 else [f"/lib/{n}.so" for n in range(count)])


def test_a_rule_for_every_image_is_waived_for_some_weeks() -> None:
    """Of what no key switches on, or of a table that other checks found to hold."""
    odd = f"[odd]* {HOSTILE}"
    found = settled(
        result("rpath-relative", finding("/opt/conda/lib/a.so", TEXT, "[rpath]")),
        result("start-files", finding(odd, TEXT)),
    )
    assert found.document.data()["rpath"] == {"forbidden": ["/opt/conda"]}
    relative, start = found.document.waivers
    assert (relative.check, relative.match) == ("rpath-relative", "/opt/conda/lib/a.so")
    assert relative.until == datetime.date(2026, 3, 31)
    expect = Profile.of({"waivers": tomllib.loads(found.document.text())["waivers"]}).expect
    import fnmatch

    assert fnmatch.fnmatchcase(odd, expect.waivers[1].match)
    assert not fnmatch.fnmatchcase("o", expect.waivers[1].match)
    assert start.check == "start-files"


def test_a_table_without_a_required_key_is_left_out() -> None:
    """Else the file would be a mistake: without ENTRYPOINT, CMD is not told either."""
    document = Document((*DOCUMENT.entries, *_STARTED))
    text = document.text()
    first = [result("entrypoint", finding("ENTRYPOINT", text, 'argv = ["/e"]')), *passed(*ALL)]
    found = settle(document, RULES, judged_by(first), TODAY)
    assert "entrypoint" not in found.document.data()
    # What nobody has tried is written all the same where what was tried needs it.
    judge = judged_by(passed(*ALL, "newenv-archive"))
    data = settle(document, RULES, judge, TODAY).document.data()
    assert set(data["new_env"]) == {"script", "reuse", "archive"}
    ImageToml.model_validate({"new_env": data["new_env"]})


_STARTED = (
    Entry(("entrypoint", "argv"), ["/e"]),
    Entry(("entrypoint", "cmd"), ["/c"]),
    Entry(("new_env", "script"), "/s"),
    Entry(("new_env", "reuse"), "r"),
    Entry(("new_env", "archive"), "/a"),
)


def test_files_that_the_build_has_changed_are_listed_as_edited() -> None:
    """Of many, the directories; of a name with signs of a pattern, that name alone."""
    few = settled(result("conda-files-unchanged", finding("/opt/conda/bin/[", TEXT)))
    assert few.document.data()["integrity"]["edited"] == {
        "/opt/conda/bin/[[]": "changed by the build"
    }
    files = [finding(f"/opt/conda/lib/{n}", TEXT) for n in range(30)]
    many = settled(result("conda-files-unchanged", *files))
    assert many.document.data()["integrity"]["edited"] == {
        "/opt/conda/lib/*": "changed by the build"
    }
    assert not few.document.waivers
    assert not many.document.waivers


def test_a_package_that_cannot_be_loaded_is_written_as_false() -> None:
    found = settled(result("requested-packages", finding("blas", TEXT)))
    assert found.document.data()["packages"]["requested"] == {"blas": False}


def test_a_broken_promise_of_a_parent_is_waived() -> None:
    """It stands in another file, perhaps on a line of a number that ours has too."""
    theirs = {**finding("jq", TEXT), "source": "tests/ml-base/image.toml:9"}
    found = settled(result("commands", theirs))
    assert found.document.entries == DOCUMENT.entries
    assert [(w.check, w.match) for w in found.document.waivers] == [("commands", "jq")]


def test_what_could_not_be_judged_is_left_out() -> None:
    found = settled(result("commands", outcome="error", message="the engine\nfailed"))
    assert "commands" not in found.document.data()
    assert found.broken == {"commands": ["not judged: the engine"]}


def test_what_nobody_tried_is_left_out() -> None:
    first = [*passed(*ALL), result("commands", outcome="skipped", message="nothing runs here")]
    first = [one for one in first if (one["check"], one["outcome"]) != ("commands", "passed")]
    found = settle(DOCUMENT, RULES, judged_by(first), TODAY)
    assert "commands" not in found.document.data()
    assert found.untried == {
        "commands.git": "nothing runs here",
        "commands.jq": "nothing runs here",
    }
    assert found.document.data()["prefix"] == "/opt/conda"


def test_only_what_failed_is_judged_again() -> None:
    first = [result("commands", finding("jq", TEXT, "jq =")), *passed("shells")]
    judge = judged_by(first)
    settle(DOCUMENT, RULES, judge, TODAY)
    assert [tests for _, tests in judge.seen] == [(), ("commands",)]


def test_an_image_that_never_passes_is_an_error() -> None:
    def judge(_: str, tests: Sequence[str]) -> Sequence[Judged]:
        return [result("start-files", finding(str(len(tests)), TEXT))]

    with pytest.raises(EngineError, match="start-files"):
        settle(DOCUMENT, RULES, judge, TODAY)


def test_what_the_parent_says_is_not_repeated() -> None:
    parent = Profile.of(
        {
            "prefix": "/opt/conda",
            "os": {"id": "debian", "version": "12"},
            "packages": {"required": {"numpy": {}}},
            "commands": {"git": ["git", "--version"]},
            "environment": {"equals": {"LANG": "C"}},
        },
        "base",
    )
    data = Document(tuple(writing.beyond(infer.entries(FOUND), parent))).data()
    assert data["extends"] == "base"
    assert set(data["packages"]["required"]) == {"scikit-learn", "zsh"}
    assert set(data["commands"]) == {"python3"}
    assert data["environment"]["equals"] == {"LANG": "C.UTF-8"}
    assert not {"prefix", "os", "tags"} & set(data)
    assert "kernelspecs" in data


# Real images --------------------------------------------------------------------------------


def judge_image(image: Path | str, profiles: Path, name: str, *more: str) -> list[dict[str, Any]]:
    """The results of the suite."""
    report = profiles / "report.json"
    report.unlink(missing_ok=True)
    done = warm.pytest(
        *("-q", "-p", "no:cacheprovider", "--profiles", profiles, "--profile", name),
        *("--image", image, f"--mlcheck-json={report}", *more),
    )
    assert report.is_file(), done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(report.read_text())["results"]
    return found


def checks(results: Sequence[dict[str, Any]], *outcomes: str) -> set[str]:
    return {str(one["check"]) for one in results if one["outcome"] in outcomes}


@pytest.mark.engine("sandbox")
def test_a_bare_directory_has_a_snapshot_that_holds(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No conda, no Python, no configuration, and files with odd names."""
    (root / "etc/os-release").write_text('ID=tiny\nVERSION_ID="1.2"\n')
    (root / "start.sh").write_text("#!/bin/sh\necho hello\n")
    (root / "start.sh").chmod(0o755)
    (root / 'odd"\n[[waivers]]\x1b').write_text("")
    profiles = tmp_path / "profiles"
    file = profiles / "image" / "image.toml"
    assert cli.main(["snapshot", str(root), "-o", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "judging the image" in said.err
    data = tomllib.loads(file.read_text())
    assert data["os"] == {"id": "tiny", "version": "1"}
    assert data["shells"] == ["/bin/sh", "/bin/bash"]
    assert data["files"]["/start.sh"] == {"mode": "0755"}
    assert '/odd"\n[[waivers]]\x1b' in data["files"]
    good = judge_image(root, profiles, "image")
    assert not checks(good, "failed", "error")
    assert checks(good, "passed") >= {"os-release", "shells", "files", "image-size"}

    (root / "start.sh").unlink()
    (root / "usr/bin/bash").unlink()
    (root / "etc/os-release").write_text('ID=tiny\nVERSION_ID="2"\n')
    with (root / "large").open("wb") as large:
        large.truncate(10**9)
    bad = judge_image(root, profiles, "image")
    assert checks(bad, "failed") >= {"os-release", "shells", "files", "image-size"}

    assert cli.main(["snapshot", str(root), "-o", str(file)]) == 4
    assert "is not overwritten" in capsys.readouterr().err


def archive(path: Path, config: dict[str, Any], *more: bytes) -> Path:
    files = [
        archives.member("etc/os-release", "ID=tiny\nVERSION_ID=3\n"),
        archives.member("etc/passwd", "joe:x:1000:100::/home/joe:/bin/sh\n"),
        archives.member("home/joe", None, uid=1000, gid=100, mode=0o2775),
        archives.member("start.sh", '#!/bin/sh\nexec "$@"\n', mode=0o755),
    ]
    layers = [archives.layer(*files), *more]
    return archives.docker_archive(path, layers, config=config, tag="image:v1")


CONFIG = {
    "Env": ["LANG=C.UTF-8", f"ODD={HOSTILE}", "PATH=/usr/bin"],
    "Entrypoint": ["/start.sh"],
    "Cmd": [HOSTILE],
    "User": "joe",
    "WorkingDir": "/home/joe",
    "ExposedPorts": {"8888/tcp": {}},
    "Labels": {"version": "1", HOSTILE: "x"},
}


@pytest.mark.slow
def test_a_snapshot_of_an_archive_has_nothing_that_needs_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs in it: what only a process would show is not written. Its configuration and
    its layers are told, and are hostile."""
    good = archive(tmp_path / "image:v1.tar", CONFIG)
    profiles = tmp_path / "profiles"
    file = profiles / "image" / "image.toml"
    of = ("--engine", "archive")
    assert cli.main(["snapshot", f"docker-archive:{good}", *of, "-o", str(file)]) == 0
    capsys.readouterr()
    data = tomllib.loads(file.read_text())
    assert data["environment"]["equals"]["ODD"] == HOSTILE
    assert data["entrypoint"] == {"argv": ["/start.sh"], "cmd": [HOSTILE]}
    assert data["configuration"]["labels"] == sorted([HOSTILE, "version"])
    assert data["user"]["name"] == "joe"
    assert data["layers"] == {"max_size": "1 kB", "max_waste": "0 B"}
    assert "shells" not in data
    assert "entrypoint.activates" in file.read_text()  # not tried, and said so
    assert all(char.isprintable() or char == "\n" for char in file.read_text())
    results = judge_image(f"docker-archive:{good}", profiles, "image:v1", *of)
    assert not checks(results, "failed", "error", "waived")
    wanted = {"configuration", "entrypoint", "environment", "files", "os-release", "user"}
    wanted |= {"layers-size", "layers-deleted", "layers-secrets", "image-size", "user-writable"}
    assert checks(results, "passed") >= wanted

    config = {**CONFIG, "Env": ["LANG=C"], "Labels": {}, "User": "root", "Cmd": ["x"]}
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    more = archives.layer(
        archives.member("home/joe", None, uid=0, gid=0, mode=0o755),
        archives.member("home/joe/.ssh/id_rsa", key + "A" * 5000),
        archives.member("start.sh", b"#" * 11_000_000),
        archives.member("etc/os-release", "ID=tiny\nVERSION_ID=4\n"),
    )
    last = archives.layer(archives.member(".wh.start.sh"))
    bad = archive(tmp_path / "bad:v1.tar", config, more, last)
    failed = checks(judge_image(f"docker-archive:{bad}", profiles, "image:v1", *of), "failed")
    assert failed >= wanted - {"image-size"}


FAULTS = {
    "entrypoint-missing": None,
    "env-locale": "environment",
    "file-missing": None,
    "kernel-argv-absolute": "kernelspecs-argv",
    "kernel-extra": "kernelspecs-promised",
    "label-missing": "configuration",
    "list-extra-line": "package-list-installed",
    "os-version": "os-release",
    "package-version": "packages-promised",
    "python-wrong-version": "python-version",
    "rpath": "rpath-hard-coded",
    "shebang-absolute": "script-shebangs",
    "zsh-missing": "shells",
}
"""What is planted, and what a snapshot's profile must say of it; None: left to others here."""


@pytest.mark.engine("sandbox")
def test_a_snapshot_catches_faults_planted_later(tmp_path: Path) -> None:
    """The image passes by what was inferred of it, and every planted fault is caught. Without what
    takes long: that is the suite's own matter."""
    good = reference.build("ml-pyroot")
    ref = ImageRef.parse(str(good))
    quick = ("-m", "not slow")
    with select.open_image(ref, "sandbox") as image:
        found = looking.look(image, Plainly())
    subject = writing.Subject(str(good), "sandbox", "snap", None)
    judge = Trial(str(good), "sandbox", "snap", options=quick)
    made = writing.write(found, subject, RULES, judge, TODAY)
    assert not made.broken
    assert not made.document.waivers
    (tmp_path / "snap").mkdir()
    (tmp_path / "snap/image.toml").write_text(made.document.text())
    assert writing.fitting(Catalog([SUITE]), found)[0] == "ml-pyroot"

    results = judge_image(good, tmp_path, "snap", *quick)
    assert not checks(results, "failed", "error", "waived")
    assert checks(results, "passed") == made.checks

    caught = {check for check in FAULTS.values() if check}
    names = {name for name, check in FAULTS.items() if check}
    bad = tmp_path / "bad"
    shutil.copytree(reference.build("ml-pyroot", defects=names), bad, symlinks=True)
    found_bad = checks(judge_image(bad, tmp_path, "snap", *quick), "failed")
    assert caught <= found_bad, caught - found_bad
