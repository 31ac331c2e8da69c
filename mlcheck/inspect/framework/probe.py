"""TensorFlow or torch in an image: its build, its devices, and a product of two matrices."""

from __future__ import annotations

import math
import secrets
from typing import Any

from mlcheck.engines.base import OpenImage
from mlcheck.image.api import Unreadable
from mlcheck.inspect.answers import TOKEN_BYTES, command_result, how_it_ended, load_json
from mlcheck.inspect.framework.facts import Computation, Framework

LIMIT_S = 300.0
"""Seconds; TensorFlow takes 10 to be imported, and may compile for a new GPU for minutes."""

OUTPUT_LIMIT = 16 * 1024 * 1024

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable with the devices that the driver shows to a process; none if it is empty."""

SIZE = 8
"""Rows and columns of the matrices."""

# Whole numbers so small that every format that a GPU multiplies in (TF32 among them) is exact.
_PROGRAM = """\
import json, os, sys, traceback, warnings
token, module, use_gpu = sys.argv[1], sys.argv[2], sys.argv[3] == "gpu"
size = {size}
a = [[float((3 * i + j) % 7 - 3) for j in range(size)] for i in range(size)]
b = [[float((i + 5 * j) % 9 - 4) for j in range(size)] for i in range(size)]
def tell(**said):
    os.write(1, ("\\n" + token + " " + json.dumps(said) + "\\n").encode())
def tensorflow():
    import tensorflow as tf
    info = getattr(tf.sysconfig, "get_build_info", dict)()
    tell(version=str(tf.__version__), cuda_build=bool(tf.test.is_built_with_cuda()),
         cuda=info.get("cuda_version"))
    count = len(tf.config.list_physical_devices("GPU"))
    tell(devices=count)
    tf.config.set_soft_device_placement(False)
    for key, device in (("cpu", "/CPU:0"), ("gpu", "/GPU:0")):
        if key == "cpu" or (use_gpu and count):
            with tf.device(device):
                c = tf.matmul(tf.constant(a), tf.constant(b))
            tell(**{{key: [c.device, c.numpy().tolist()]}})
def torch():
    import torch
    tell(version=str(torch.__version__), cuda_build=torch.version.cuda is not None,
         cuda=torch.version.cuda)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    tell(devices=count)
    for key, device in (("cpu", "cpu"), ("gpu", "cuda:0")):
        if key == "cpu" or (use_gpu and count):
            c = torch.tensor(a, device=device) @ torch.tensor(b, device=device)
            tell(**{{key: [str(c.device), c.cpu().tolist()]}})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        {{"tensorflow": tensorflow, "torch": torch}}[module]()
    except BaseException as error:
        tell(error=traceback.format_exception_only(type(error), error)[-1].strip()[-2000:])
    tell(done=True, warnings=[str(warning.message)[:1000] for warning in caught][:20])
sys.stderr.flush()
os._exit(0)
"""


def probe(
    image: OpenImage,
    module: str,
    *,
    gpu: bool = False,
    visible: str | None = None,
    python: str = "python3",
) -> Framework:
    """Import a framework and let it compute on the CPU.

    Args:
        module: "tensorflow" or "torch".
        gpu: compute on the first GPU too, if it sees one.
        visible: value for CUDA_VISIBLE_DEVICES, or None to leave it as in the image.

    Raises:
        EngineError: the engine could not start Python.
    """
    token = secrets.token_hex(TOKEN_BYTES)
    env = {} if visible is None else {VISIBLE: visible}
    result = command_result(
        image.run(
            [python, "-I", "-c", _PROGRAM.format(size=SIZE), token, module, "gpu" if gpu else ""],
            env=env,
            limit_s=LIMIT_S,
            output_limit=OUTPUT_LIMIT,
        )
    )
    said = answers(result.stdout, token)
    error = said.get("error")
    if said.get("done") is not True:
        error = f"{python} {how_it_ended(result, LIMIT_S)}"
    warnings = said.get("warnings")
    told = [str(warning) for warning in warnings] if isinstance(warnings, list) else []
    told += [line.strip()[:500] for line in result.stderr.splitlines() if line.strip()][-5:]
    devices = said.get("devices")
    return Framework(
        module,
        _text(said.get("version")),
        said.get("cuda_build") if isinstance(said.get("cuda_build"), bool) else None,
        _text(said.get("cuda")),
        devices if isinstance(devices, int) else None,
        computation(said.get("cpu")),
        computation(said.get("gpu")),
        exact(),
        str(error or ""),
        tuple(told),
    )


def answers(stdout: str, token: str) -> dict[str, Any]:
    """Merge a program's lines `TOKEN {...}`; other lines are ignored."""
    found: dict[str, Any] = {}
    for line in stdout.split("\n"):
        if line.startswith(f"{token} "):
            try:
                said = load_json(line.partition(" ")[2].encode(), "its answer")
            except Unreadable:
                continue
            found.update(said if isinstance(said, dict) else {})
    return found


def exact() -> tuple[tuple[int, ...], ...]:
    """Return the product of the program's two matrices."""
    span = range(SIZE)
    a = [[(3 * i + j) % 7 - 3 for j in span] for i in span]
    b = [[(i + 5 * j) % 9 - 4 for j in span] for i in span]
    return tuple(tuple(sum(a[i][k] * b[k][j] for k in span) for j in span) for i in span)


def computation(said: Any) -> Computation | None:
    """Return the answer `[device, rows]`, or None if it is malformed."""
    match said:
        case [str(device), list(rows)] if all(_is_row(row) for row in rows):
            return Computation(device, tuple(tuple(float(x) for x in row) for row in rows))
    return None


def _is_row(row: object) -> bool:
    return isinstance(row, list) and all(
        isinstance(x, (int, float)) and math.isfinite(x) for x in row
    )


def _text(value: object) -> str | None:
    return value[:100] if isinstance(value, str) else None
