"""Engines: each opens an image and gives its files and a way to run commands in it."""
