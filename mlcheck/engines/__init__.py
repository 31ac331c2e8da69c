"""Engines: each opens an image and provides its files and a way to run commands in it."""
