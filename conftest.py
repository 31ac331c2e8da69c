"""Loads the plugins; everything else is in mlcheck/."""

pytest_plugins = ["mlcheck.pytest_plugin.early_scan", "mlcheck.pytest_plugin.plugin"]
