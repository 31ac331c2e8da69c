"""How fast mlcheck is, against its peers in the same run. `make bench` runs them all."""
