"""The files below a directory of an image, listed once, for questions about any number of paths.

A record or an archive may name a million files that are not there, each a system call if the image
is asked. Here it is asked only where a link leads out of the directory, or is the path itself.
"""

from __future__ import annotations

from mlcheck.image.api import RootFS
from mlcheck.image.paths import LINK_LIMIT, normal
from mlcheck.model.files import File


class Listing:
    """The files below the directory `top`.

    Raises:
        ProbeError: from every method: this machine forbids looking.
    """

    def __init__(self, rootfs: RootFS, top: str) -> None:
        self._rootfs = rootfs
        self._top = top.rstrip("/")
        self._files = {file.path: file for file in rootfs.walk(top)}
        self._led: dict[str, str | None] = {}

    def lstat(self, path: str) -> File | None:
        """Return the file at a path below the directory, as `RootFS.lstat` does."""
        found = self._at(path)
        return found and found._replace(path=path)

    def leads(self, path: str) -> bool:
        """Return whether a path below the directory leads to anything once links are followed."""
        found = self._at(path)
        if found is None or found.type != "symlink":
            return found is not None
        return self._target(found.path) is not None

    def _at(self, path: str) -> File | None:
        """Return the file at a path, with its own path."""
        at = path if path in self._files else normal(path)
        for _ in range(LINK_LIMIT + 1):
            if (file := self._files.get(at)) is not None:
                return file
            link = self._link_above(at)
            target = link and self._target(link)
            if link is None or target is None:
                return None
            at = f"{target.rstrip('/')}{at[len(link) :]}"
            if not at.startswith(f"{self._top}/"):
                return self._rootfs.lstat(at)
        return None

    def _link_above(self, path: str) -> str | None:
        """Return the first link on the way to a path that is not in the list; None if the way ends
        before any."""
        end = len(self._top)
        while (end := path.find("/", end + 1)) >= 0:
            file = self._files.get(path[:end])
            if file is None or file.type == "symlink":
                return file and file.path
        return None

    def _target(self, link: str) -> str | None:
        if link not in self._led:
            resolved = self._rootfs.resolve(link)
            self._led[link] = resolved.final_path if resolved.final else None
        return self._led[link]
