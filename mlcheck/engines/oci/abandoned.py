"""Leftovers of killed runs in docker and podman, and broken containers."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlcheck.engines.oci import monitors
from mlcheck.engines.oci.client import Client
from mlcheck.engines.oci.container import NAME, OWNER_LABEL
from mlcheck.engines.oci.errors import API_TIMEOUT_S, despite_removals, engine_errors
from mlcheck.machine import janitor
from mlcheck.model.errors import EngineError

_CREATED_WITHIN = datetime.timedelta(minutes=10)
"""podman makes a container's storage first. Until there is more, nobody can see whose it is; no
engine takes as long as this for the rest."""

_REMOVED_WITHIN_S = 1.0


def clear(client: Client) -> None:
    """Remove leftovers of runs on this machine that ended without cleaning up.

    Raises:
        EngineError: the engine does not list its containers.
    """
    for container in _listed(client, {"label": [OWNER_LABEL]}):
        name = _name(container)
        if not _is_abandoned(container, name):
            continue
        with engine_errors(client.dialect, f"remove the abandoned container {name}"):
            # Whatever the answer: another run may be faster, and a container that stays does no
            # harm.
            client.delete(
                f"{client.base_url}{client.api_url}/containers/{container['Id']}",
                params={"force": "true", "v": "true"},
                timeout=API_TIMEOUT_S,
            )
        if client.dialect.monitor is not None:
            monitors.end_monitors(*client.dialect.monitor, name)


def broken(client: Client) -> list[str]:
    """Return the containers that the engine lists and cannot use: how to remove each, for people.

    Such a container is left behind if podman is killed while it removes one, or if docker cannot
    remove its files. Other programs may fail because of it.

    Raises:
        EngineError: the engine does not list its containers.
    """
    found = []
    for container in _listed(client):
        number = container["Id"]
        if container.get("State") == "storage":
            continue  # another program's, such as buildah
        url = f"{client.base_url}{client.api_url}/containers/{number}/json"
        with engine_errors(client.dialect, f"inspect the container {number}"):
            answer = client.get(url, timeout=API_TIMEOUT_S)
            if answer.status_code == 500:
                time.sleep(_REMOVED_WITHIN_S)  # somebody may be removing it just now
                answer = client.get(url, timeout=API_TIMEOUT_S)
        if answer.status_code == 500 or container.get("State") == "dead":
            why = "is half removed" if answer.ok else answer.json().get("message", "is broken")
            found.append(
                f"The container {number[:12]} ({_name(container)}) is broken ({why}): remove it "
                f"with `{client.dialect.name} rm -f {number}`."
            )
    return found


def _listed(client: Client, filters: Mapping[str, list[str]] = {}) -> Sequence[Mapping[str, Any]]:
    """Return all containers, also those of podman that are only storage."""
    return despite_removals(lambda: _asked(client, filters))


def _asked(client: Client, filters: Mapping[str, list[str]]) -> Sequence[Mapping[str, Any]]:
    """Ask in podman's own form: the one like docker's fails if one container is broken."""
    with engine_errors(client.dialect, "list containers"):
        answer = client.get(
            f"{client.base_url}{client.api_url}/containers/json",
            params={"all": "true", "external": "true", "filters": json.dumps(filters)},
            timeout=API_TIMEOUT_S,
        )
        if not answer.ok:
            raise EngineError(
                f"{client.dialect.label} could not list containers: {answer.text[:500].strip()}",
                f"See what `{client.dialect.name} ps --all` says.",
            )
        found: Sequence[Mapping[str, Any]] = answer.json()
        return found


def _name(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [""]
    return str(names[0]).removeprefix("/")


def _is_abandoned(container: Mapping[str, Any], name: str) -> bool:
    label = (container.get("Labels") or {}).get(OWNER_LABEL)
    if label is not None:
        return janitor.is_abandoned(label)
    if container.get("State") != "storage" or not re.fullmatch(NAME, name):
        return False
    created = datetime.datetime.fromisoformat(container["Created"])
    return datetime.datetime.now(datetime.UTC) - created > _CREATED_WITHIN
