"""GPUs, from the machine up to a computation."""
