"""A copy of this process's environment, for programs started from threads."""

from __future__ import annotations

import os


def own() -> dict[str, str]:
    """Return a copy of the environment, name to value.

    pytest changes PYTEST_CURRENT_TEST at each phase of a test, from another thread. A program that
    is started without an environment of its own reads this process's while it changes, and
    execve(2) then occasionally fails with EFAULT, "Bad address".
    """
    found = ((name, os.environ.get(name)) for name in list(os.environ))
    return {name: value for name, value in found if value is not None}
