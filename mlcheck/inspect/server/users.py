"""An image's accounts, and write permissions of one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect.server.facts import Account, Accounts, ClosedDirectory, Writability
from mlcheck.model.files import File, Problem

PASSWD, GROUP = "/etc/passwd", "/etc/group"
LIMIT = 1024 * 1024
_CLOSED_LIMIT = 1000
"""Maximum number of directories that are reported; the first ones show the cause."""


def accounts(rootfs: RootFS) -> Accounts:
    """Read the lines of /etc/passwd, with the groups that /etc/group adds; see passwd(5)."""
    problems: list[Problem] = []
    groups: dict[str, list[int]] = {}
    names: list[str] = []
    for line, fields in _lines(rootfs, GROUP, 4, problems):
        if (gid := _number(fields[2])) is None:
            problems.append(Problem(f"{GROUP}:{line}", "has no number for its group"))
            continue
        names.append(fields[0])
        for name in filter(None, fields[3].split(",")):
            groups.setdefault(name, []).append(gid)
    found: dict[str, Account] = {}
    for line, fields in _lines(rootfs, PASSWD, 7, problems):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            problems.append(Problem(f"{PASSWD}:{line}", "has no numbers for user and group"))
        elif fields[0] not in found:
            own = tuple(sorted({gid, *groups.get(fields[0], ())}))
            found[fields[0]] = Account(fields[0], uid, gid, own, fields[5])
    return Accounts(found, tuple(problems), tuple(names))


def _lines(
    rootfs: RootFS, path: str, count: int, problems: list[Problem]
) -> Iterable[tuple[int, list[str]]]:
    try:
        text = rootfs.read(path, LIMIT).decode("utf-8", "replace")
    except Unreadable as unreadable:
        problems.append(Problem(unreadable.path, unreadable.what))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            fields = line.split(":")
            if len(fields) == count:
                yield number, fields
            else:
                problems.append(Problem(f"{path}:{number}", f"has not {count} fields"))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


def writability(
    rootfs: RootFS,
    tops: Sequence[str],
    uid: int,
    gid: int,
    groups: Sequence[int],
    home: str,
    setgid: bool,
) -> Writability:
    """Find files below `tops` that a user or another member of the user's group cannot write;
    symlinks are not judged.

    Args:
        gid: number of the group.
        groups: numbers of the user's groups.
        home: the user's home: if that is the user's and /etc/passwd is root's, the files have the
            image's owners.
        setgid: True if directories must be set-gid.

    Raises:
        ProbeError: this machine forbids looking into a directory.
    """
    own, roots = rootfs.lstat(home), rootfs.lstat(PASSWD)
    owners = own is not None and own.uid == uid and roots is not None and roots.uid == 0
    closed: dict[str, ClosedDirectory] = {}
    missing = []
    looked_at = 0
    for top in tops:
        final = rootfs.resolve(top).final
        if final is None or final.type != "directory":
            missing.append(top)
            continue
        for file in (final, *rootfs.walk(top)):
            if file.type == "symlink":
                continue
            looked_at += 1
            lacks = setgid and file.type == "directory" and not file.mode & 0o2000
            open_to_it = _can_write(file, uid, groups, owners)
            # A platform may start the image under another number, in the same group.
            if owners and open_to_it:
                open_to_it = _can_write(file, None, [gid], owners)
            if open_to_it and not lacks:
                continue
            directory = file.path if file.type == "directory" else file.path.rpartition("/")[0]
            before = closed.get(directory)
            if before is not None:
                closed[directory] = ClosedDirectory(
                    directory, before.count + 1, before.example, before.no_setgid
                )
            elif len(closed) < _CLOSED_LIMIT:
                closed[directory] = ClosedDirectory(directory, 1, file, lacks and open_to_it)
    return Writability(owners, looked_at, tuple(closed.values()), tuple(missing))


def _can_write(file: File, uid: int | None, groups: Sequence[int], owners: bool) -> bool:
    """Decide as the kernel does; without the owners, by the permissions of a group."""
    needed = 3 if file.type == "directory" else 2
    if not owners:
        return file.mode >> 3 & needed == needed
    if file.uid == uid:
        return file.mode >> 6 & needed == needed
    if file.gid in groups:
        return file.mode >> 3 & needed == needed
    return file.mode & needed == needed
