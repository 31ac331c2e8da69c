"""Convert facts to JSON and back without loss. pydantic follows the types of the facts."""

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
    """An encoder for values of one type: dataclasses, tuples, sets, mappings, text, numbers, None.

    File names that are not UTF-8 contain surrogates, which pydantic cannot write. Such a fact is
    written by Python's own json, several times slower, and without escapes, because two escaped
    surrogates can stand for one character.

    Args:
        shape: the type.
    """

    def __init__(self, shape: Any) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(shape)

    def encode(self, value: T) -> bytes:
        """Encode a value. Raises ValueError if something in it does not have the type."""
        try:
            data = self._adapter.dump_json(value, warnings="error")
        except PydanticSerializationError:
            data = _REPLACED
        # In a key of a mapping, pydantic silently replaces what it cannot write.
        if _REPLACED not in data:
            return _UTF_8 + data
        plain = self._adapter.dump_python(value, warnings="error")
        text = json.dumps(plain, separators=(",", ":"), default=list, ensure_ascii=False)
        return _SURROGATES + text.encode("utf-8", "surrogatepass")

    def decode(self, data: bytes) -> T:
        """Decode a value that was encoded.

        Raises:
            ValueError: the data does not represent a value of the type.
        """
        kind, data = data[:1], data[1:]
        if kind == _UTF_8:
            return self._adapter.validate_json(data)
        return self._adapter.validate_python(json.loads(data.decode("utf-8", "surrogatepass")))
