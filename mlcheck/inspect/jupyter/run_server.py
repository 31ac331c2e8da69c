"""The server that an image starts when it is run without a command.

Its entrypoint and command, or the runscript of an image that no registry knows, are started in
the container in which other commands run: requests to the server use the same loopback device,
whatever network the engine gives to containers.
"""

from __future__ import annotations

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.jupyter.facts import JupyterServer
from mlcheck.inspect.jupyter.probe import (
    SERVER_LIMIT_S,
    ask,
    error_of,
    seconds_of,
    status_of,
    text_of,
)

_RUNSCRIPT = "/.singularity.d/runscript"


def probe(image: OpenImage, python: str, url: str, home: str) -> JupyterServer:
    """Start the image's server, and send requests to the address that it prints.

    Args:
        python: the image's own interpreter, which has tornado.
        url: regular expression for the address, with a group "token".
        home: of the image's user, whose settings count.

    Raises:
        EngineError: the engine could not run it.
    """
    argv = _argv(image)
    if not argv:
        return JupyterServer((), "the image says nothing of what it starts")
    request = {
        "do": "printed",
        "argv": argv,
        "url": url,
        "user_home": home,
        "limit_s": SERVER_LIMIT_S,
    }
    answer, trouble = ask(image, python, request, 2 * SERVER_LIMIT_S + 30)
    if trouble is not None:
        return JupyterServer(argv, trouble)
    return JupyterServer(
        argv,
        error_of(answer),
        seconds_of(answer),
        status_of(answer),
        token=text_of(answer, "token"),
    )


def _argv(image: OpenImage) -> tuple[str, ...]:
    environment = image.environment
    argv = (*(environment.entrypoint or ()), *(environment.cmd or ()))
    if not argv and image.rootfs.resolve(_RUNSCRIPT).final is not None:
        return (_RUNSCRIPT,)
    return argv
