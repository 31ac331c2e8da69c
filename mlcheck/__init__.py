"""mlcheck: a conformance test suite for machine-learning container images."""

from mlcheck.inspect.registry import fact
from mlcheck.model.rule import rule
from mlcheck.model.verdict import Finding, Verdict, judged

__version__ = "0.1.0"

DISTRIBUTION = "mlcheck-images"
"""The name of mlcheck's distribution, for pip."""

__all__ = ["DISTRIBUTION", "Finding", "Verdict", "__version__", "fact", "judged", "rule"]
