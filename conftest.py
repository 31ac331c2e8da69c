"""Loads the plugins; everything else is in mlcheck/."""

pytest_plugins = ["mlcheck.ahead", "mlcheck.plugin"]
