"""Loads the plugin; everything else is in mlcheck/."""

pytest_plugins = ["mlcheck.plugin"]
