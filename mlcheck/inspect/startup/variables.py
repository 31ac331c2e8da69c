"""Variables as their readers take them."""

from __future__ import annotations

import re

LISTS = {
    "PATH": ":",
    "LD_LIBRARY_PATH": ":;",
    "PYTHONPATH": ":",
    "JUPYTER_PATH": ":",
    "JUPYTER_CONFIG_PATH": ":",
    "CPATH": ":",
    "C_INCLUDE_PATH": ":",
    "CPLUS_INCLUDE_PATH": ":",
    "LIBRARY_PATH": ":",
}
"""Lists of directories whose readers take an empty entry for the working directory, and the
characters that part the entries: execvp(3), ld.so(8), Python's site, jupyter_core, GCC."""

_ABSOLUTE = ("/", "$ORIGIN", "${ORIGIN}")


def depends_on_directory(name: str, value: str) -> list[str]:
    """Describe the entries of a list that depend on the working directory, each once.

    A list that is empty as a whole is no list, except PATH, which then is the working directory.
    """
    if name not in LISTS or (not value and name != "PATH"):
        return []
    found = []
    entries = re.split(f"[{LISTS[name]}]", value)
    for number, entry in enumerate(entries, 1):
        if not entry:
            found.append(f"entry {number} of {len(entries)} is empty")
        elif not entry.startswith("/" if name != "LD_LIBRARY_PATH" else _ABSOLUTE):
            found.append(f"entry {number} of {len(entries)} is {entry[:80]}")
    return found
