"""The commands of `mlcheck` that are about images."""
