"""Facts about a framework that a profile names: build, own check, CUDA libraries, hints."""

from __future__ import annotations

from mlcheck.engines.base import Ask, OpenImage
from mlcheck.inspect.facts import Session
from mlcheck.inspect.framework import cuda, probe
from mlcheck.inspect.framework.facts import CudaLibraries, Framework, Hints, ScriptAnswer
from mlcheck.inspect.prefix.facts import PrefixPath
from mlcheck.inspect.registry import fact
from mlcheck.model.errors import needed
from mlcheck.profile.catalog import Profile

_NO_FRAMEWORK = "the profile promises no framework"


@fact(runs=True)
def framework(image: OpenImage, profile: Profile) -> Framework:
    """Import the promised framework, and let it compute on the CPU."""
    return probe.probe(image, needed(profile.expect.framework, _NO_FRAMEWORK).module)


@fact(runs=True)
def script_answer(image: OpenImage, profile: Profile) -> ScriptAnswer:
    """The image's own check of its framework."""
    promised = needed(profile.expect.framework, _NO_FRAMEWORK)
    why = "the profile promises no script that checks the framework"
    return ScriptAnswer(cuda.script(image, needed(promised.script, why)))


@fact()
def cuda_libraries(
    image: OpenImage, ask: Ask, prefix: PrefixPath, profile: Profile, session: Session
) -> CudaLibraries:
    """Find the framework's CUDA libraries, and those of the driver in the image."""
    promised = needed(profile.expect.framework, _NO_FRAMEWORK)
    given = cuda.mount_points(image) if session.start.gpu else frozenset[str]()
    return ask(cuda.probe, image, prefix, promised.module, promised.opens, given)


@fact(runs=True)
def hints(image: OpenImage, profile: Profile) -> Hints:
    """Run the hint scripts."""
    promised = profile.expect.framework
    return cuda.hints(image, promised.hints if promised else ())
