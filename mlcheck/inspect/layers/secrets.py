"""Secrets in texts: private keys, tokens of known shapes, passwords in URLs and in variables.

Texts are an image's, so each search takes a time that grows with the text's length alone: it looks
for a fixed word, and then at a bounded number of characters around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

KEY_LIMIT = 64 * 1024
"""Most bytes of a private key; one of 16384 bits has 13,000."""

_KEY = b"PRIVATE KEY"
_DASHES = b"-----"
_LABEL = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}\Z")
_LABEL_LIMIT = 100
_BODY = 16
"""Fewest characters of a key: fewer are a program's own words, or an example's dots."""

_WORD = b"A-Za-z0-9_"
_TOKENS: tuple[tuple[bytes, bytes, int, str], ...] = (
    *((prefix, _WORD, 36, "token of GitHub") for prefix in (b"ghp_", b"gho_", b"ghu_", b"ghs_")),
    (b"ghr_", _WORD, 36, "token of GitHub"),
    (b"github_pat_", _WORD, 40, "token of GitHub"),
    *(
        (prefix, _WORD + b"-", 20, "token of GitLab")
        for prefix in (b"glpat-", b"gldt-", b"glrt-", b"glptt-", b"glcbt-")
    ),
    (b"hf_", b"A-Za-z0-9", 30, "token of Hugging Face"),
    (b"sk-ant-", _WORD + b"-", 30, "key of Anthropic"),
    (b"sk-proj-", _WORD + b"-", 30, "key of OpenAI"),
    (b"sk-", b"A-Za-z0-9", 48, "key of OpenAI"),
    *(
        (b"xox" + kind + b"-", b"A-Za-z0-9-", 20, "token of Slack")
        for kind in (b"a", b"b", b"p", b"r", b"s")
    ),
    (b"pypi-AgE", _WORD + b"-", 50, "token of PyPI"),
    (b"npm_", b"A-Za-z0-9", 36, "token of npm"),
    (b"AIza", _WORD + b"-", 35, "key of Google"),
    (b"sk_live_", b"A-Za-z0-9", 20, "key of Stripe"),
    (b"dckr_pat_", _WORD + b"-", 20, "token of Docker"),
    (b"dop_v1_", b"a-f0-9", 60, "token of DigitalOcean"),
    (b"hvs.", _WORD + b"-", 24, "token of Vault"),
    (b"SG.", _WORD + b".-", 60, "key of SendGrid"),
)
"""Prefix, characters that follow, fewest of these, and name of each kind of token."""

_AFTER = {
    prefix: re.compile(b"[%b]{%d,255}" % (chars, least)) for prefix, chars, least, _ in _TOKENS
}
_COMMON = (
    b"ghp_",
    b"github_pat_",
    b"glpat-",
    b"hf_",
    b"sk-ant-",
    b"sk-proj-",
    b"xoxb-",
    b"pypi-AgE",
)
"""Those that are also looked for in the files of packages, which are most of an image."""
_AWS_WORDS = (b"_SECRET_ACCESS_KEY", b"_secret_access_key", b"ecretAccessKey")
_LEAST_DIFFERENT = 5
"""Fewest different characters of a token: `ghp_xxxx...` stands for one."""

_AWS = re.compile(
    rb"aws_?secret_?access_?key[\"']?[ \t]{0,8}(?:=|:|[ \t])[ \t]{0,8}[\"']?"
    rb"([A-Za-z0-9+/]{30,64})",
    re.IGNORECASE,
)

_NAME = re.compile(
    r"(?:(?:^|[_.-])(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|SECRET|APIKEY|CREDENTIALS?)"
    r"|(?:^|[_.-])(?:API|ACCESS|SECRET|PRIVATE|ENCRYPTION|SIGNING|AUTH)[_.-]?KEY)\Z",
    re.IGNORECASE,
)
_NO_NAME = frozenset({"PWD", "OLDPWD"})
_ASSIGNED = re.compile(
    r"""(?<![\w.-])([A-Za-z_][\w.-]{0,99})[ \t]{0,4}=[ \t]{0,4}"""
    r"""(?:"([^"\n]{0,999})"|'([^'\n]{0,999})'|([^\s"';&|()]{1,999}))"""
)
_OPTION = re.compile(
    r"""(?<![\w-])--?([A-Za-z][\w-]{0,99})[ \t]{1,4}"""
    r"""(?:"([^"\n]{0,999})"|'([^'\n]{0,999})'|([^\s"'-][^\s"';&|()]{0,999}))"""
)
_BEARER = re.compile(
    r"Authorization:\s{0,4}(?:Bearer|token|Basic)\s{1,4}([A-Za-z0-9._~+/=-]{12,999})", re.IGNORECASE
)
_LOGIN = re.compile(
    r"(?<=://)([^\s/@:\"'<>]{0,255}):([^\s/@\"'<>]{1,255})@|(?<=://)([A-Za-z0-9_-]{20,255})@"
)
_NO_VALUES = frozenset(
    (
        *("true", "false", "yes", "no", "on", "off", "none", "null", "nil", "changeme"),
        *("change-me", "password", "passwd", "pass", "pw", "pwd", "secret", "token", "key"),
        *("user", "username", "example"),
    )
)
_STANDS_FOR = re.compile(
    r"[$`<>{}*\\]|%[(s]|\.\.\.|^your[-_]|^my[-_]?(?:password|token|secret)$|x{4}", re.IGNORECASE
)
_LEAST = 4
"""Fewest characters of a password; fewer are mostly a switch."""


def in_content(content: bytes, *, common: bool = False) -> str | None:
    """Return the kind of secret that a file holds, whatever its name; or None.

    Args:
        common: True to look for the most common kinds of tokens alone.
    """
    if has_private_key(content):
        return "private key"
    if (kind := token(content, common=common)) is not None:
        return kind
    if any(word in content for word in _AWS_WORDS) and _AWS.search(content):
        return "credentials of AWS"
    return None


def has_private_key(content: bytes) -> bool:
    """Return whether a text holds a private key, also one with its line ends written as `\\n`."""
    at = content.find(_KEY)
    while at >= 0:
        label = _LABEL.search(content[max(at - _LABEL_LIMIT, 0) : at])
        start = at + len(_KEY)
        if label is not None:
            start += len(b" BLOCK") if content[start : start + 6] == b" BLOCK" else 0
            if content.startswith(_DASHES, start) and _is_key(content, start + len(_DASHES)):
                return True
        at = content.find(_KEY, start)
    return False


def _is_key(content: bytes, start: int) -> bool:
    """Return whether a key's characters stand behind its first line."""
    end = content.find(_DASHES, start, start + KEY_LIMIT)
    body = content[start : end if end >= 0 else start + KEY_LIMIT]
    body = body.replace(b"\\r", b"\n").replace(b"\\n", b"\n").replace(b"\\", b"")
    # Headers of old keys and of PGP, quotes and marks of comments around the lines of a program.
    lines = [line.strip(b" \t\r\"'#+,;*/") for line in body.splitlines() if b": " not in line]
    letters = 0
    for line in lines[1:]:
        if not re.fullmatch(rb"[A-Za-z0-9+/=]*", line):
            break
        letters += len(line)
    return letters >= _BODY


def token(content: bytes, *, common: bool = False) -> str | None:
    """Return the kind of a token of a known shape in a text, or None."""
    for prefix, _, _, kind in _TOKENS:
        if common and prefix not in _COMMON:
            continue
        start = content.find(prefix)
        while start >= 0:
            before = content[start - 1 : start] if start else b""
            after = _AFTER[prefix].match(content, start + len(prefix))
            alone = not before.isalnum() and before != b"_"
            if alone and after and len(set(after[0])) >= _LEAST_DIFFERENT:
                return kind
            start = content.find(prefix, start + len(prefix))
    return None


def assigned(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names of variables and options that get a secret, and these secrets."""
    for pattern in (_ASSIGNED, _OPTION):
        for match in pattern.finditer(text):
            value = next((group for group in match.groups()[1:] if group), "")
            if is_secret(match[1], value):
                yield match[1], value


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable holds a secret, by its name, and no stand-in for one."""
    if name in _NO_NAME or name[:3].lower() in ("no-", "no_") or not _NAME.search(name):
        return False
    return len(value) >= _LEAST and _is_value(value)


def _is_value(value: str) -> bool:
    if value.lower() in _NO_VALUES or value[:1] in "/~-" or _STANDS_FOR.search(value):
        return False
    # A number says how many; a URL says where.
    return not (value.isdigit() and len(value) < 6) and "://" not in value


def logins(text: str) -> Iterator[str]:
    """Yield the passwords and tokens in URLs."""
    for match in _LOGIN.finditer(text):
        word = match[2] or match[3]
        if word != match[1] and _is_value(word):
            yield word


def in_words(text: str) -> Iterator[tuple[str, str]]:
    """Yield every secret in a line of commands or settings: its kind, and itself."""
    for name, value in assigned(text):
        yield f"{name} set to a secret", value
    for value in logins(text):
        yield "a login in a URL", value
    for match in _BEARER.finditer(text):
        yield "a login of HTTP", match[1]
    for kind, value in tokens(text):
        yield f"a {kind}", value


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield every token of a known shape in a text: its kind, and itself."""
    for match in re.finditer(r"[A-Za-z0-9._-]{20,999}", text):
        if (kind := token(match[0].encode())) is not None:
            yield kind, match[0]


def without(text: str) -> str:
    """Return a text with `***` in place of each secret in it."""
    for _, value in list(in_words(text)):
        text = text.replace(value, "***")
    return text


def in_variables(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the names of those variables or labels that hold a secret, and its kind."""
    for name, value in variables.items():
        found = next(in_words(value), None)
        if is_secret(name, value):
            yield name, "a secret, by its name"
        elif (kind := in_content(value.encode("utf-8", "surrogateescape"))) is not None:
            yield name, f"a {kind}" if not kind.startswith("credentials") else kind
        elif found is not None:
            yield name, found[0]
