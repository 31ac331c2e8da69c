"""The GPUs that a framework of the profile's should use."""

from __future__ import annotations

from mlcheck.engines.base import OpenImage
from mlcheck.inspect.facts import Session
from mlcheck.inspect.gpu import probe
from mlcheck.inspect.gpu.facts import Gpus
from mlcheck.inspect.registry import fact
from mlcheck.machine import gpu
from mlcheck.profile.catalog import Profile


@fact()
def gpus(image: OpenImage, profile: Profile, session: Session) -> Gpus:
    """Find the GPUs, from the machine up to a computation, as far as there are any."""
    host, refused, required = gpu.host(), session.gpu_refused, session.require_gpu
    promised = profile.expect.framework
    if refused or promised is None or not promised.cuda:
        return Gpus(host, refused, required)
    return probe.climb(image, host, promised.module, required=required)
