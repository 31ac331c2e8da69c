"""docs/coverage.md: what the families of images promise, and what covers it.

`python -m selftests.coverage` writes it from contract.toml and the catalogue of defects;
test_coverage.py holds it true.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRACT = Path(__file__).with_name("contract.toml")
PAGE = ROOT / "docs" / "coverage.md"

_HEAD = """\
# What is covered

Every property that the images promise, the checks that cover it, and the planted fault by which
each check is proven: `mlcheck reference defects` lists the faults, `make demo DEFECT=NAME` plants
one. What a planted fault cannot show is shown by a self-test, named here. Upstream's
images, GPUs and CVMFS were not available while this was written: the last column says what that
leaves untried. Written by `python -m selftests.coverage`.

*Compared with* names the program that obeys or reads the thing. Where mlcheck has a model of it, a
self-test puts the same input to both (`make compare` runs these); where a rule starts the program
itself, it is marked *run*; where neither is possible here, *not here* says why.

The ML-Containers come first; the other families, and what is said of every image's layers, have
tables of their own below.
"""


@dataclass(frozen=True, slots=True)
class Property:
    """One row.

    Args:
        promise: what the images promise.
        checks: names of checks that judge it.
        defects: names of defects that prove those checks for it.
        tests: self-tests that prove what no planted fault can, `file.py::name`.
        untried: what could not be tried without the real thing; "" for nothing.
    """

    area: str
    promise: str
    checks: tuple[str, ...]
    defects: tuple[str, ...]
    tests: tuple[str, ...]
    untried: str


def properties() -> Iterator[Property]:
    """All rows, in the order of contract.toml."""
    for area in tomllib.loads(CONTRACT.read_text(encoding="utf-8"))["area"]:
        for row in area["property"]:
            yield Property(
                area["title"],
                row["promise"],
                tuple(row["checks"]),
                tuple(row.get("defects", ())),
                tuple(row.get("tests", ())),
                row.get("untried", ""),
            )


@dataclass(frozen=True, slots=True)
class Consumer:
    """A program that obeys what some rules are about.

    Args:
        rules: ids of these rules.
        tests: files of self-tests that put the same input to it and to mlcheck's model of it.
        runs: True if the rules start it themselves.
        missing: why neither can be done here, or "".
    """

    name: str
    rules: tuple[str, ...]
    tests: tuple[str, ...]
    runs: bool
    missing: str

    @property
    def cell(self) -> str:
        """What the page says of it."""
        if self.tests:
            return f"{self.name} ({_code(Path(test).name for test in self.tests)})"
        if self.runs:
            return f"{self.name} (*run*)"
        return f"{self.name} (*not here*: {self.missing})" if self.missing else self.name


def consumers() -> Iterator[Consumer]:
    """All consumers, in the order of contract.toml."""
    for row in tomllib.loads(CONTRACT.read_text(encoding="utf-8"))["consumer"]:
        yield Consumer(
            row["name"],
            tuple(row["rules"]),
            tuple(row.get("tests", ())),
            row.get("runs", False),
            row.get("missing", ""),
        )


def page() -> str:
    """The text of docs/coverage.md."""
    lines = [_HEAD]
    area = None
    known = list(consumers())
    for row in properties():
        if row.area != area:
            area = row.area
            lines += [
                f"\n## {area}\n" if len(lines) > 1 else f"## {area}\n",
                "| promise | check | proven by | compared with | untried |",
            ]
            lines += ["|---|---|---|---|---|"]
        files = [f"selftests/{test.partition('::')[0]}" for test in row.tests]
        proofs = list(dict.fromkeys([*row.defects, *files]))
        asked = "; ".join(one.cell for one in known if set(one.rules) & set(row.checks))
        cells = (row.promise, _code(row.checks), _code(proofs), asked, row.untried)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
