"""The commands by which people see what was found: run, and looked at for what they would run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

SECONDS = 120
"""For a command that does not end by itself, such as a server."""

HOST_PROGRAMS = {
    *("ls", "cat", "head", "grep", "readelf", "sha256sum", "tar", "mktemp", "printf", "readlink"),
    *("unsquashfs", "mlcheck", "docker", "podman", "apptainer", "singularity"),
}
"""What a command may start on this machine: none of them runs what its arguments name, but for
mlcheck and the engines, which run it in a container."""


def run(command: str, seconds: float = SECONDS) -> str:
    """What a command prints, as a person types it: to either stream, until it is stopped.

    Once in some thousand times podman 4 loses what a container printed that ends at once
    (containers/podman#9096), so one that said nothing at all is asked again, as a person would.
    """
    said = _run(command, seconds)
    if not said and command.startswith("podman run "):
        said = _run(command, seconds)
    return said


def _run(command: str, seconds: float) -> str:
    # The command `mlcheck` that is tested, and a home without profiles.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    with subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            said, _ = process.communicate()
    return said.decode("utf-8", "replace")


def programs(command: str) -> Iterator[str]:
    """The programs that a command starts on this machine; variables that it sets for one are
    programs of the name "VARIABLE=" here, which none may be."""
    text = re.sub(r'"\$\((printf [^)]*)\)"', "X", command)  # signs of a word, see shell_words
    text = text.replace("$(", " ; ").replace(")", " ; ") if "$(" in text else text
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    begins, skip = True, False
    for word in lexer:
        if word and set(word) <= set(";|&"):
            begins = True
        elif word and set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        elif begins:
            if assigned := re.fullmatch(r"(\w+)=(.*)", word, re.DOTALL):
                if assigned[1] not in ("file", "id", "copy"):
                    yield f"{assigned[1]}="
                begins = assigned[2] != ""
                continue
            yield word
            begins = False


def found_in(output: str, finding: Mapping[str, Any]) -> bool:
    """Whether what a command printed shows a finding: words of it that were not expected anyway, or
    that what is missing is not printed."""
    if "nothing" in finding["found"] and not output.strip():
        return True
    told = _words(finding["found"]) - _words(finding["expected"]) - _WORDS
    said = _words(output)
    if _ABSENT.search(finding["found"]):
        if any(words in output for words in _REFUSALS):
            return True
        # The path of what was looked at may stand in the output all the same.
        subject = _words(finding["subject"].rpartition("->")[2]) - _WORDS - {"label"}
        if subject and not said & subject:
            return True
    told = told or _words(finding["found"]) - _WORDS
    return bool(said & told) or any(word in output for word in told if "/" in word)


_ABSENT = re.compile(
    r"not installed|missing|^not in|no such|not there|does not exist|no ELF file at|leads nowhere|"
    r"has neither|no package is recorded|of no conda package|not on the image's PATH|shows no"
)
_REFUSALS = ("No such file", "not found", "is not executable", "leads nowhere", "not installed")
_WORDS = {"", "a", "the", "of", "is", "in", "no", "not", "file", "and", "to", "it", "image", "by"}


def _words(text: str) -> set[str]:
    """The words, paths and numbers of a text."""
    return {word.strip(".:") for word in re.split(r"[^\w./+$@-]+", text.lower())} - {""}


def findings(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The first finding with a command of each failed check of each image, and the check."""
    for result in report["results"]:
        if result["outcome"] == "failed" and result["check"]:
            shown = [finding for finding in result["findings"] if finding["by_hand"]]
            if shown:
                yield result["check"], shown[0]


def without_command(report: Mapping[str, Any]) -> Iterable[str]:
    """The checks that failed and have no command for any finding."""
    return {
        result["check"]
        for result in report["results"]
        if result["outcome"] == "failed" and result["check"]
        if not any(finding["by_hand"] for finding in result["findings"])
    }
