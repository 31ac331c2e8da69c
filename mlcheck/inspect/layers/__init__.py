"""The layers of an image: wasted bytes, and files that must not be in one."""
