"""Figures of the ledger. `python -m bench.ledger --help`; make bench-ledger."""
