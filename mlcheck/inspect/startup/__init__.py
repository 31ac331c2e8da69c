"""The start of an image: configuration, entrypoint, banner."""
