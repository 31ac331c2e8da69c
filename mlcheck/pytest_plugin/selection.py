"""Tests that a run chose for its images, and promised rules that it left out.

A verdict is about everything that a profile promises. Rules that -k, -m, --rule, --lf or a path
left out, and those that a run did not reach because it ended early, must not count as passed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlcheck.profile.catalog import FILE_NAME, SUITE, Catalog, Profile
from mlcheck.pytest_plugin.run import Target

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
        self._not_promised: dict[str, dict[str, None]] = {}

    def add(self, tests: Iterable[str]) -> None:
        """Add tests that were chosen, as pytest names them."""
        for test in tests:
            self._chosen.setdefault(test, self.image_of(test))

    def image_of(self, test: str) -> str | None:
        """Return the id of the image that a test is about, or None if there is none."""
        parameters = test.partition("::")[2].partition("[")[2]
        for target in self._targets:
            # As pytest writes characters that are not ASCII.
            written = target.id.encode("unicode_escape").decode("ascii")
            if target.id in parameters or written in parameters:
                return target.id
        return None

    def of(self, image: str) -> list[str]:
        """Return the chosen tests of one image."""
        return [test for test, about in self._chosen.items() if about == image]

    def leave_out(self, tests: Iterable[str]) -> None:
        """Add tests that -k, -m or the like have left out, and files that have no tests."""
        self._left_out.update(dict.fromkeys(tests))

    def do_not_promise(self, image: str, rules: Iterable[str]) -> None:
        """Add the rules that the profile of an image does not promise, as pytest would name them
        without the image."""
        self._not_promised.setdefault(image, {}).update(dict.fromkeys(rules))

    def not_promised(self, target: Target, *, compared: bool) -> tuple[str, ...]:
        """Return the rules that were not collected for an image, because its profile does not
        mention their keys.

        Args:
            compared: True if the image is compared with another.
        """
        from mlcheck.inspect.rules import all_rules, is_about, of_this_run, promised

        about = {
            name: rule
            for name, rule in all_rules().items()
            if is_about(rule, target.profile) and of_this_run(rule, compared=compared)
        }
        judged = promised(target.profile, compared=compared)
        own = [
            test.rpartition("::")[2].removeprefix("test_").replace("_", "-")
            for test in self._not_promised.get(target.id, ())
        ]
        return tuple(dict.fromkeys([*(name for name in about if name not in judged), *own]))

    def left_out(self, target: Target, catalog: Catalog, *, compared: bool) -> tuple[str, ...]:
        """Return the promised rules, and tests of the user's own, that were not chosen.

        Args:
            compared: True if the image is compared with another.
        """
        from mlcheck.inspect.rules import promised

        profile = target.profile
        chosen = {_function(test) for test in self.of(target.id)}
        names = dict.fromkeys(
            name
            for name, rule in promised(profile, compared=compared).items()
            if (rule.file.parent.name, rule.file.name, rule.check.__name__) not in chosen
        )
        tests = (*self._chosen, *self._left_out, *self._not_promised.get(target.id, ()))
        known = {_function(test)[:2] for test in tests}
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


def _function(test: str) -> tuple[str, str, str]:
    """Return folder, file and function of a test, from its name for pytest."""
    path, _, rest = test.partition("::")
    place = Path(path)
    return place.parent.name, place.name, rest.partition("[")[0].rpartition("::")[2]


def _files(directory: Path, profile: Profile) -> Iterator[Path]:
    """Yield the files of tests about images with this profile, in a directory of --profiles."""
    yield from sorted(directory.glob("test_*.py"))
    for folder in sorted(directory.glob("*")):
        of_image = os.path.isfile(folder / FILE_NAME)  # noqa: PTH113 - it may be closed to us
        if of_image and folder.name in profile.lineage:
            yield from sorted(folder.rglob("test_*.py"))


def _functions(file: Path) -> list[tuple[str, str, str]]:
    """Return folder, file and function of each test in a file."""
    try:
        # Not a FIFO, whose reading would never end.
        text = file.read_text(encoding="utf-8") if os.path.isfile(file) else ""  # noqa: PTH113
    except (OSError, UnicodeDecodeError):
        return []  # which pytest reports
    return [(file.parent.name, file.name, name) for name in _FUNCTION.findall(text)]
