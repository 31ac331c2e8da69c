"""Kept facts: probing the same content again with the same probes costs nothing.

`Static` asks probes about an open image and `Store` keeps what they find. `content` identifies the
content that they read; `version` identifies the code that reads it.
"""

from __future__ import annotations

from mlcheck.cache.content import Content
from mlcheck.cache.static import Static, asking
from mlcheck.cache.store import LIMIT, OFF, Codec, Store, default, switched_off

__all__ = ["LIMIT", "OFF", "Codec", "Content", "Static", "Store", "asking", "default"]
__all__ += ["switched_off"]
