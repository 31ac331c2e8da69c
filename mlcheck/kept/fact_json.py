"""Facts as JSON and back, exactly. pydantic knows the way from a fact's own types."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

T = TypeVar("T")

_ASCII = b"A"
_UTF_8 = b"U"


class FactJson(Generic[T]):
    """Encodes values of one type: dataclasses, tuples, sets, mappings, text, numbers, None.

    Names of files that are not UTF-8 have surrogates in them, which JSON in UTF-8 cannot have: such
    a fact is written in ASCII, several times slower.

    Args:
        shape: the type.
    """

    def __init__(self, shape: Any) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(shape)

    def encode(self, value: T) -> bytes:
        """Raises ValueError when something in the value is not of the type."""
        try:
            return _UTF_8 + self._adapter.dump_json(value, warnings="error")
        except PydanticSerializationError:
            plain = self._adapter.dump_python(value, mode="json", warnings="error")
            return _ASCII + json.dumps(plain, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> T:
        """What was encoded.

        Raises:
            ValueError: the data is of no such value.
        """
        kind, data = data[:1], data[1:]
        if kind == _UTF_8:
            return self._adapter.validate_json(data)
        return self._adapter.validate_python(json.loads(data))
