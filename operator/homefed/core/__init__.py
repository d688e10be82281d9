"""L1: decisions. No I/O, no clock, no randomness: the time is an argument, and equal inputs give equal answers."""
