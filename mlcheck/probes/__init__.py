"""Probes: each reads and parses one thing and judges nothing."""
