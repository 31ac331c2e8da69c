"""Program that is run inside an image: one request, one answer.

Its one argument is the request: `do` (the name of a function), `token` and the arguments of that
function. The answer is one line on the standard output: the token and a JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import sys
import tempfile

from mlcheck.inspect.inside.as_user import as_user
from mlcheck.inspect.inside.cells import cells
from mlcheck.inspect.inside.common import Json, end_children, in_words
from mlcheck.inspect.inside.kernels import kernels, lists
from mlcheck.inspect.inside.printed import printed
from mlcheck.inspect.inside.server import server
from mlcheck.inspect.inside.start import start

_WORK = {fn.__name__: fn for fn in (as_user, cells, kernels, lists, printed, server, start)}


def main() -> None:
    request = json.loads(sys.argv[1])
    out = os.dup(1)
    os.dup2(2, 1)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    top = tempfile.mkdtemp(prefix="mlcheck-", dir="/tmp")
    tempfile.tempdir = top
    request["environ"] = dict(os.environ)
    os.environ.update(HOME=f"{top}/own", TMPDIR=top, JUPYTER_RUNTIME_DIR=f"{top}/runtime")
    answer: Json
    try:
        answer = asyncio.run(_WORK[request["do"]](request, top))
    except Exception as error:
        answer = {"trouble": in_words(error)}
    end_children()
    shutil.rmtree(top, ignore_errors=True)
    with open(out, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write("\n" + request["token"] + " " + json.dumps(answer) + "\n")
