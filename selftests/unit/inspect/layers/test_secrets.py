"""Secrets in texts: what is one, what only looks so, and that a search ends soon."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcheck.image.api import Looked, looked_at
from mlcheck.image.rootfs import DirectoryRootFS
from mlcheck.inspect.layers import names, secrets
from mlcheck.inspect.layers.facts import ImageLayer, Layers, Secret
from mlcheck.inspect.layers.places import is_shown
from mlcheck.inspect.layers.published import owned
from mlcheck.model.environment import Environment
from mlcheck.profile.catalog import Profile
from selftests.rules import judge

BODY = base64.b64encode(bytes(range(120))).decode()
LINES = "\n".join(BODY[start : start + 64] for start in range(0, len(BODY), 64))


def key(label: str = "") -> str:
    return f"-----BEGIN {label}PRIVATE KEY-----\n{LINES}\n-----END {label}PRIVATE KEY-----\n"


GITHUB = "ghp_" + "aB3dE6gH9j" * 3 + "aB3dE6"
AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY0123456789"

HELD: dict[str, tuple[str, str, str]] = {
    "a key of OpenSSH": ("/root/deploy.txt", key("OPENSSH "), "private key"),
    "a key of RSA": ("/srv/x", "certificates first\n" * 9 + key("RSA "), "private key"),
    "an encrypted key": (
        "/srv/x",
        key("RSA ").replace(LINES, f"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES,00\n\n{LINES}"),
        "private key",
    ),
    "a key behind comments": ("/root/.ssh/id_rsa", "# x\n" * 20_000 + key(), "private key"),
    "a key in JSON": ("/root/key.json", json.dumps({"private_key": key()}), "private key"),
    "a key in a script": ("/opt/deploy.sh", f"cat > k <<'E'\n{key('EC ')}E\n", "private key"),
    "a key in a program": ("/opt/a.py", f'KEY = b"""{key()}"""', "private key"),
    "a key in an indented list": ("/opt/a.yaml", key().replace("\n", "\n    "), "private key"),
    "a key of PGP": (
        "/srv/x",
        key("PGP ").replace("KEY-----", "KEY BLOCK-----").replace(LINES, f"\n{LINES}"),
        "private key",
    ),
    "a key with lines of DOS": ("/srv/x", key().replace("\n", "\r\n"), "private key"),
    "a token in a URL of git": (
        "/app/.git/config",
        f"[remote]\n\turl = https://{GITHUB}@github.com/x/y\n",
        "token of GitHub",
    ),
    "a login in a URL of git": (
        "/app/.git/config",
        "[remote]\n\turl = https://me:s3cr3t-w0rd@host/x/y\n",
        "a login in a URL",
    ),
    "a token in settings": ("/app/settings.py", f'TOKEN = "{GITHUB}"\n', "token of GitHub"),
    "a token in a package": (
        "/opt/conda/lib/python3.11/site-packages/mine/config.py",
        f"TOKEN = '{GITHUB}'\n",
        "token of GitHub",
    ),
    "a token of Hugging Face": ("/x", f"hf_{'aB3dE6gH9j' * 4}", "token of Hugging Face"),
    "a history of bash": (
        "/root/.bash_history",
        f"export AWS_SECRET_ACCESS_KEY={AWS}\n",
        "credentials of AWS",
    ),
    "a history of zsh": (
        "/root/.zsh_history",
        ": 1700000000:0;curl --password s3cr3t-w0rd x\n",
        "password set to a secret",
    ),
    "settings of an application": (
        "/app/.env",
        "DEBUG=true\nDB_PASSWORD='correct horse'\n",
        "DB_PASSWORD set to a secret",
    ),
    "a URL in these": (
        "/app/.env.production",
        "DATABASE_URL=postgres://app:s3cr3tw0rd@db/app\n",
        "a login in a URL",
    ),
    "a start-up file": (
        "/root/.bashrc",
        "export HF_TOKEN=abcdefgh12345\n",
        "HF_TOKEN set to a secret",
    ),
}

NOT_HELD: dict[str, tuple[str, str]] = {
    "words of a program": ("/a.py", '_START = b"-----BEGIN OPENSSH PRIVATE KEY-----"\n_END = 1\n'),
    "an example": ("/a.md", "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n"),
    "a public key": ("/a", key().replace("PRIVATE", "PUBLIC")),
    "a certificate": ("/a", key().replace("PRIVATE KEY", "CERTIFICATE")),
    "a token that stands for one": ("/a.md", f"ghp_{'x' * 36}"),
    "a word that ends like one": ("/a.py", f"not_a_{GITHUB}"),
    "a part of a longer word": ("/a", f"AAAA{GITHUB}"),
    "a binary": ("/bin/ssh-keygen", f"\0{key()}"),
    "an empty variable": ("/app/.env", "DB_PASSWORD=\nTOKEN=''\n"),
    "a variable from elsewhere": ("/app/.env", "TOKEN=${TOKEN}\nPASSWORD=$(cat x)\n"),
    "a file with it": ("/app/.env", "PASSWORD_FILE=/run/secrets/x\nTOKEN=/run/secrets/x\n"),
    "switches": ("/app/.env", "TOKENIZERS_PARALLELISM=false\nMAX_TOKENS=1000\nUSE_PASSWORD=yes\n"),
    "a template": ("/app/.env.example", "DB_PASSWORD=s3cr3t-w0rd\n"),
    "ssh of git": ("/app/.git/config", "url = ssh://git@host:22/x\nurl = git@host:x/y@z\n"),
    "https of git": ("/app/.git/config", "url = https://me@host/x\nurl = https://host:80/a@b\n"),
    "a prompt": ("/root/.bash_history", "psql --no-password database\nread -s PASSWORD\n"),
    "the working directory": ("/root/.bashrc", "PWD=abcdefgh\nOLDPWD=abcdefgh\n"),
    "a key id": ("/root/.bashrc", "export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE\n"),
}


@pytest.mark.parametrize(("path", "text", "what"), HELD.values(), ids=HELD)
def test_secrets_by_their_content(path: str, text: str, what: str) -> None:
    assert names.may_be_secret(path)
    assert names.secret(path, text.encode()) == what


@pytest.mark.parametrize(("path", "text"), NOT_HELD.values(), ids=NOT_HELD)
def test_what_only_looks_like_a_secret(path: str, text: str) -> None:
    assert names.secret(path, text.encode()) is None


@pytest.mark.parametrize(
    ("line", "kind", "value"),
    [
        ("RUN GITLAB_TOKEN=s3cr3t-w0rd make", "GITLAB_TOKEN set to a secret", "s3cr3t-w0rd"),
        ("|1 TOKEN=s3cr3t-w0rd /bin/sh -c make", "TOKEN set to a secret", "s3cr3t-w0rd"),
        ("RUN pip install --token s3cr3t-w0rd x", "token set to a secret", "s3cr3t-w0rd"),
        ("RUN git clone https://me:s3cr3t@host/x", "a login in a URL", "s3cr3t"),
        ('RUN curl -H "Authorization: Bearer abcdefgh1234" x', "a login of HTTP", "abcdefgh1234"),
        (f"RUN git clone https://host/{GITHUB}", "a token of GitHub", GITHUB),
        ("ENV API_KEY=s3cr3t-w0rd", "API_KEY set to a secret", "s3cr3t-w0rd"),
    ],
)
def test_secrets_in_instructions(line: str, kind: str, value: str) -> None:
    assert (kind, value) in list(secrets.in_words(line))
    assert value not in secrets.without(line)


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=secret,id=token TOKEN=$(cat /run/secrets/token) make",
        "RUN jupyter lab --ServerApp.token='' --IdentityProvider.token=",
        "ENV GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D PYTHON_SHA256=aabb",
        'RUN curl -H "Authorization: token $TOKEN" https://host/x',
        "RUN sed -i 's/token=.*/token=/' /etc/x && useradd --password '' me",
        "COPY --from=build /opt/token /opt/secret",
        "ARG TOKEN",
        "RUN pip install https://host/a@b.whl git+https://github.com/x/y@v1",
    ],
)
def test_instructions_without_secrets(line: str) -> None:
    assert list(secrets.in_words(line)) == []
    assert secrets.without(line) == line


def test_secrets_in_variables_and_labels() -> None:
    there = {
        "HF_TOKEN": "abcdefgh1234",
        "X": f"{GITHUB}",
        "PROXY": "http://me:s3cr3t@proxy",
        "Y": "1",
    }
    assert dict(secrets.in_variables(there)) == {
        "HF_TOKEN": "a secret, by its name",
        "X": "a token of GitHub",
        "PROXY": "a login in a URL",
    }


@given(st.text("-BEGIN PRVATKY\n:/@=hg_p", max_size=400))
def test_any_text_is_searched(text: str) -> None:
    secrets.in_content(text.encode())
    assert isinstance(secrets.without(text), str)


@pytest.mark.parametrize(
    "piece",
    ["-----BEGIN PRIVATE KEY-----", "-----BEGIN A A A ", "://a:", "a=", "--a ", "ghp_", "a" * 9],
)
def test_long_texts_take_no_square_of_their_length(piece: str) -> None:
    """A search that did would not end within the limit of a test."""
    text = piece * (1024 * 1024 // len(piece))
    secrets.in_content(text.encode())
    list(secrets.in_words(text))


# Published by a package

SITE = "opt/conda/lib/python3.11/site-packages"


def image(top: Path) -> DirectoryRootFS:
    """An image with two packages, each with a key, and one with a key that nobody recorded."""
    content = key().encode()
    digest = hashlib.sha256(content)
    code = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    files = {
        f"{SITE}/pkg-1.0.dist-info/RECORD": f"pkg/__init__.py,,\npkg/certs/a.key,sha256={code},9\n"
        f"pkg/certs/changed.key,sha256=AAAA,9\n",
        "opt/conda/conda-meta/lib-1.0-0.json": json.dumps(
            {
                "paths_data": {
                    "paths": [{"_path": "share/lib/a.key", "sha256_in_prefix": digest.hexdigest()}]
                }
            }
        ),
        "var/lib/dpkg/info/lib.list": "/.\n/usr/lib/sdk/certs/a.key\n",
        "var/lib/dpkg/status": "Package: lib\nConffiles:\n"
        f" /etc/lib/a.key {hashlib.md5(content).hexdigest()}\n /etc/lib/b.key 00ff\n\n",
        "etc/lib/a.key": key(),
        "etc/lib/b.key": key(),
    }
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return DirectoryRootFS(top)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/{SITE}/pkg/certs/a.key", True),
        (f"/{SITE}/pkg/certs/changed.key", False),
        (f"/{SITE}/pkg/tests/mine.key", False),
        (f"/{SITE}/other/tests/a.key", None),
        ("/opt/conda/share/lib/a.key", True),
        ("/opt/conda/share/lib/b.key", None),
        ("/usr/lib/sdk/certs/a.key", True),
        ("/usr/lib/sdk/certs/b.key", None),
        ("/etc/lib/a.key", True),
        ("/etc/lib/b.key", False),
        ("/root/.ssh/id_rsa", None),
    ],
)
def test_files_of_packages(path: str, expected: bool | None, tmp_path: Path) -> None:
    digest = hashlib.sha256(key().encode()).hexdigest()
    assert owned(image(tmp_path), [(path, digest)])(path, digest) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/{SITE}/tornado/test/test.key", True),
        (f"/{SITE}/slapdtest/certs/server.key", True),
        ("/usr/local/go/src/crypto/tls/testdata/example-key.pem", True),
        ("/usr/lib/R/library/openssl/tests/keys/id_rsa", True),
        ("/opt/conda/lib/R/library/openssl/doc/key.pem", True),
        ("/usr/share/perl5/IO/Socket/SSL/examples/key.pem", True),
        ("/usr/local/share/perl/t/certs/server_key.pem", True),
        (f"/{SITE}/mlflow/server/js/node_modules/x/test/key.pem", True),
        ("/usr/lib/ruby/gems/3.1.0/gems/puma-5/examples/puma/puma_keypair.pem", True),
        ("/usr/lib/python3.9/test/keycert.pem", True),
        ("/home/jovyan/.ssh/id_rsa", False),
        ("/home/jovyan/test/id_rsa", False),
        ("/root/examples/key.pem", False),
        (f"/{SITE}/mine/server.key", False),
        (f"/{SITE}/mine/test.key", False),
        ("/usr/share/latest/key.pem", False),
    ],
)
def test_directories_for_tests_and_examples(path: str, expected: bool) -> None:
    assert is_shown(path) is expected


def config(env: Mapping[str, str] = {}, labels: Mapping[str, str] = {}) -> Environment:
    return Environment(env, (), (), "", "", (), labels, "the configuration")


def test_the_rule_judges_configuration_and_history() -> None:
    told = (("RUN", "TOKEN set to a secret"), ("ENV", "HF_TOKEN set to a secret"))
    layers = Layers((ImageLayer(1, "", "RUN make", 1, 1, told=told),))
    there = config(env={"HF_TOKEN": "abcdefgh1234"}, labels={"org.token": "abcdefgh1234"})
    findings = judge("layers-secrets", layers, there, Profile.of({})).findings
    assert [(finding.subject, finding.found) for finding in findings] == [
        ("layer 1 (RUN make)", "RUN has TOKEN set to a secret"),
        ("ENV HF_TOKEN", "is a secret, by its name"),
        ("LABEL org.token", "is a secret, by its name"),
    ]
    assert "abcdefgh1234" not in repr(findings)


@pytest.mark.parametrize(("of_a_package", "outcome"), [(True, "passed"), (None, "failed")])
def test_the_rule_asks_for_the_package(of_a_package: bool | None, outcome: str) -> None:
    one = Secret("/usr/lib/sdk/certs/a.key", "private key", None, "", of_a_package)
    layers = Layers((ImageLayer(1, "", "", 1, 1, secrets=(one,)),))
    assert judge("layers-secrets", layers, config(), Profile.of({})).outcome == outcome


@pytest.mark.parametrize("at", [0, 100, 2**20 - 40, 2**20 + 1, 5 * 2**20])
@pytest.mark.parametrize("step", [2**14, 2**21])
def test_a_secret_far_behind_in_a_text(at: int, step: int) -> None:
    """A text is looked at to its end, whatever pieces it comes in; of other files the beginning."""
    secret = b"ghp_" + b"planted0By0Mlcheck0" * 2
    text = (b"a line of some text\n" * (at // 20 + 1))[:at] + b"\n" + secret + b"\n" * (2**20)
    for content, expected in ((text, "token of GitHub"), (b"\0" + text, None)):
        looked = Looked("/app/log", names.secret)
        for start in range(0, len(content), step):
            looked.feed(content[start : start + step])
        assert looked.end() == expected
        assert looked_at("/app/log", io.BytesIO(content), names.secret) == expected


def test_nothing_is_looked_at_in_an_empty_file() -> None:
    assert looked_at("/root/.kube/config", io.BytesIO(b""), names.secret) is None
