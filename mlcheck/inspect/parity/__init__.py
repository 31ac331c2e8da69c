"""Two images that must be alike."""
