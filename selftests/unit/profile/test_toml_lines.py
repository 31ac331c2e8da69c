"""The line of every key of a TOML document."""

from __future__ import annotations

from mlcheck.profile.toml_lines import line_numbers

TEXT = '''\
a = 1
b.c = 2   # a comment
"quoted key" = [
    "x",
    # between
    "y", { d = 3 },
]
[table."dotted.key"]
text = """
[not.a.table]
"""
after = true
[[list]]
n = 1
[list.sub]
m = 2
[[list]]
n = 3
[list.sub]
m = 4
'''


def test_keys_elements_and_tables_know_their_lines() -> None:
    lines = line_numbers(TEXT)
    assert lines["a",] == 1
    assert lines["b", "c"] == 2
    assert lines["quoted key",] == 3
    assert lines["quoted key", 0] == 4
    assert lines["quoted key", 1] == 6
    assert lines["quoted key", 2, "d"] == 6
    assert lines["table", "dotted.key"] == 8
    assert lines["table", "dotted.key", "text"] == 9
    assert lines["table", "dotted.key", "after"] == 12
    assert lines["list", 0, "n"] == 14
    assert lines["list", 0, "sub", "m"] == 16
    assert lines["list", 1, "n"] == 18
    assert lines["list", 1, "sub", "m"] == 20
    assert not any("not" in path for path in lines)
