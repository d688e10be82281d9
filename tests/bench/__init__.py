"""The figures that HomeFed promises, measured on the testbed's real clusters: `make bench`."""
