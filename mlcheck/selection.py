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

    def left_out(self, target: Target, catalog: Catalog, *, compared: bool) -> tuple[str, ...]:
        """The checks that the profile promises, and tests of the user's own, that were not chosen.

        Args:
            compared: whether the image is compared with another.
        """
        own = (target.id, None)  # those of no image are not left out
        chosen = {_function(test) for test, about in self._chosen.items() if about in own}
        missing = [
            one
            for one in _functions(catalog, target.profile)
            if one not in chosen and (compared or one[0] != "parity")
        ]
        if not missing:
            return ()
        from mlcheck import explaining  # knows the checks of every test, and takes a moment

        promised = explaining.promised(target.profile, compared=compared)
        asked = {
            (*test.file.split("/"), test.name): check
            for check, tests in promised.items()
            for test in tests
        }
        suite = {folder.name for folder in SUITE.iterdir()}
        names = (asked.get(one, None if one[0] in suite else one[2]) for one in missing)
        return tuple(dict.fromkeys(filter(None, names)))


def _function(test: str) -> tuple[str, str, str]:
    """Folder, file and function of a test, by its name for pytest."""
    path, _, rest = test.partition("::")
    place = Path(path)
    return place.parent.name, place.name, rest.partition("[")[0].rpartition("::")[2]


def _functions(catalog: Catalog, profile: Profile) -> Iterator[tuple[str, str, str]]:
    """Folder, file and function of every test about images with this profile."""
    for directory in catalog.directories:
        for file in sorted(directory.glob("*/test_*.py")):
            folder = file.parent
            of_image = os.path.isfile(folder / FILE_NAME)  # noqa: PTH113 - it may be closed to us
            # What is no folder of an image has tests in the suite alone (`collecting.py`).
            if folder.name not in profile.lineage if of_image else directory != SUITE:
                continue
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue  # which pytest says
            yield from ((folder.name, file.name, name) for name in _FUNCTION.findall(text))
