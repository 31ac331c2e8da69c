"""An image that serves: its user, its start, its server."""
