"""Claims that are taken back by the organiser's word, and settled again as the next revision of their window.

    annotated claim ─▶ reversal ─▶ the claim that takes its place ─▶ both to the ledger, in order

What is to be done follows from what is written: a claim that is annotated and not reversed is reversed; a reversal
without a next revision gets one. A hub that is killed in between goes on there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from homefed.api.errors import Refused
from homefed.core import claim_building, correction, rates
from homefed.core.claim_chain import Claim, Payee
from homefed.core.settlement import Inputs
from homefed.hub.alarms import Alarms
from homefed.hub.books import Asked, Book, Reopened
from homefed.hub.reports import Mailbox

logger = logging.getLogger(__name__)
Write = Callable[[Mailbox, Book, Claim, Claim | None], Awaitable[None]]


class Corrections:
    """`write` writes the next claim of a book, with the one that it takes back; `secret` is that of the salts."""

    def __init__(self, alarms: Alarms, write: Write, secret: bytes) -> None:
        self._alarms, self._write, self._secret = alarms, write, secret

    async def apply(self, mailbox: Mailbox, payee: Payee, book: Book, inputs: Inputs) -> None:
        """All that is asked of this chain. What cannot be taken back is told as an event on the Home."""
        while book.asked:
            asked = book.asked[0]
            try:
                await self._take_back(mailbox, book, asked)
            except Refused as error:
                message = f"claim {asked.claim.name} is not taken back: {error.message}"
                await self._alarms.tell(mailbox.home, error.reason, message, "Warning")
            book.asked.pop(0)
        while book.reopened:
            await self._settle_again(mailbox, payee, book, book.reopened[0], inputs)
            book.reopened.pop(0)

    async def _take_back(self, mailbox: Mailbox, book: Book, asked: Asked) -> None:
        correction.check(asked.claim.header)
        taken = claim_building.reversal(asked.claim.header, book.chain)
        await self._write(mailbox, book, taken, asked.claim)
        book.reopened.append(Reopened(taken, asked.claim, asked.how))
        message = f"{asked.claim.name} ({asked.claim.header.charged} µcredit): {asked.reason}"
        await self._alarms.tell(mailbox.home, "ClaimTakenBack", message)

    async def _settle_again(
        self, mailbox: Mailbox, payee: Payee, book: Book, reopened: Reopened, inputs: Inputs
    ) -> None:
        before, header = reopened.taken_back, reopened.reversal.header
        lines, reports = correction.again(replace(inputs, chain=book.chain), before, reopened.how)
        card = rates.in_force(inputs.pool, before.window.start)
        own = replace(payee.at(before.window), rate_card_digest=rates.card_digest(card))
        claim = claim_building.build(
            own,
            book.chain,
            before.window,
            lines,
            reports,
            self._secret,
            revision=header.revision + 1,
        )
        await self._write(mailbox, book, claim, None)
