"""Facts that are kept: probing the same content again with the same probes costs nothing.

`Static` asks probes about an open image, `Store` holds what they found, `content` says what pins
the content that they read, and `version` what the answers depend on besides that.
"""

from __future__ import annotations

from mlcheck.kept.content import Content
from mlcheck.kept.static import Static, asking
from mlcheck.kept.store import LIMIT, OFF, Codec, Store, default, switched_off

__all__ = ["LIMIT", "OFF", "Codec", "Content", "Static", "Store", "asking", "default"]
__all__ += ["switched_off"]
