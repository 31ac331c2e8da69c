"""The package list of an image, and those to compare it with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mlcheck.engines import select
from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS
from mlcheck.inspect.facts import Session
from mlcheck.inspect.packages import package_list
from mlcheck.inspect.packages.facts import BasePackages, CheckedInPackages, ListedPackages
from mlcheck.inspect.registry import fact
from mlcheck.model.errors import NotApplicable, Untried, UsageError, needed
from mlcheck.model.image_ref import ImageRef
from mlcheck.profile.catalog import Profile


@fact()
def listed_packages(rootfs: RootFS, ask: Ask, profile: Profile) -> ListedPackages:
    """The package list in the image."""
    return ListedPackages(ask(package_list.read, rootfs, _path(profile)))


@fact()
def checked_in_packages(session: Session, profile: Profile) -> CheckedInPackages:
    """The checked-in copy of the package list: --package-list, or the profile's."""
    path = session.package_list
    if path is None:
        named = profile.expect.packages.checked_in
        source = profile.source("packages", "checked_in")
        if named is None or source is None:
            raise NotApplicable(
                "no checked-in copy given (--package-list FILE, or packages.checked_in)"
            )
        path = Path(source.file).parent / named
    return CheckedInPackages(package_list.read_host_file(path))


@fact()
def base_packages(image: OpenImage, session: Session, profile: Profile) -> BasePackages:
    """The package list of the image that this one extends: of --base-list, or of the base image if
    it is found beside this one."""
    path = _path(profile)
    if not profile.bases:
        raise NotApplicable(f"{profile.name} extends no other image")
    if session.base_list is not None:
        return BasePackages(package_list.read_host_file(session.base_list))
    try:
        base, engine = select.base(session.prepared.ref, profile.bases[0], image.engine)
        if same_image(base, session.prepared.ref):
            raise Untried(
                f"{base.text} is this image itself, not the base image that its profile extends",
                "Give the base image's package list with --base-list FILE.",
            )
        with select.open_image(base, engine, pull="never") as opened:
            found = package_list.read(opened.rootfs, path)
    except UsageError as error:
        why = str(error).partition("\n")[0]
        raise Untried(
            f"the base image was not found ({why})", "Give its package list with --base-list FILE."
        ) from None
    return BasePackages(dataclasses.replace(found, path=f"{base.text}{path}"))


def same_image(one: ImageRef, other: ImageRef) -> bool:
    """Return whether both references lead to one image."""
    if one.kind != other.kind:
        return False
    if one.kind == "directory":
        places = (Path(ref.location).expanduser().resolve() for ref in (one, other))
        return len(set(places)) == 1
    return (one.location, one.tag) == (other.location, other.tag)


def _path(profile: Profile) -> str:
    return needed(profile.expect.packages.list, "the profile promises no package list")
