"""Jupyter's kernelspecs in an image.

The directories are those of jupyter_core (`jupyter_path`, "Common Directories and File
Locations" in its documentation) and jupyter_client's `~/.ipython/kernels`; the shape of
kernel.json is that of "Making kernels for Jupyter" in jupyter_client's documentation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mlcheck.engines.base import Ask, OpenImage, RootFS, Unreadable
from mlcheck.errors import NothingRuns
from mlcheck.facts import Environment, Kernelspec, Kernelspecs, Prefixes, Problem
from mlcheck.probes import reading
from mlcheck.probes.reading import (
    command_result,
    how_it_ended,
    load_json,
    on_path,
    path_of,
    shortened,
)

SIZE_LIMIT = 1024 * 1024
"""Bytes of one kernel.json; real ones have half a KB."""

COMMAND_LIMIT_S = 120.0
OUTPUT_LIMIT = 16 * 1024 * 1024

_SYSTEM = ("/usr/local/share/jupyter", "/usr/share/jupyter")


def probe(image: OpenImage, static: Ask, environments: Prefixes | None = None) -> Kernelspecs:
    """Read every kernelspec, and ask `jupyter kernelspec list` where there is one.

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
    """What can be read without running anything: all but Jupyter's own list.

    Args:
        environments: whose kernels are looked for too, behind those that a Jupyter finds that
            the image's PATH starts.

    Raises:
        ProbeError: this machine forbids reading a directory or file.
    """
    env = environment.env
    searched = _directories(rootfs, env, environments)
    specs: list[Kernelspec] = []
    problems: list[Problem] = []
    for directory in searched:
        for name in rootfs.listdir(directory):
            path = f"{directory}/{name}/kernel.json"
            # A directory without one is no kernelspec, and no fault either.
            if rootfs.resolve(path).file is None:
                continue
            try:
                specs.append(_kernelspec(rootfs, name, path, path_of(env)))
            except Unreadable as unreadable:
                problems.append(Problem(unreadable.path, unreadable.what))
    return Kernelspecs(tuple(specs), searched, None, problems=tuple(problems))


def _directories(
    rootfs: RootFS, env: Mapping[str, str], environments: Prefixes | None
) -> tuple[str, ...]:
    """Where Jupyter looks for kernels; each real directory once."""
    homes = [env.get("HOME", ""), "/root", *(f"/home/{name}" for name in rootfs.listdir("/home"))]
    prefix = env.get("CONDA_PREFIX", "")
    if not prefix and (python := on_path(rootfs, "python3", path_of(env))):
        prefix = python.rpartition("/")[0].rpartition("/")[0]
    user = env.get("JUPYTER_DATA_DIR") or (
        f"{env['XDG_DATA_HOME']}/jupyter" if env.get("XDG_DATA_HOME") else ""
    )
    data = [
        *env.get("JUPYTER_PATH", "").split(":"),
        user,
        *(f"{home}/.local/share/jupyter" for home in homes if home),
        f"{prefix}/share/jupyter",
        *_SYSTEM,
        *(f"{one.path}/share/jupyter" for one in (environments.found if environments else ())),
    ]
    kernels = [f"{directory.rstrip('/')}/kernels" for directory in data]
    kernels += [f"{home}/.ipython/kernels" for home in homes if home]
    found: dict[str, str] = {}
    for path in kernels:
        # What is relative depends on the working directory of the server.
        if path.startswith("/") and path != "/kernels":
            found.setdefault(rootfs.resolve(path).final_path, path)
    return tuple(found.values())


def _kernelspec(rootfs: RootFS, name: str, path: str, path_env: str) -> Kernelspec:
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
    return Kernelspec(
        name=name,
        path=path,
        argv=tuple(argv),
        display_name=spec["display_name"],
        language=spec["language"],
        metadata=metadata,
        env=env,
        argv0=on_path(rootfs, argv[0], path_env),
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
    """What `jupyter kernelspec list` shows; or None and why."""
    if static(reading.on_path, image.rootfs, "jupyter", path_of(image.environment.env)) is None:
        return None, "jupyter is not on the image's PATH"
    argv = ["jupyter", "kernelspec", "list", "--json"]
    try:
        done = image.run(argv, limit_s=COMMAND_LIMIT_S, output_limit=OUTPUT_LIMIT)
    except NothingRuns as error:
        return None, error.what
    result = command_result(done)
    if result.ended != "exited" or result.exit_code != 0:
        return None, f"jupyter kernelspec list {how_it_ended(result, COMMAND_LIMIT_S)}"
    # Something else may print lines of its own around the answer.
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
