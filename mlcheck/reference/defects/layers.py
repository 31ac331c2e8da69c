"""Faults that show only in an image's layers: each is one or two layers on top of the good image.

They need an image with layers: `mlcheck reference build NAME --defect D --format docker-archive
--output FILE`.
"""

from __future__ import annotations

from pathlib import Path

from mlcheck.reference import tree
from mlcheck.reference.defects.base import AddedFile, AddedLayer, Catalogue
from mlcheck.reference.python import SITE

DEFECTS = Catalogue()

_MB = 1_000_000
_KEY = """-----BEGIN OPENSSH PRIVATE KEY-----
cGxhbnRlZCBieSBtbGNoZWNrOiBvcGVucyBub3RoaW5n
-----END OPENSSH PRIVATE KEY-----
"""


@DEFECTS.layers(
    "layer-permissions",
    "A layer changes nothing but the mode of the files of numpy, and holds all of them again.",
    "layers-permissions",
)
def _permissions(image: Path) -> list[AddedLayer]:
    top = tree.at(image, f"{SITE}/numpy")
    files = [file for file in sorted(top.rglob("*")) if file.is_file() and not file.is_symlink()]
    changed = tuple(
        AddedFile(f"/{file.relative_to(image)}", file, file.stat().st_mode & 0o777 | 0o020)
        for file in files
    )
    return [AddedLayer(f"/bin/sh -c chmod -R g+w {SITE}/numpy", changed)]


@DEFECTS.layers(
    "layer-deleted",
    "A layer fetches an archive of 20 MB, and a later one deletes it.",
    "layers-deleted",
)
def _deleted(image: Path) -> list[AddedLayer]:
    path = "/opt/source.tar"
    return [
        AddedLayer("/bin/sh -c curl -o /opt/source.tar …", (AddedFile(path, bytes(20 * _MB)),)),
        AddedLayer("/bin/sh -c rm /opt/source.tar", (AddedFile.deleted(path),)),
    ]


@DEFECTS.layers(
    "layer-cache",
    "A layer installs a package with dnf, and leaves 20 MB of what dnf fetched.",
    "layers-caches",
)
def _cache(image: Path) -> list[AddedLayer]:
    path = "/var/cache/dnf/appstream.solv"
    return [AddedLayer("/bin/sh -c dnf install -y git", (AddedFile(path, bytes(20 * _MB)),))]


@DEFECTS.layers(
    "layer-secret",
    "A layer copies a private key to fetch something, and a later one deletes it.",
    "layers-secrets",
)
def _secret(image: Path) -> list[AddedLayer]:
    path = "/root/.ssh/id_ed25519"
    return [
        AddedLayer(f"COPY id_ed25519 {path} # buildkit", (AddedFile(path, _KEY.encode(), 0o600),)),
        AddedLayer("RUN /bin/sh -c rm -r /root/.ssh # buildkit", (AddedFile.deleted(path),)),
    ]


@DEFECTS.layers(
    "layer-secret-text",
    "A layer holds a private key in a text, fetched with a token that its history tells.",
    "layers-secrets",
)
def _secret_text(image: Path) -> list[AddedLayer]:
    token = "ghp_" + "planted0By0Mlcheck0" * 2
    line = f"RUN /bin/sh -c git clone https://{token}@github.com/x/y /app # buildkit"
    text = f"To deploy, use\n{_KEY}"
    return [AddedLayer(line, (AddedFile("/app/deploy.txt", text.encode()),))]


@DEFECTS.layers(
    "layer-large",
    "A layer adds data of 200 MB that the image was not meant to hold.",
    "layers-size",
)
def _large(image: Path) -> list[AddedLayer]:
    return [AddedLayer("COPY events.root /data/", (AddedFile("/data/events", bytes(200 * _MB)),))]
