"""Speaks to the ledger service: hub, agent and command line share it."""

from homefed.ledger_client.client import LedgerClient
from homefed.ledger_client.documents import Chain, Claim, Receipt, Submission, Submitted

__all__ = ["Chain", "Claim", "LedgerClient", "Receipt", "Submission", "Submitted"]
