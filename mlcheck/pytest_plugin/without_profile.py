"""Images that no profile knows: they are judged by what holds for every image."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from mlcheck import cache
from mlcheck.engines import select
from mlcheck.engines.base import Progress, PullPolicy
from mlcheck.inspect import rules
from mlcheck.inspect.parity import probe as programs
from mlcheck.inspect.prefix.chosen import prefix_of
from mlcheck.inspect.prefix.facts import Environments
from mlcheck.inspect.probe_catalog import facts_about
from mlcheck.model.errors import MlcheckError, UsageError
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import Catalog

_NEAR = 0.8
"""Likeness from which a name is taken for a misspelt one of a profile."""


def is_meant(ref: ImageRef, catalog: Catalog, directories: Sequence[str]) -> bool:
    """Return whether an image without a profile is meant to have none.

    Where the user named profiles, a missing one is a mistake: a rule that is not judged must not
    count as one that holds. So is a name that resembles a known one, unless such an image is here.

    Args:
        directories: of --profiles.
    """
    own = set(directories).difference(map(str, rules.directories()))
    if own or catalog.name_of(ref.name) is not None:
        return False
    near = difflib.get_close_matches(ref.name, catalog.names(), 1, _NEAR)
    return not near or ref.kind != "registry" or bool(select.stores_with(ref))


def expectations(
    ref: ImageRef, engine: str, pull: PullPolicy, progress: Progress, since_ns: int
) -> dict[str, Any]:
    """Return what holds for every image, as the data of a profile: its environment is searched for.

    An image that cannot be opened has no environment; its rules end with the engine's error.

    Args:
        since_ns: a time before the image is opened.

    Raises:
        UsageError: the image does not exist.
    """
    select.check_exists(ref)
    prefix = None
    try:
        with (
            select.prepare(ref, engine, pull=pull, progress=progress) as prepared,
            select.opened(prepared, engine) as image,
        ):
            static = cache.asking(image, since_ns)
            tools = static(programs.tools, image.rootfs, image.environment).paths
            every = facts_about(image, static)[Environments]
            prefix = prefix_of(image.rootfs, image.environment, tools, every)
            if prefix is None and tools.get("python3", "").startswith("/usr/local/bin/"):
                prefix = "/usr/local"
            real = prefix and image.rootfs.resolve(prefix).final_path
    except UsageError:
        raise
    except MlcheckError:
        return {}
    if prefix is None:
        return {}
    conda = any(one.path == real and one.kind == "conda" for one in every.found)
    # conda's packages work wherever their prefix is put.
    return {"prefix": prefix, "rpath": {"forbidden": [prefix]} if conda else {}}
