"""Handlers of what is submitted: one document, one lines part, or a batch of them. All of it is for submitters only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from homefed.api import ledger_answers as answers
from homefed.api.canonical import canonical
from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import MAX_PARTS
from homefed.api.errors import HomefedError, Invalid
from homefed.api.meta import parse
from homefed.core.ledger_reading import Kind
from homefed.core.ledger_state import PartHeld
from homefed.ledger import problem, queries
from homefed.ledger.access import Access
from homefed.ledger.exchange import Exchange, answer, plain
from homefed.ledger.intake import Accepted, Intake
from homefed.ledger.metrics import Metrics
from homefed.ledger.reading import Document, Part, Sent
from homefed.ledger.routes import MAX_BATCH


@dataclass(frozen=True)
class Submissions:
    """Handlers are named as the operations of the route table."""

    intake: Intake
    access: Access
    metrics: Metrics

    async def put_claim(self, exchange: Exchange) -> web.Response:
        return await self._document(exchange, "claim")

    async def put_resolution(self, exchange: Exchange) -> web.Response:
        return await self._document(exchange, "resolution")

    async def put_floor(self, exchange: Exchange) -> web.Response:
        return await self._document(exchange, "floor")

    async def put_part(self, exchange: Exchange) -> web.Response:
        await self.access.submitter(exchange.credentials())
        number = part_number(exchange)
        return await self._submit(Part(exchange.texts["claim"], number, await exchange.body()))

    async def post_batch(self, exchange: Exchange) -> web.Response:
        """Always 200: the status of each item stands beside its answer."""
        await self.access.submitter(exchange.credentials())
        sent = await asyncio.to_thread(_read_batch, await exchange.body())
        found = await self.intake.submit_all(sent)
        return answer({"items": [self._item(one) for one in found]})

    async def _document(self, exchange: Exchange, kind: Kind) -> web.Response:
        await self.access.submitter(exchange.credentials())
        return await self._submit(Document(kind, exchange.texts[kind], await exchange.body()))

    async def _submit(self, sent: Sent) -> web.Response:
        accepted = await self.intake.submit(sent)
        self._count(accepted)
        return answer(_accepted(accepted), _status(accepted))

    def _item(self, one: Accepted | HomefedError) -> Mapping[str, Any]:
        if isinstance(one, HomefedError):
            self.metrics.refused(one.reason)
            return problem.document(one)
        self._count(one)
        return {"status": _status(one), **plain(_accepted(one))}

    def _count(self, accepted: Accepted) -> None:
        if accepted.new and not isinstance(accepted.answer, PartHeld):
            self.metrics.accepted(accepted.answer.kind)


def part_number(exchange: Exchange) -> int:
    """Errors: Invalid for a number that no part can have."""
    number = int(exchange.texts["part"])
    if number > MAX_PARTS:
        raise Invalid(f"part: {number}, a claim has at most {MAX_PARTS} parts", reason="InvalidField")
    return number


def _read_batch(body: bytes) -> list[Sent]:
    """Errors: Invalid, where it is no batch at all."""
    batch = parse(answers.Batch, parse_json(body, limit=MAX_BATCH), where="batch")
    return [_sent(item) for item in batch.items]


def _sent(item: answers.LeafItem | answers.PartItem) -> Sent:
    """The very bytes that would have been sent alone: both are canonical JSON."""
    if isinstance(item, answers.PartItem):
        return Part(item.claim, item.part, canonical(item.document))
    return Document(item.kind, item.id, canonical(item.envelope))


def _status(accepted: Accepted) -> int:
    return 201 if accepted.new else 200


def _accepted(accepted: Accepted) -> answers.Accepted | answers.PartAccepted:
    held = accepted.answer
    if isinstance(held, PartHeld):
        return answers.PartAccepted(claim=held.claim, part=held.number, digest=held.digest)
    return answers.Accepted(
        id=held.id,
        leaf_index=held.leaf_index,
        transaction=held.transaction,
        time=queries.moment(held.time),
        receipt=accepted.receipt,
    )
