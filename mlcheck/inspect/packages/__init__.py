"""Packages: listed, installed, requested, imported."""
