"""JSON of an image: what is refused, and before it takes memory."""

from __future__ import annotations

import json

import pytest

from mlcheck.image.api import Unreadable
from mlcheck.inspect import answers


@pytest.mark.parametrize("content", [b"[%s]", b'{"a": [%s]}'])
@pytest.mark.parametrize("value", [b"{}", b"0", b'{"b": 1}', b"[]"])
def test_more_values_than_any_file_has(
    content: bytes, value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "VALUES_LIMIT", 1000)
    parsed = []
    monkeypatch.setattr(json, "loads", lambda *arguments, **_: parsed.append(arguments))
    with pytest.raises(Unreadable, match="has more than 1000 values"):
        answers.load_json(content % b",".join([value] * 2000), "/a.json")
    assert not parsed


def test_numbers_of_thousands_of_digits_are_no_json_of_ours() -> None:
    with pytest.raises(Unreadable, match="is no JSON: Exceeds the limit"):
        answers.load_json(b"[%s]" % (b"1" * 5000), "/a.json")
