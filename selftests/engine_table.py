"""The table of engines in docs/engines.md: what `mlcheck doctor` says of each server here.

    python -m selftests.engine_table

It is written on a machine that `scripts/set_up_engines.sh modern` has set up, as root.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlcheck.engines import doctor
from mlcheck.model.errors import MlcheckError
from selftests import servers
from selftests.checkout import CHECKOUT

PAGE = CHECKOUT / "docs/engines.md"
COLUMNS = ("engine", "version", "store", "opens", "files are read", "GPUs", "users", "limits")
_OTHERS = ("apptainer", "sandbox", "archive")


def row(finding: doctor.Finding) -> tuple[str, ...]:
    """The cells of an engine that works, in the order of COLUMNS."""
    if finding.can is None:
        raise MlcheckError(finding.what, finding.remedy)
    can = finding.can
    store = can.store.partition(" in ")[0]
    kinds = ", ".join(finding.kinds)
    return (finding.engine, can.version, store, kinds, can.files, can.gpus, can.users, can.limits)


def rows() -> Iterator[tuple[str, ...]]:
    """The rows for each server and for each engine without one."""
    for server in servers.installed().values():
        with server.used():
            yield row(doctor.examined(server.engine))
    for name in _OTHERS:
        yield row(doctor.examined(name))


def in_page() -> list[tuple[str, ...]]:
    """The rows of the table in the documentation."""
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    at = lines.index(_line(COLUMNS)) + 2
    end = lines.index("", at)
    return [tuple(cell.strip() for cell in line[1:-1].split(" | ")) for line in lines[at:end]]


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    head, table = _line(COLUMNS), text[text.index(_line(COLUMNS)) :]
    before, after = text[: -len(table)], table[table.index("\n\n") :]
    made = [head, _line(["---"] * len(COLUMNS)), *map(_line, rows())]
    PAGE.write_text(before + "\n".join(made) + after, encoding="utf-8")


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
