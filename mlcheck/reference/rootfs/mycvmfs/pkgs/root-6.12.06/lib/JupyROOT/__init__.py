"""Stand-in for ROOT's package for notebooks."""  # noqa: N999
