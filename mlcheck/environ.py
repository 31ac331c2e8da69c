"""The environment of this process, for the programs that its threads start."""

from __future__ import annotations

import os


def own() -> dict[str, str]:
    """Name to value.

    pytest changes PYTEST_CURRENT_TEST at each phase of a test, in another thread. A program that is
    started without an environment of its own reads this process's meanwhile: execve(2) then fails
    now and then with EFAULT, "Bad address".
    """
    found = ((name, os.environ.get(name)) for name in list(os.environ))
    return {name: value for name, value in found if value is not None}
