"""The configuration of an image."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from mlcheck.model.files import Problem

_SHELLS = ("sh", "bash", "dash", "ash", "zsh")
_REST = re.compile(
    r"(?:\s*\d?>\s*(?:/dev/null|&\d))*(?:\s*\|\|\s*(?:exit\s+[1-9]\d*|false))?\s*;?\s*$"
)
"""Suffix of a shell command that keeps its exit status decisive: `>/dev/null 2>&1 || exit 1`."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The part of an image's configuration that decides how it is started.

    Args:
        env: variables of the configuration, not those of a shell.
        entrypoint, cmd: argv lists; None if the image does not record them.
        user, workdir: "" if not set; None if the image does not record them.
        exposed: ports ("8888/tcp"); None if the image does not record them.
        labels: None if the image does not record them.
        healthcheck: in the form of HEALTHCHECK (("CMD", ...)), () if not set; None if the image
            does not record it.
        source: file that the configuration was read from, for people
            ("/.singularity.d/env/10-docker2singularity.sh").
    """

    env: Mapping[str, str]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    user: str | None
    workdir: str | None
    exposed: tuple[str, ...] | None
    labels: Mapping[str, str] | None
    source: str
    problems: tuple[Problem, ...] = ()
    healthcheck: tuple[str, ...] | None = None

    @property
    def health_command(self) -> tuple[str, ...]:
        """The single command whose failure makes HEALTHCHECK fail; () if it does anything else.

        An engine runs "CMD-SHELL" in a shell:
        https://github.com/moby/docker-image-spec/blob/main/spec.md, "Healthcheck".
        """
        return health_command(self.healthcheck or ())


def health_command(test: tuple[str, ...]) -> tuple[str, ...]:
    """Return the single command whose failure makes a health check fail; () if it does anything
    else.

    Args:
        test: in the form of HEALTHCHECK (("CMD", ...), ("CMD-SHELL", text)).
    """
    match test:
        case ("CMD-SHELL", text):
            return _simple(_REST.sub("", text))
        case ("CMD", *words):
            inner = shell_text(tuple(words))
            return tuple(words) if inner is None else _simple(_REST.sub("", inner))
    return ()


def promised_health(promise: tuple[str, ...]) -> tuple[str, ...]:
    """Return a profile's health check in the form of HEALTHCHECK.

    A profile may write the words of a command, or, as in a Dockerfile, `X || exit 1` as one text,
    or either form of the configuration.
    """
    match promise:
        case ("CMD" | "CMD-SHELL", _, *_):
            return promise
        case (text,) if len(text.split()) > 1:
            return ("CMD-SHELL", text)
    return ("CMD", *promise)


def health_argv(promise: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words by which a profile's health check is run."""
    kind, *words = promised_health(promise)
    return ("/bin/sh", "-c", *words) if kind == "CMD-SHELL" else tuple(words)


def shell_text(argv: tuple[str, ...]) -> str | None:
    """Return the text that a shell is started with, or None if `argv` starts no shell for one.

    An instruction in shell form is stored so, with the shell of SHELL: `/bin/bash -o pipefail -c`.
    """
    match argv:
        case (shell, *_, option, text) if shell.rpartition("/")[2] in _SHELLS and re.fullmatch(
            r"-[a-z]*c", option
        ):
            return text
    return None


def plain_command(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of the single command that `argv` comes to, which may be in a shell."""
    text = shell_text(argv)
    return argv if text is None else _simple(text) or argv


def _simple(text: str) -> tuple[str, ...]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = tuple(lexer)
    except ValueError:
        return ()
    # Operators, variables and patterns make the shell do more than start a program.
    if any(re.search(r"[$`*?\[]|^[();<>|&]+$", word) for word in words):
        return ()
    return words[1:] if words[:1] == ("exec",) else words
