"""`python -m mlcheck`."""

from __future__ import annotations

import sys

from mlcheck.cli.main import main

sys.exit(main([*sys.argv[1:]] or ["--help"]))
