"""Promised files, scripts, and the size of an image."""
