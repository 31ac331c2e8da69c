"""Jupyter's kernelspecs in an image.

The shape of kernel.json is that of "Making kernels for Jupyter" in jupyter_client's documentation.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Mapping

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.image.api import RootFS, Unreadable
from mlcheck.inspect import answers
from mlcheck.inspect.answers import (
    command_result,
    how_it_ended,
    load_json,
    on_path,
    path_of,
    shortened,
)
from mlcheck.inspect.jupyter.data_directories import data_directories, jupyter_prefix
from mlcheck.inspect.jupyter.facts import Kernelspec, Kernelspecs
from mlcheck.inspect.prefix.facts import Prefixes
from mlcheck.model.environment import Environment
from mlcheck.model.errors import NothingRuns
from mlcheck.model.files import Problem

SIZE_LIMIT = 1024 * 1024
"""Bytes of one kernel.json; real ones have half a KB."""

COMMAND_LIMIT_S = 120.0
OUTPUT_LIMIT = 16 * 1024 * 1024


def probe(image: OpenImage, static: Ask, environments: Prefixes | None = None) -> Kernelspecs:
    """Read every kernelspec, and run `jupyter kernelspec list` if there is one.

    Args:
        environments: see `from_files`.

    Raises:
        EngineError: the engine could not run jupyter.
        ProbeError: this machine forbids reading a directory or file.
    """
    found = static(from_files, image.rootfs, image.environment, environments)
    listed, note = _listed(image, static)
    return dataclasses.replace(found, listed=listed, note=note)


def from_files(
    rootfs: RootFS, environment: Environment, environments: Prefixes | None = None
) -> Kernelspecs:
    """Read all that needs no command: everything but Jupyter's own list.

    Args:
        environments: environments whose kernels are added, after those that a Jupyter on the
            image's PATH finds.

    Raises:
        ProbeError: this machine forbids reading a directory or file.
    """
    env = environment.env
    searched, of_all = _directories(rootfs, environment, environments)
    specs: list[Kernelspec] = []
    problems: list[Problem] = []
    first: dict[str, str] = {}
    shadowed: dict[str, str] = {}
    for directory in searched:
        there: dict[str, str] = {}
        for name in rootfs.listdir(directory):
            path = f"{directory}/{name}/kernel.json"
            # A directory without one is no kernelspec, and no fault either.
            if rootfs.resolve(path).file is None:
                continue
            # As `KernelSpecManager.find_kernel_specs` does it.
            if name.lower() in first and directory in of_all:
                shadowed[path] = first[name.lower()]
                continue
            there[name.lower()] = path
            try:
                specs.append(_kernelspec(rootfs, name.lower(), path, env))
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
        if of_all.get(directory):
            first = there | first
    return Kernelspecs(tuple(specs), searched, None, problems=tuple(problems), shadowed=shadowed)


def _directories(
    rootfs: RootFS, environment: Environment, environments: Prefixes | None
) -> tuple[tuple[str, ...], dict[str, bool]]:
    """Return the directories that are searched for kernels, each real directory once; and those
    that the Jupyter on PATH searches, with True for those that it searches for every user."""
    prefix = jupyter_prefix(rootfs, environment.env)
    others = [f"{one.path}/share/jupyter" for one in (environments.found if environments else ())]
    searched = data_directories(rootfs, environment, prefix)
    found: dict[str, str] = {}
    of_all: dict[str, bool] = {}
    for directory, for_all in [*searched, *((other, None) for other in others)]:
        path = f"{directory.rstrip('/')}/kernels"
        # A relative path depends on the working directory of the server.
        if path.startswith("/") and path != "/kernels":
            final = rootfs.resolve(path).final_path
            if final not in found and for_all is not None:
                of_all[path] = for_all
            found.setdefault(final, path)
    return tuple(found.values()), of_all


_TEMPLATE = re.compile(r"\{([A-Za-z0-9_]+)\}")


def started(argv0: str, path: str, prefix: str) -> str:
    """Return the program that Jupyter starts for the first word of argv: as `format_kernel_cmd` of
    jupyter_client replaces the names in it.

    Args:
        path: of kernel.json.
        prefix: of the Python that Jupyter runs on.
    """
    known = {"resource_dir": path.rpartition("/")[0], "prefix": prefix}
    return _TEMPLATE.sub(lambda match: known.get(match[1], match[0]), argv0)


def _kernelspec(rootfs: RootFS, name: str, path: str, image_env: Mapping[str, str]) -> Kernelspec:
    spec = load_json(rootfs.read(path, SIZE_LIMIT), path)
    if not isinstance(spec, dict):
        raise Unreadable(path, f"is no kernelspec: $ is {_kind(spec)}, expected an object")
    argv = spec.get("argv")
    if not isinstance(argv, list) or not argv:
        raise _wrong(path, "argv", spec, "a list of one or more words")
    for index, word in enumerate(argv):
        if not isinstance(word, str):
            raise Unreadable(path, f"is no kernelspec: $.argv[{index}] is {_kind(word)}, not text")
    for key in ("display_name", "language"):
        if not isinstance(spec.get(key), str):
            raise _wrong(path, key, spec, "text")
    metadata, env = spec.get("metadata", {}), spec.get("env", {})
    if not isinstance(metadata, dict):
        raise _wrong(path, "metadata", spec, "an object")
    if not isinstance(env, dict):
        raise _wrong(path, "env", spec, "an object")
    for key, value in env.items():
        if not isinstance(value, str):
            where = f"$.env[{shortened(key)}]"
            raise Unreadable(path, f"is no kernelspec: {where} is {_kind(value)}, not text")
    if spec.get("interrupt_mode", "signal") not in ("signal", "message"):
        raise _wrong(path, "interrupt_mode", spec, '"signal" or "message"')
    # The program is searched in the PATH that it gets, in which a kernel.json may use the image's.
    its_path = string.Template(env["PATH"]).safe_substitute(image_env) if "PATH" in env else None
    program = started(argv[0], path, jupyter_prefix(rootfs, image_env))
    return Kernelspec(
        name=name,
        path=path,
        argv=tuple(argv),
        display_name=spec["display_name"],
        language=spec["language"],
        metadata=metadata,
        env=env,
        argv0=on_path(rootfs, program, its_path or path_of(image_env)),
    )


def _wrong(path: str, key: str, spec: dict[str, object], expected: str) -> Unreadable:
    found = _kind(spec[key]) if key in spec else "missing"
    return Unreadable(path, f"is no kernelspec: $.{key} is {found}, expected {expected}")


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool() | int() | float() | str():
            return shortened(str(value), 40)
        case list():
            return "a list" if value else "an empty list"
        case _:
            return "an object"


def _listed(image: OpenImage, static: Ask) -> tuple[Mapping[str, str] | None, str]:
    """Return the list of `jupyter kernelspec list`, or None and the reason."""
    if static(answers.on_path, image.rootfs, "jupyter", path_of(image.environment.env)) is None:
        return None, "jupyter is not on the image's PATH"
    argv = ["jupyter", "kernelspec", "list", "--json"]
    try:
        done = image.run(argv, limit_s=COMMAND_LIMIT_S, output_limit=OUTPUT_LIMIT)
    except NothingRuns as error:
        return None, error.what
    result = command_result(done)
    if result.ended != "exited" or result.exit_code != 0:
        return None, f"jupyter kernelspec list {how_it_ended(result, COMMAND_LIMIT_S)}"
    # Other programs may print lines around the answer.
    start, end = f"\n{result.stdout}".find("\n{"), result.stdout.rfind("}")
    try:
        answer = load_json(result.stdout[max(start, 0) : end + 1].encode(), "its answer")
    except Unreadable as unreadable:
        return None, f"jupyter kernelspec list --json: {unreadable}"
    specs = answer.get("kernelspecs") if isinstance(answer, dict) else None
    if not isinstance(specs, dict):
        return None, "jupyter kernelspec list --json: its answer has no object $.kernelspecs"
    listed: dict[str, str] = {}
    for name, spec in specs.items():
        directory = spec.get("resource_dir") if isinstance(spec, dict) else None
        if not isinstance(directory, str):
            return None, f"jupyter kernelspec list --json: no resource_dir for {shortened(name)}"
        listed[name] = directory
    return listed, ""
