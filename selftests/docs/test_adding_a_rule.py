"""The walk of docs/adding-a-check.md: a rule with a fact and a key of its own takes four files. The
code is that of the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from selftests.checkout import CHECKOUT
from selftests.images import write

PAGE = CHECKOUT / "docs/adding-a-check.md"
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone with the rule of the page."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("mlcheck", "tests", "conftest.py", "pytest.toml"):
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    key, fact, rule, fault = CODE.findall(PAGE.read_text(encoding="utf-8"))[:4]
    schema = copy / "mlcheck/profile/schema/__init__.py"
    text = schema.read_text()
    head = "class Expectations(Table):\n"
    before, _, after = text.partition(head)
    docstring, quotes, rest = after.partition('"""\n')
    indented = "".join(f"    {line}\n" for line in key.splitlines())
    schema.write_text(f"{before}{head}{docstring}{quotes}\n{indented}{rest}")
    (copy / "mlcheck/inspect/motd").mkdir()
    (copy / "mlcheck/inspect/motd/probe.py").write_text(
        "from dataclasses import dataclass\n"
        "from mlcheck import fact\n"
        "from mlcheck.engines.base import Ask\n"
        "from mlcheck.image.api import RootFS, Unreadable\n"
        f"{fact}"
    )
    (copy / "tests/general/test_motd.py").write_text(
        '"""What users read when they log in."""\n'
        "from mlcheck import Finding, Verdict, judged, rule\n"
        "from mlcheck.inspect.motd.probe import Motd\n"
        "from mlcheck.model.verdict import ShowFile\n"
        "from mlcheck.profile.catalog import Profile, promised\n"
        f"{rule}"
    )
    faults = copy / "mlcheck/reference/defects/files.py"
    faults.write_text(f"{faults.read_text()}\n\n{fault}")
    return copy


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a good image and a bad one, and a profile of both."""
    for name, text in (("good", "ask Ann\n"), ("bad", "hello\n")):
        write(tmp_path / name, "/etc/motd", text)
    (tmp_path / "profiles/mine").mkdir(parents=True)
    (tmp_path / "profiles/mine/image.toml").write_text('motd = "ask Ann"\n')
    return tmp_path


def test_it_takes_four_files(copy: Path) -> None:
    changed = [
        str(file.relative_to(copy))
        for file in copy.rglob("*.py")
        if not (CHECKOUT / file.relative_to(copy)).is_file()
        or file.read_bytes() != (CHECKOUT / file.relative_to(copy)).read_bytes()
    ]
    assert len(changed) == 4, changed


def run(copy: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlcheck.cli", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )


def checked(copy: Path, place: Path, image: str, words: Sequence[str]) -> tuple[int, str]:
    done = run(
        *(copy, place, "check", f"./{image}", "--profile", "mine", "--profiles", "profiles"),
        *words,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--rule", "motd"), ("-k", "motd"), ()], ids=" ".join)
def test_the_rule_is_judged(copy: Path, place: Path, words: Sequence[str]) -> None:
    code, said = checked(copy, place, "bad", words)
    assert code == 1, said
    assert "motd: /etc/motd: hello" in said
    assert "profiles/mine/image.toml:1" in said
    code, said = checked(copy, place, "good", words)
    assert code in (0, 5) if not words else code == 0, said
    assert "FAILED" not in said


@pytest.mark.slow
def test_it_is_explained_and_waived(copy: Path, place: Path) -> None:
    said = run(copy, place, "explain", "motd").stdout
    for part in (
        "motd: What users read when they log in.",
        "users read there whom to ask (README of the image).",
        "write the text into /etc/motd in the image's build.",
        "general/test_motd.py::test_motd",
        "motd: The message of the day.",
        "motd: A text that /etc/motd must contain.",
        "motd-missing",
    ):
        assert part in said
    waiver = said[said.index("[[waivers]]") :].replace("\n    ", "\n")
    profile = place / "profiles/mine/image.toml"
    profile.write_text(profile.read_text() + waiver)
    code, said = checked(copy, place, "bad", ("--rule", "motd"))
    assert code == 0, said
    assert "waived  motd" in said


@pytest.mark.slow
def test_an_image_that_does_not_promise_it_is_not_asked(copy: Path, place: Path) -> None:
    (place / "profiles/mine/image.toml").write_text('prefix = "/opt/conda"\n')
    code, said = checked(copy, place, "bad", ("--rule", "motd"))
    assert code == 5, said
    assert "motd" not in said.partition("= mlcheck =")[2]


ACME = '''"""Rules of Acme."""
from mlcheck import Finding, Verdict, judged, rule
from mlcheck.image.api import RootFS


@rule("acme-logo")
def test_acme_logo(rootfs: RootFS) -> Verdict:
    """The image has Acme's logo.

    Why: docs/acme.md says so.

    Fix: copy it.
    """
    there = rootfs.lstat("/logo.svg")
    return judged(1, [] if there else [Finding("/logo.svg", "is not there", "the logo")])
'''


@pytest.fixture
def acme(place: Path) -> Path:
    """A distribution with a rule, as pip would install it, and a profile that says nothing."""
    write(place, "profiles/mine/image.toml", "")
    site = place / "site"
    write(site, "acme_rules/__init__.py", "")
    write(site, "acme_rules/test_acme.py", ACME)
    metadata = "Metadata-Version: 2.1\nName: acme-rules\nVersion: 1\n"
    write(site, "acme_rules-1.dist-info/METADATA", metadata)
    write(site, "acme_rules-1.dist-info/entry_points.txt", "[mlcheck.rules]\nacme = acme_rules\n")
    return site


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-n", "1")], ids=["alone", "workers"])
def test_a_distribution_brings_rules(acme: Path, place: Path, more: Sequence[str]) -> None:
    code, said = checked(acme, place, "bad", ("--rule", "acme-logo", *more))
    assert code == 1, said
    assert "acme-logo: /logo.svg: is not there" in said
    write(place / "bad", "logo.svg", "<svg/>")
    code, said = checked(acme, place, "bad", ("-k", "acme-logo", *more))
    assert code == 0, said
    assert "acme-logo: Rules of Acme." in run(acme, place, "explain", "acme-logo").stdout


@pytest.mark.slow
def test_an_entry_point_that_is_no_package_is_a_mistake_that_is_named(
    acme: Path, place: Path
) -> None:
    write(acme, "acme_rules-1.dist-info/entry_points.txt", "[mlcheck.rules]\nacme = acme_tules\n")
    for words in (("explain",), ("check", "./good", "--profile=mine", "--profiles=profiles")):
        done = run(acme, place, *words)
        assert done.returncode == 4, done.stdout + done.stderr
        assert "acme-rules: its entry point mlcheck.rules names 'acme_tules'" in (
            done.stdout + done.stderr
        )
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_rule_with_the_name_of_another_is_a_mistake_that_is_named(
    acme: Path, place: Path
) -> None:
    taken = ACME.replace('"acme-logo"', '"image-size"').replace("acme_logo", "image_size")
    write(acme, "acme_rules/test_acme.py", taken)
    for words in (("explain",), ("check", "./good", "--profile=mine", "--profiles=profiles")):
        done = run(acme, place, *words)
        said = done.stdout + done.stderr
        assert done.returncode == 4, said
        assert re.search(
            r"the rule 'image-size' is in \S+/test_files.py and in \S+/test_acme", said
        )
        assert "CONFORMS" not in said


@pytest.mark.slow
def test_a_rule_of_a_key_that_is_none_is_a_mistake_that_is_named(acme: Path, place: Path) -> None:
    """It would be judged of no image, and all would seem well."""
    write(
        acme, "acme_rules/test_acme.py", ACME.replace('"acme-logo"', '"acme-logo", keys=["fils"]')
    )
    code, said = checked(acme, place, "good", ())
    assert code == 4, said
    assert "rule 'acme-logo': an image.toml has no key 'fils'" in said
    assert "CONFORMS" not in said
