"""Put the suite, which is beside the package in a clone, into the wheel.

`force-include` in pyproject.toml would put a copy into editable installs too.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Suite(BuildHookInterface):  # type: ignore[misc]
    """The build hook; hatchling finds it because it is the file's only such class."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add `tests` and pytest's configuration to the files of a wheel.

        An editable install gets mlcheck.pth instead: bare pytest judges images in a clone only.
        """
        if version == "standard":
            for name in ("tests", "pytest.toml"):
                build_data["force_include"][name] = f"mlcheck/suite/{name}"
        else:
            build_data["force_include_editable"]["mlcheck.pth"] = "mlcheck.pth"
