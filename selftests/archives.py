"""Archives of images made of literal members, as `docker save` and OCI's tools write them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlcheck.image.byte_sources import _zstd

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def member(name: str, content: bytes | str | None = b"", **fields: Any) -> bytes:
    """A file (None: a directory); `to`: a symlink, `link`: a hard link."""
    info = tarfile.TarInfo(name)
    info.mode = 0o755 if content is None else 0o644
    data = content.encode() if isinstance(content, str) else content or b""
    if content is None:
        info.type = tarfile.DIRTYPE
    for key, kind in (("to", tarfile.SYMTYPE), ("link", tarfile.LNKTYPE)):
        if key in fields:
            info.type, info.linkname = kind, fields.pop(key)
    info.size = len(data)
    form = fields.pop("form", tarfile.PAX_FORMAT)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def layer(*members: bytes) -> bytes:
    """A layer's tar archive."""
    return b"".join(members) + bytes(1024)


def packed(data: bytes, how: str) -> bytes:
    """The same, compressed: "gzip", "zstd" or ""."""
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    return bytes(_zstd().compress(data)) if how == "zstd" else data


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration(
    layers: Sequence[bytes],
    config: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
) -> bytes:
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]},
    }
    if history is not None:
        document["history"] = list(history)
    return json.dumps(document).encode()


def docker_archive(
    path: Path,
    layers: Sequence[bytes],
    *,
    how: str = "",
    config: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    tag: str | None = None,
    changed: Mapping[str, bytes] | None = None,
) -> Path:
    """An archive as of `docker save`; `changed` files stand for those of the same name."""
    image = configuration(layers, config, history)
    name = f"{digest(image)[7:]}.json"
    names = [f"{digest(one)[7:]}-{n}/layer.tar" for n, one in enumerate(layers)]
    table = [{"Config": name, "RepoTags": [tag] if tag else None, "Layers": names}]
    files = {
        name: image,
        **{one: packed(data, how) for one, data in zip(names, layers, strict=True)},
        "manifest.json": json.dumps(table).encode(),
        **(changed or {}),
    }
    path.write_bytes(layer(*(member(one, data) for one, data in files.items())))
    return path


def layout(
    layers: Sequence[bytes],
    *,
    how: str = "gzip",
    config: Mapping[str, Any] | None = None,
    config_file: bytes | None = None,
    media_type: str = "application/vnd.oci.image.layer.v1.tar+gzip",
) -> dict[str, bytes]:
    """The files of an OCI layout; `config_file` stands for a configuration that fits."""
    blobs: dict[str, bytes] = {}

    def put(kind: str, data: bytes) -> dict[str, Any]:
        blobs[f"blobs/{digest(data).replace(':', '/')}"] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(
            "application/vnd.oci.image.config.v1+json",
            config_file or configuration(layers, config),
        ),
        "layers": [put(media_type, packed(one, how)) for one in layers],
    }
    entry = put(MANIFEST, json.dumps(manifest).encode())
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }


def write(files: Mapping[str, bytes], path: Path, kind: str) -> Path:
    """A layout as a directory ("oci") or a file ("oci-archive")."""
    if kind == "oci-archive":
        path.write_bytes(layer(*(member(name, data) for name, data in files.items())))
        return path
    for name, data in files.items():
        file = path / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def described(archive: io.BytesIO) -> dict[str, tuple[object, ...]]:
    """What a tar archive of a whole file system holds, by path, for comparison."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=archive, mode="r|", errors="surrogateescape") as tar:
        for one in tar:
            path = "/" + one.name.strip("/").removeprefix("./")
            if one.islnk():
                found[path] = found["/" + one.linkname.strip("/")]
                continue
            content = tar.extractfile(one) if one.isreg() else None
            data = content.read() if content else None
            kind = {"5": "directory", "2": "symlink", "0": "file"}.get(one.type.decode(), "other")
            link = one.linkname if one.issym() else None
            mode = None if one.issym() else one.mode & 0o7777
            found[path] = (kind, mode, one.uid, one.gid, link, data)
    return found
