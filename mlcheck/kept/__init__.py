"""Facts that are kept: probing the same content again with the same probes costs nothing.

`Static` asks probes about an open image, `Store` holds what they found, `content` says what pins
the content that they read, and `version` what the answers depend on besides that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mlcheck.kept.content import Content
from mlcheck.kept.static import Static, asking
from mlcheck.kept.store import LIMIT, OFF, Codec, Store, default, switched_off

__all__ = ["LIMIT", "OFF", "Codec", "Content", "Static", "Store", "asking", "default", "of_layer"]
__all__ += ["switched_off"]

T = TypeVar("T")


def of_layer(digest: str, question: str, codec: Codec[T], make: Callable[[], T]) -> T:
    """What is known of one layer, whichever images share it: kept, or made now.

    Args:
        digest: of the layer. `make` must compare what it reads with it: an archive that says of
            a layer what is not true would otherwise be believed when another image has it.
        question: what is asked ("index").
        codec: how the answer is written; `mlcheck.kept.fact_json.FactJson` for dataclasses.
    """
    if switched_off():
        return make()
    return default().kept(Content("layer", digest, digest), question, codec, make)
