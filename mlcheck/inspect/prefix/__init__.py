"""Environments of conda and Python, in which packages are installed."""
