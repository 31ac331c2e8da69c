"""Measure mlcheck's speed against its peers in the same run. `make bench` runs all benchmarks."""
