"""Whether the GPUs of this machine are asked for."""

from __future__ import annotations

import os
from typing import Literal

Request = Literal["auto", "always", "never"]

DRIVER = "/proc/driver/nvidia/version"
"""Readable when NVIDIA's kernel driver is loaded; its own README names this file."""


def host_has_driver() -> bool:
    """Whether a container on this machine can be given a GPU at all."""
    return os.access(DRIVER, os.R_OK)


def wanted(request: Request) -> bool:
    """Whether to ask the engine for GPUs; "auto": where this machine's driver is loaded."""
    return request == "always" or (request == "auto" and host_has_driver())
