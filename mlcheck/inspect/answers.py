"""Helpers for several probes: bounded JSON, the image's PATH, and answers of commands."""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

from mlcheck.engines.base import Completed, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.model.command import CommandResult
from mlcheck.model.errors import ProbeError

TOKEN_BYTES = 16
"""Random bytes of the token that frames an answer, so that no output can be taken for one."""


_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

VALUES_LIMIT = 3_000_000
"""Commas and opening brackets of JSON; conda's largest records, of 50,000 files, have 500,000."""

DEPTH_LIMIT = 64
"""Levels of lists and objects in JSON; real files have five."""


def load_json(data: bytes, path: str) -> object:
    """Parse the image's file `path` as strict JSON (RFC 8259).

    Duplicate keys, NaN, a byte order mark and halves of surrogate pairs are refused, because
    readers differ about them.

    Raises:
        Unreadable: it is not valid JSON, is nested deeper than DEPTH_LIMIT, or has more values
            than VALUES_LIMIT.
    """
    # Each value but the first comes behind one of these.
    if sum(map(data.count, (b",", b"[", b"{"))) > VALUES_LIMIT:
        raise Unreadable(path, f"has more than {VALUES_LIMIT} values")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Unreadable(path, f"is no JSON: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise Unreadable(path, "is nested too deep to be read") from None
    except ValueError as error:
        raise Unreadable(path, f"is no JSON: {error}") from None
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEPTH_LIMIT):
        level = [inner for holder in level for inner in _inner(holder)]
    if level:
        raise Unreadable(path, f"is nested more than {DEPTH_LIMIT} levels deep")
    # UTF-8 has no surrogates, so that only an escape can bring one.
    if _ESCAPED_SURROGATE.search(text):
        half = _SURROGATE.search(json.dumps(value, ensure_ascii=False))
        if half is not None:
            raise Unreadable(path, f"is no JSON: half of a surrogate pair, {half[0]!a}")
    return value


def _inner(holder: Any) -> list[Any]:
    """Return the lists and objects that a list or object directly holds."""
    items = holder.values() if isinstance(holder, dict) else holder
    return [item for item in items if isinstance(item, (dict, list))]


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shortened(twice)} stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


@contextmanager
def opened(rootfs: RootFS, path: str) -> Iterator[BinaryIO]:
    """Open the image's regular file `path` for reading.

    Raises:
        Unreadable: there is no such file.
        ProbeError: this machine forbids reading it, or fails while it is read.
    """
    with rootfs.open(path) as file:
        try:
            yield file
        except OSError as error:
            raise ProbeError(
                f"{path}: cannot be read on this machine: {error.strerror or error}."
            ) from error


def shortened(text: str, length: int = 80) -> str:
    """Quote `text` in one line of printable characters, cut to about `length`."""
    return ascii(text if len(text) <= length else text[: length - 3] + "...")


def on_path(rootfs: RootFS, program: str, path_env: str) -> str | None:
    """Find `program` inside the image as execvp(3) would; symlinks are not resolved away.

    A relative entry of `path_env`, and a relative `program` with a slash, depend on the working
    directory and are ignored.
    """
    if "/" in program:
        candidates = [program]
    else:
        candidates = [f"{entry.rstrip('/')}/{program}" for entry in path_env.split(":") if entry]
    for path in candidates:
        if path.startswith("/"):
            final = rootfs.resolve(path).final
            if final is not None and final.type == "file" and final.mode & 0o111:
                return path
    return None


def path_of(env: Mapping[str, str]) -> str:
    """Return PATH of an image's environment, with the default of container engines."""
    return env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def command_result(completed: Completed) -> CommandResult:
    """Decode the engine's bytes as text."""
    return CommandResult(
        argv=completed.argv,
        exit_code=completed.exit_code,
        stdout=completed.stdout.decode("utf-8", "replace"),
        stderr=completed.stderr.decode("utf-8", "replace"),
        ended=completed.ended,
        seconds=completed.seconds,
    )


def as_configured(image: OpenImage, more: Mapping[str, str]) -> list[str]:
    """Return words before a command that give it the variables of the image's configuration alone.

    apptainer's container has sourced the image's scripts before any command, and a variable that
    these export may make them believe that they have already been sourced.

    Args:
        more: further variables.
    """
    variables = {**image.environment.env, "HOME": "/tmp", **more}  # noqa: S108 - of the image
    return ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]


def framed(stdout: str, token: str) -> str:
    """Return the last line that a program printed after its token, or "" if there is none."""
    _, found, rest = stdout.rpartition(f"\n{token} ")
    return rest.partition("\n")[0] if found else ""


def how_it_ended(result: CommandResult, limit_s: float) -> str:
    """Describe how a command without an answer ended, in words that follow its name."""
    if result.ended == "timeout":
        return f"did not finish in {limit_s:.0f} s"
    if result.ended == "output-limit":
        return "printed without end and was stopped"
    code = result.exit_code or 0
    # 128+n is a signal; the first real-time signal ends the named ones.
    if 128 < code < 128 + 32:
        return f"was killed by {_SIGNALS.get(code - 128, f'signal {code - 128}')}"
    lines = result.stderr.strip().splitlines()
    return f"ended with exit code {code}" + (f": {lines[-1].strip()[:500]}" if lines else "")


# Linux' numbers, the same on every machine that runs these images.
_SIGNALS = {
    4: "SIGILL (an instruction that this CPU does not have)",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL (out of memory?)",
    11: "SIGSEGV",
    15: "SIGTERM",
    31: "SIGSYS",
}
