"""The package list: every generation, and what is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.packages import package_list
from mlcheck.inspect.packages.facts import PackageList
from mlcheck.model.errors import UsageError
from selftests.checkout import CHECKOUT

PATH = "/list-of-pkgs-inside.txt"
FEWER = settings(max_examples=50)


def pairs(found: PackageList) -> list[tuple[str, str]]:
    return [(entry.name, entry.version) for entry in found.entries]


def real_lists() -> list[Path]:
    """Real lists, which are not part of this repository."""
    default = CHECKOUT.parent / "shared/data"
    top = Path(os.environ.get("MLCHECK_DATA", default))
    return sorted(top.glob("ml-containers/*/*/*/list-of-pkgs-inside.txt"))


def test_older_generation_has_a_header_and_a_ruler() -> None:
    ruler = "─" * 30
    text = f"Name Version\n{ruler}\nbzip2 1.0.8\nbzip2.x86_64 1.0.8-8.el9\nmicromamba 1.5.1\n"
    found = package_list.parse(text.encode(), PATH)
    assert pairs(found) == [
        ("bzip2", "1.0.8"),
        ("bzip2.x86_64", "1.0.8-8.el9"),
        ("micromamba", "1.5.1"),
    ]
    assert [entry.line for entry in found.entries] == [3, 4, 5]
    assert not found.problems


@pytest.mark.parametrize(
    "header",
    ["Name Version", "Package Version", "Name  Version  Build  Channel", "name version build"],
)
@pytest.mark.parametrize("ruler", ["─────", "-----", "------- -------", "━━━ ━━━"])
def test_headers_and_rulers_are_no_packages(header: str, ruler: str) -> None:
    found = package_list.parse(f"{header}\n{ruler}\nnumpy 1.26.4\n".encode(), PATH)
    assert pairs(found) == [("numpy", "1.26.4")]
    assert not found.problems


def test_builds_and_channels_are_columns_only_under_their_header() -> None:
    line = "numpy 1.26.4 py311h64a7726_0 conda-forge\n"
    with_header = package_list.parse(f"Name Version Build Channel\n{line}".encode(), PATH)
    assert pairs(with_header) == [("numpy", "1.26.4")]
    without = package_list.parse(f"scipy 1.13.0\n{line}".encode(), PATH)
    assert pairs(without) == [("scipy", "1.13.0")]
    assert [problem.path for problem in without.problems] == [f"{PATH}:2"]


@pytest.mark.parametrize(
    "text",
    [
        "a 1  \n  b 2\t\n\n\n",
        "a\t \t1\nb 2\n",
        "a 1\nb 2",
        "NAME\tVERSION  Build\n---\na 1\nb 2",
    ],
    ids=["blanks", "tabs", "no final newline", "header"],
)
def test_ways_to_write_the_same_list(text: str) -> None:
    found = package_list.parse(text.encode(), PATH)
    assert pairs(found) == [("a", "1"), ("b", "2")]
    assert not found.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1\r\nb 2\r\n", "ends with a carriage return, as 1 others do"),
        ("a 1\nb 2\r\n", "ends with a carriage return: other programs"),
        ("\ufeffa 1\nb 2\n", "byte order mark"),
        ("\ufeffName Version\na 1\nb 2", "byte order mark"),
        ("a 1\nb 2\na 1\n", "is line 1 again"),
        ("a 1\nb 2\na  1 \n", "is line 1 again"),
        ("a 1\nb 2\n\u00a0\n", "is no line"),
        ("a 1\nb 2\nc\u00a03\n", r"c\xa03"),
        ("a 1\nb 2\nc\u20033\n", r"c\u20033"),
        ("a 1\nb 2\n\u200bc 3\n", r"\u200bc 3"),
        ("a 1\nb 2\nc 3\u2028d 4\n", r"\u2028"),
        ("a 1\nb 2\nc\v3\n", "is no line"),
        ("a 1\nb 2\nc 3\rd 4\n", "is no line"),
        ("a 1\nb 2\nname\u00a0version\n", "is no line"),
    ],
)
def test_what_only_looks_like_a_list(text: str, problem: str) -> None:
    found = package_list.parse(text.encode(), PATH)
    assert pairs(found) == [("a", "1"), ("b", "2")]
    assert found.problems
    assert problem in found.problems[0].what


ODD = st.sampled_from("ab1. \t\n\r\v\f\u00a0\u2003\u2028\u200b\ufeff\x85")


@FEWER
@given(st.lists(st.text(ODD, max_size=12), min_size=1, max_size=5))
def test_a_list_without_problems_is_read_the_same_compared_with_a_shell(lines: list[str]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    found = package_list.parse(content, PATH)
    if found.problems:
        return
    program = 'while read -r name version; do printf \'%s %s\\n\' "$name" "$version"; done'
    said = subprocess.run(["sh", "-c", program], input=content, capture_output=True, check=True)
    shown = [tuple(line.split(" ")) for line in said.stdout.decode().split("\n") if line.strip()]
    assert pairs(found) == shown


def test_one_name_with_two_versions_stays_two_entries() -> None:
    found = package_list.parse(b"xxhash 0.8.2\nxxhash 3.5.0\n", PATH)
    assert pairs(found) == [("xxhash", "0.8.2"), ("xxhash", "3.5.0")]


@pytest.mark.parametrize(
    "line",
    [
        b"numpy",
        b"numpy 1.26.4 extra",
        b"numpy latest",
        b"\xff\xfe 1.0",
        b"a\0b 1.0",
        b"../x 1",
        b"# x 1",
    ],
)
def test_other_lines_are_problems_with_their_number(line: bytes) -> None:
    found = package_list.parse(b"a 1\n" + line + b"\nb 2\n", PATH)
    assert pairs(found) == [("a", "1"), ("b", "2")]
    assert [problem.path for problem in found.problems] == [f"{PATH}:2"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_list_is_a_problem(content: bytes) -> None:
    found = package_list.parse(content, PATH)
    assert [problem.path for problem in found.problems] == [PATH]


def test_a_flood_of_strange_lines_is_counted_not_repeated() -> None:
    found = package_list.parse(b"?\n" * 1000, PATH)
    assert len(found.problems) < 110
    assert any("900 more" in problem.what for problem in found.problems)


@pytest.mark.slow
@FEWER
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,20}", fullmatch=True),
            st.from_regex(r"[0-9][A-Za-z0-9_.!+~^-]{0,20}", fullmatch=True),
        ),
        min_size=1,
        max_size=20,
        unique=True,
    ),
    st.sampled_from(["\n", "\t\n", " \n"]),
)
def test_what_is_written_is_read(packages: list[tuple[str, str]], end: str) -> None:
    text = "".join(f"{name} {version}{end}" for name, version in packages)
    assert pairs(package_list.parse(text.encode(), PATH)) == packages


@FEWER
@given(st.binary(max_size=2000))
def test_no_content_raises(content: bytes) -> None:
    package_list.parse(content, PATH)


@pytest.mark.skipif(not real_lists(), reason="no real lists here (MLCHECK_DATA names their folder)")
def test_real_lists_lose_no_line_and_invent_none() -> None:
    for path in real_lists():
        content = path.read_text("utf-8")
        lines = content.splitlines()
        if lines[0].startswith("Name"):
            lines = lines[2:]
        found = package_list.parse(content.encode(), str(path))
        assert [f"{entry.name} {entry.version}" for entry in found.entries] == lines, path
        assert not found.problems, path


def problem_of(image: Path) -> str:
    found = package_list.read(DirectoryRootFS(image))
    assert not found.entries
    assert found.path == PATH
    (problem,) = found.problems
    return problem.what


def test_list_in_an_image(tmp_path: Path) -> None:
    (tmp_path / "list-of-pkgs-inside.txt").write_text("numpy 1.26.4\n")
    assert pairs(package_list.read(DirectoryRootFS(tmp_path))) == [("numpy", "1.26.4")]


def test_list_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "list-of-pkgs-inside.txt").open("wb") as file:
        file.truncate(1024**3)
    assert "larger" in problem_of(tmp_path)


def test_list_that_is_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list-of-pkgs-inside.txt")
    assert "FIFO" in problem_of(tmp_path)


def test_list_that_links_to_the_host(tmp_path: Path) -> None:
    assert Path("/etc/passwd").exists()
    (tmp_path / "list-of-pkgs-inside.txt").symlink_to("/etc/passwd")
    assert "does not exist" in problem_of(tmp_path)


def test_list_in_a_link_loop(tmp_path: Path) -> None:
    (tmp_path / "list-of-pkgs-inside.txt").symlink_to("list-of-pkgs-inside.txt")
    assert "loop" in problem_of(tmp_path)


def test_no_list(tmp_path: Path) -> None:
    assert "does not exist" in problem_of(tmp_path)


def test_checked_in_copy(tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_text("numpy 1.26.4\n")
    found = package_list.read_host_file(copy)
    assert found.path == str(copy)
    assert pairs(found) == [("numpy", "1.26.4")]


def test_checked_in_copy_with_other_ends_of_lines(tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(b"numpy 1.26.4\r\nzlib 1.3\r\n")
    found = package_list.read_host_file(copy)
    assert (len(found.entries), len(found.problems)) == (2, 1)


@pytest.mark.parametrize("content", ["", "\n", "#include <stdio.h>\nint main(void) {}\n"])
def test_checked_in_copy_that_is_no_list(tmp_path: Path, content: str) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_text(content)
    with pytest.raises(UsageError, match="expected a package list"):
        package_list.read_host_file(copy)


def test_checked_in_copy_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(UsageError, match="expected a package list"):
            package_list.read_host_file(path)


def test_more_packages_than_any_image_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_list, "ENTRIES_LIMIT", 3)
    found = package_list.parse(b"".join(b"p%d 1\n" % n for n in range(3)), PATH)
    assert (len(found.entries), found.problems) == (3, ())
    found = package_list.parse(b"".join(b"p%d 1\n" % n for n in range(9)), PATH)
    assert len(found.entries) == 3
    (problem,) = found.problems
    assert problem.path == f"{PATH}:4"
    assert problem.what == "is behind 3 packages: what follows is not read"
