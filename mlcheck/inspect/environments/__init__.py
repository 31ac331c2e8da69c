"""Environments of the user's own on top of the image's."""
