"""Facts as JSON and back, exactly. pydantic knows the way from a fact's own types."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

T = TypeVar("T")

_SURROGATES = b"S"
_UTF_8 = b"U"
_REPLACED = "\N{REPLACEMENT CHARACTER}".encode()


class FactJson(Generic[T]):
    """Encodes values of one type: dataclasses, tuples, sets, mappings, text, numbers, None.

    Names of files that are not UTF-8 have surrogates in them, which pydantic cannot write: such a
    fact is written by Python's own json, several times slower, and not as escapes, because two
    of those can mean one character.

    Args:
        shape: the type.
    """

    def __init__(self, shape: Any) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(shape)

    def encode(self, value: T) -> bytes:
        """Raises ValueError when something in the value is not of the type."""
        try:
            data = self._adapter.dump_json(value, warnings="error")
        except PydanticSerializationError:
            data = _REPLACED
        # In a key of a mapping pydantic replaces what it cannot write, and says nothing.
        if _REPLACED not in data:
            return _UTF_8 + data
        plain = self._adapter.dump_python(value, warnings="error")
        text = json.dumps(plain, separators=(",", ":"), default=list, ensure_ascii=False)
        return _SURROGATES + text.encode("utf-8", "surrogatepass")

    def decode(self, data: bytes) -> T:
        """What was encoded.

        Raises:
            ValueError: the data is of no such value.
        """
        kind, data = data[:1], data[1:]
        if kind == _UTF_8:
            return self._adapter.validate_json(data)
        return self._adapter.validate_python(json.loads(data.decode("utf-8", "surrogatepass")))
