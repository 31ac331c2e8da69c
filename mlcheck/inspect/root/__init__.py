"""ROOT: root-config, PyROOT, a compiled program."""
