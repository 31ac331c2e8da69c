"""Reports: results formatted for people and programs."""
