"""The operating system, Python, shells and commands of an image."""
