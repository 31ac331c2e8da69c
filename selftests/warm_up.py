"""What the runs of `selftests/warm.py` have loaded when they begin: pytest with the suite, whose
tests are collected once. Imported once, by the process that is forked."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import sys
import tempfile

os.environ["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"
with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as _image:
    import pytest

    pytest.main(["--collect-only", f"--image={_image}", "--profile=ml-base:alma9-python311"])

import docker  # noqa: F401
import testinfra  # noqa: F401

import mlcheck.inspect
from mlcheck.inspect.rules import all_rules

# What a run imports when it first asks for a fact or for what it left out.
for _module in pkgutil.walk_packages(mlcheck.inspect.__path__, "mlcheck.inspect."):
    if not _module.name.startswith("mlcheck.inspect.inside"):
        importlib.import_module(_module.name)
all_rules()

# It is another one where a run is in another directory.
for _name in [name for name in sys.modules if name.partition(".")[0] in ("conftest", "tests")]:
    del sys.modules[_name]
