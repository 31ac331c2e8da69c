"""The user's logins at registries, as `docker login` and `podman login` store them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import docker

_DOCKER_HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class Login:
    """A login: a name with a password, or a token that gets tokens."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


def login_of(host: str) -> Login | None:
    """Return the login at a registry, or None if there is none or it cannot be read."""
    for path in _files():
        try:
            known = docker.auth.load_config(str(path)).resolve_authconfig(
                None if host == _DOCKER_HUB else host
            )
        except (docker.errors.DockerException, OSError, ValueError):
            continue  # a missing helper program: the same as no login
        # Files and helper programs use different keys for the same values.
        words = {str(key).lower(): str(value or "") for key, value in (known or {}).items()}
        if words.get("username") or words.get("identitytoken"):
            return Login(*(words.get(key, "") for key in ("username", "password", "identitytoken")))
    return None


def _files() -> list[Path]:
    directory = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    places = [os.environ.get("REGISTRY_AUTH_FILE", ""), str(directory / "config.json")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(f"{runtime}/containers/auth.json")
    places.append(str(Path.home() / ".config/containers/auth.json"))
    return [Path(place) for place in places if place and Path(place).is_file()]
