"""Names of files that have no place in a layer: secrets, and what package managers keep.

If a name alone is not enough (a `.pem` file is mostly a certificate), the beginning of the file
decides.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass

from mlcheck.inspect.layers import secrets

_START = 16 * 1024
"""Bytes of a file of a telling name in which `Kind.holds` is searched."""

_KEY = rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-"
_LOGIN_IN_URL = rb"://[^\s/@:$]+:[^\s/@$]+@"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of secret.

    Args:
        what: description for people.
        names: the ends of paths, whole names, with `*` within a name.
        holds: a regular expression that the beginning of such a file must match, or None for any.
    """

    what: str
    names: tuple[str, ...]
    holds: bytes | None = None


KINDS = (
    Kind(
        "private key",
        (
            *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"),
            # Also a host's: everybody with the image could impersonate any container of it.
            *("ssh_host_*_key", "*.pem", "*.key", "*.ppk", "*_key", "*.asc", "*.gpg"),
        ),
        _KEY,
    ),
    Kind("key store", ("*.p12", "*.pfx", "secring.gpg", "private-keys-v1.d/*.key")),
    Kind("credentials of the grid", ("x509up_u*", ".globus/userkey.pem")),
    Kind("logins", (".netrc", "_netrc", ".pgpass", ".my.cnf"), rb"(?i)\bpass|:.*:.*:"),
    Kind("credentials of git", (".git-credentials", ".config/git/credentials")),
    Kind("credentials of AWS", (".aws/credentials", ".aws/sso/cache/*.json", ".boto", ".s3cfg")),
    Kind(
        "credentials of Google Cloud",
        (
            *(".config/gcloud/credentials.db", ".config/gcloud/access_tokens.db"),
            *("application_default_credentials.json", "legacy_credentials/*/adc.json"),
        ),
    ),
    Kind(
        "credentials of Azure",
        (
            *(".azure/accessTokens.json", ".azure/msal_token_cache.json"),
            *(".azure/msal_token_cache.bin", ".azure/service_principal_entries.json"),
        ),
    ),
    Kind(
        "credentials of a registry",
        (".docker/config.json", ".dockercfg", "containers/auth.json"),
        rb'"(?:auth|identitytoken|registrytoken)"\s*:\s*"[^"]',
    ),
    Kind("credentials of Kubernetes", (".kube/config",)),
    Kind("serviceaccount token", ("secrets/kubernetes.io/serviceaccount/token",)),
    Kind(
        "credentials of a package index",
        (".pypirc", ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials"),
        rb"(?i)password|token|api_?key",
    ),
    Kind("login of a package index", ("pip.conf", ".condarc", "uv.toml"), _LOGIN_IN_URL),
    Kind("token of npm", (".npmrc", "npmrc"), rb"(?i)_(?:authToken|auth|password)\s*=\s*[^\s$]"),
    Kind(
        "token of a service",
        (
            *(".huggingface/token", ".cache/huggingface/token", ".kaggle/kaggle.json"),
            *(".vault-token", ".terraform.d/credentials.tfrc.json", "gh/hosts.yml"),
            *(".config/hub", ".config/rclone/rclone.conf"),
        ),
    ),
)

_COMMANDS = (
    *("*/.*_history", "*/.history", "*/.env", "*/.env.*", "*/*.env", "*/.git/config"),
    *("*/.gitconfig", "*/.bashrc", "*/.bash_profile", "*/.profile", "*/.zshrc", "*/.zshenv"),
    *("*/.cshrc", "*/.tcshrc", "/etc/environment", "/etc/profile", "/etc/profile.d/*"),
)
"""Files of commands and settings, in which passwords have a name or stand in a URL."""

_TEMPLATES = (".example", ".sample", ".template", ".dist", ".defaults", ".tmpl")
"""Endings of files that show how one is written."""

_OF_PACKAGES = ("/site-packages/", "/dist-packages/", "/node_modules/", "/include/", "/lib/python")
_OF_SYSTEM = tuple(f"/usr/{place}/" for place in ["lib", "lib64", "libexec", "share", "src"])
"""Where packages have their files."""

_OTHER_FORMATS = frozenset(
    (
        *("a", "bin", "bmp", "bz2", "class", "conda", "db", "deb", "dll", "dylib", "eot", "exe"),
        *("gif", "gz", "h5", "hdf5", "ico", "jar", "jpeg", "jpg", "lz4", "lzma", "mo", "mp3"),
        *("mp4", "npy", "npz", "o", "ogg", "otf", "parquet", "pcm", "pdf", "pickle", "pkl"),
        *("png", "pyc", "pyd", "pyo", "rds", "root", "rpm", "so", "sqlite", "tar", "tbz", "tgz"),
        *("tif", "tiff", "ttf", "wasm", "wav", "webm", "webp", "whl", "woff", "woff2", "xls"),
        *("xlsx", "xz", "zip", "zst"),
    )
)
"""Endings of files that are no texts."""

CACHES = {
    "apt": r"/var/lib/apt/lists/|/var/cache/apt/",
    "dnf": r"/var/cache/(?:lib)?dnf\d?/",
    "yum": r"/var/cache/yum/",
    "zypper": r"/var/cache/zypp/",
    "apk": r"/var/cache/apk/|/etc/apk/cache/",
    "conda": r".*/(?:\.?(?:mini|ana)?conda|\.?(?:micro)?mamba|(?:mini|mamba)forge)\d?/pkgs/",
    "pip": r".*/\.cache/pip(?:env)?/",
    "uv": r".*/\.cache/uv/",
    "npm": r".*/\.npm/_cacache/",
    "yarn": r".*/\.cache/yarn/",
    "R": r"/tmp/(?:Rtmp[^/]*/)?downloaded_packages/",  # noqa: S108 - in the image
}
"""Directories in which package managers keep fetched files: beginnings of paths."""


def _names(*names: str) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(name) for name in names), re.DOTALL)


_LAST = _names(*{name.rpartition("/")[2] for kind in KINDS for name in kind.names})
_SETTINGS = _names(*_COMMANDS)
_WHOLE = [
    (kind, _names(*(f"*/{name}" for name in kind.names)), re.compile(kind.holds or b""))
    for kind in KINDS
]
_CACHE = re.compile("|".join(f"(?P<{name}>{start})" for name, start in CACHES.items()), re.DOTALL)


def may_be_secret(path: str) -> bool:
    """Return whether a file of this path may be a secret, if its content says so."""
    last = path[path.rfind("/") + 1 :]
    return last.rpartition(".")[2].lower() not in _OTHER_FORMATS or _by_name(path)


def _by_name(path: str) -> bool:
    return _LAST.match(path, path.rfind("/") + 1) is not None and any(
        whole.match(path) for _, whole, _ in _WHOLE
    )


def secret(path: str, piece: bytes, at: int = 0) -> str | None:
    """Return the kind of secret that a file is, or None if it is none.

    Args:
        piece: of its content; see `mlcheck.image.api.Looked`.
        at: where in the file the piece begins.
    """
    if not at and _LAST.match(path, path.rfind("/") + 1):
        for kind, whole, holds in _WHOLE:
            if whole.match(path) and holds.search(piece, 0, _START):
                return kind.what
    if b"\0" in piece[:_START]:
        return None
    common = any(place in path for place in _OF_PACKAGES) or path.startswith(_OF_SYSTEM)
    if (found := secrets.in_content(piece, common=common)) is not None:
        return found
    if _SETTINGS.match(path) and not path.endswith(_TEMPLATES):
        words = next(secrets.in_words(piece.decode("utf-8", "replace")), None)
        return words and words[0]
    return None


_CONDA_LIST = "/pkgs/urls.txt"


def conda_cache(path: str) -> str | None:
    """Return the directory of conda's cache that a file marks, wherever conda is installed."""
    return path.removesuffix("urls.txt") if path.endswith(_CONDA_LIST) else None


def cache(path: str, of_conda: Collection[str] = ()) -> str | None:
    """Return the package manager whose cache a file belongs to, or None.

    Args:
        of_conda: the caches that `conda_cache` found.
    """
    if (found := _CACHE.match(path)) is not None:
        return found.lastgroup
    return "conda" if of_conda and path[: path.find("/pkgs/") + 6] in of_conda else None
