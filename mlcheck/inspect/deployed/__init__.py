"""An image that is deployed as a directory."""
