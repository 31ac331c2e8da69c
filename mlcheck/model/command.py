"""Results of commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command.

    Args:
        exit_code: as a shell reports it, 128+n for signal n; None if a limit ended the command.
        stdout, stderr: decoded as UTF-8 with replacement characters.
        ended: "exited", or the limit that ended the command.
        seconds: wall time.
    """

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: str
    stderr: str
    ended: Literal["exited", "timeout", "output-limit"]
    seconds: float

    @property
    def how_it_ended(self) -> str:
        """Describe the end and the last line that was printed, for a table."""
        last = (self.stderr.strip() or self.stdout.strip()).splitlines()[-1:]
        said = f": {last[0][:200]}" if last else " and printed nothing"
        if self.ended == "timeout":
            return f"did not end within {self.seconds:.0f} s{said}"
        if self.ended == "output-limit":
            return "printed without end and was stopped"
        if self.exit_code is not None and self.exit_code > 128:
            return f"ended by signal {self.exit_code - 128}{said}"
        return f"exit code {self.exit_code}{said}"
