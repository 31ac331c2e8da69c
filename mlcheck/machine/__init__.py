"""This machine: cache directory, GPUs, process environment, cleaning up."""
