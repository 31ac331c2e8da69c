"""Types shared by all rooms: errors, verdicts, image references, files."""
