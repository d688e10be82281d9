"""Claims as batches of the ledger: parts before their header, claims in order, cut where a batch is full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from homefed.api.canonical import canonical
from homefed.api.ledger_answers import MAX_BATCH_ITEMS
from homefed.ledger_client.documents import Submission

MAX_BATCH_BYTES: Final = 6 * 2**20
"""Below the ledger's limit of 8 MiB; one part has less than 1 MB."""


@dataclass(frozen=True)
class Item:
    """One item of a batch; `claim`: which of the submissions it is of."""

    claim: int
    body: bytes
    is_header: bool


def batches(claims: Sequence[Submission]) -> Iterator[list[Item]]:
    """The items of all claims, in order. A claim may begin in one batch and end in a later one."""
    batch: list[Item] = []
    size = 0
    for item in _items(claims):
        if batch and (len(batch) == MAX_BATCH_ITEMS or size + len(item.body) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.body)
    if batch:
        yield batch


def encode(batch: Sequence[Item]) -> bytes:
    """The request's body."""
    return b'{"items":[' + b",".join(item.body for item in batch) + b"]}"


def _items(claims: Sequence[Submission]) -> Iterator[Item]:
    for index, claim in enumerate(claims):
        for number, document in enumerate(claim.parts, 1):
            head = canonical({"claim": claim.claim_id, "kind": "part", "part": number})
            yield Item(index, head[:-1] + b',"document":' + document + b"}", is_header=False)
        header = {"envelope": claim.envelope.to_json(), "id": claim.claim_id, "kind": "claim"}
        yield Item(index, canonical(header), is_header=True)
