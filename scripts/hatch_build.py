"""Put the suite, which is beside the package in a clone, into the wheel.

Not by `force-include` in pyproject.toml: that would put a copy into editable installs too.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Suite(BuildHookInterface):  # type: ignore[misc]
    """Found by hatchling because the file has one such class."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add `tests` and how it is run to the files of a wheel."""
        if version == "standard":
            for name in ("tests", "pytest.toml"):
                build_data["force_include"][name] = f"mlcheck/suite/{name}"
