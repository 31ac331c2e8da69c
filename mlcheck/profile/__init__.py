"""Profiles: descriptions of images as their maintainers promise them."""
