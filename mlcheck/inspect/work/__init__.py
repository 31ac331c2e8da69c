"""Small programs and notebooks that must work in an image."""
