"""The ledger service: signed claims in, balanced transfers and receipts out, once and for ever."""
