"""Reports: how results are shown to people and programs."""
