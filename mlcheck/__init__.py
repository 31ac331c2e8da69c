"""mlcheck: a conformance test suite for machine-learning container images."""

__version__ = "0.1.0"

DISTRIBUTION = "mlcheck-images"
"""What pip calls mlcheck."""
