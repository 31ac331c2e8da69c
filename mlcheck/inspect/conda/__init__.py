"""The files of conda's packages, against conda's records."""
