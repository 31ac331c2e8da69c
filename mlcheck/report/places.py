"""Lines of profiles, as programs that show a repository want them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """A line of a file.

    Args:
        file: relative to the workspace, with slashes; absolute if it is outside.
        inside: whether the file is in the workspace.
        line: from 1.
    """

    file: str
    inside: bool
    line: int


def place(source: str | None) -> Place | None:
    """Return the place that FILE:LINE names, or None if it names none.

    The workspace is the directory of the job in GitHub Actions and GitLab CI, elsewhere the working
    directory.
    """
    file, _, line = (source or "").rpartition(":")
    if not file or not (line.isascii() and line.isdecimal()):
        return None
    variables = (os.environ.get(name) for name in ("GITHUB_WORKSPACE", "CI_PROJECT_DIR"))
    workspace = Path(next(filter(None, variables), None) or Path.cwd())
    try:
        path, root = Path(file).resolve(), workspace.resolve()
    except (OSError, RuntimeError, ValueError):
        return None
    if path.is_relative_to(root):
        return Place(path.relative_to(root).as_posix(), True, max(int(line), 1))
    return Place(path.as_posix(), False, max(int(line), 1))
