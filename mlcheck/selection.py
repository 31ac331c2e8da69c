"""Which tests a run chose for its images, and which checks that a profile promises it left out.

A verdict is about everything that a profile promises. What -k, -m, --lf or a path left out, and
what a run that ended early did not come to, must not be taken for good.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlcheck.profile import FILE_NAME, SUITE, Catalog, Profile
from mlcheck.run import Target

_FUNCTION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(test\w*)", re.MULTILINE)


class Selection:
    """The tests that were chosen, by the images that they are about.

    Args:
        targets: the images of the run.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        # A name may be a part of another's.
        self._targets = sorted(targets, key=lambda target: len(target.id), reverse=True)
        self._chosen: dict[str, str | None] = {}
        self._left_out: dict[str, None] = {}

    def add(self, tests: Iterable[str]) -> None:
        """Take in tests that were chosen, as pytest names them."""
        for test in tests:
            self._chosen.setdefault(test, self.image_of(test))

    def image_of(self, test: str) -> str | None:
        """The id of the image that a test is about; None: of none."""
        parameters = test.partition("::")[2].partition("[")[2]
        for target in self._targets:
            # As pytest writes what is not ASCII.
            written = target.id.encode("unicode_escape").decode("ascii")
            if target.id in parameters or written in parameters:
                return target.id
        return None

    def of(self, image: str) -> list[str]:
        """The chosen tests of one image."""
        return [test for test, about in self._chosen.items() if about == image]

    def leave_out(self, tests: Iterable[str]) -> None:
        """Take in tests that -k, -m or the like have left out, and files that have no tests."""
        self._left_out.update(dict.fromkeys(tests))

    def left_out(self, target: Target, catalog: Catalog, *, compared: bool) -> tuple[str, ...]:
        """The checks that the profile promises, and tests of the user's own, that were not chosen.

        Args:
            compared: whether the image is compared with another.
        """
        profile = target.profile
        chosen = {_function(test) for test in self.of(target.id)}
        suite = [one for file in _files(SUITE, profile) for one in _functions(file)]
        missing = [one for one in suite if one not in chosen and (compared or one[0] != "parity")]
        names = dict.fromkeys(_checks_of(missing, profile, compared=compared) if missing else ())
        known = {_function(test)[:2] for test in (*self._chosen, *self._left_out)}
        own = [
            file
            for directory in catalog.directories
            if directory != SUITE
            for file in _files(directory, profile)
        ]
        for one in (function for file in own for function in _functions(file)):
            if one[:2] not in known:
                names[one[2]] = None
        places = {(file.parent.name, file.name) for file in own}
        for test in self._left_out:
            if self.image_of(test) == target.id and _function(test)[:2] in places:
                names[_function(test)[2]] = None
        return tuple(names)


def _checks_of(
    functions: Sequence[tuple[str, str, str]], profile: Profile, *, compared: bool
) -> Iterator[str]:
    """The checks that functions of the suite ask, as far as the profile promises them."""
    from mlcheck import explaining  # knows the checks of every test, and takes a moment

    for check, tests in explaining.promised(profile, compared=compared).items():
        if any((*test.file.split("/"), test.name) in functions for test in tests):
            yield check


def _function(test: str) -> tuple[str, str, str]:
    """Folder, file and function of a test, by its name for pytest."""
    path, _, rest = test.partition("::")
    place = Path(path)
    return place.parent.name, place.name, rest.partition("[")[0].rpartition("::")[2]


def _files(directory: Path, profile: Profile) -> Iterator[Path]:
    """The files of tests about images with this profile."""
    if directory != SUITE:
        yield from sorted(directory.glob("test_*.py"))
    for folder in sorted(directory.glob("*")):
        of_image = os.path.isfile(folder / FILE_NAME)  # noqa: PTH113 - it may be closed to us
        # What is no folder of an image has tests in the suite alone (`collecting.py`).
        if folder.name in profile.lineage if of_image else directory == SUITE:
            yield from sorted(folder.rglob("test_*.py"))


def _functions(file: Path) -> list[tuple[str, str, str]]:
    """Folder, file and function of each test in a file."""
    try:
        # Not a FIFO, at which one would wait for ever.
        text = file.read_text(encoding="utf-8") if os.path.isfile(file) else ""  # noqa: PTH113
    except (OSError, UnicodeDecodeError):
        return []  # which pytest says
    return [(file.parent.name, file.name, name) for name in _FUNCTION.findall(text)]
