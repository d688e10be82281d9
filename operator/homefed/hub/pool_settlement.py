"""Settlement of one home in one pool: what is due is decided by `core.settlement`, written, sent and receipted here.

Every step is derived from what is written, so that the hub may be killed after any write: claims are objects in the
mailbox before they are sent, and what was accepted, held and released so far stands in them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse, meta, names
from homefed.api.errors import HomefedError, Incident
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import claim_building, claim_chain, conditions, held, rates, readings, settlement, standstill, windows
from homefed.core.claim_chain import Claim, Payee
from homefed.core.findings import Finding
from homefed.core.held import Release
from homefed.core.rewards import observation
from homefed.core.settlement import Inputs, Settle, Wait
from homefed.core.windows import Window
from homefed.hub.alarms import Alarms
from homefed.hub.books import Book, open_book
from homefed.hub.claims import Claims
from homefed.hub.clearing import Clearing
from homefed.hub.corrections import Corrections
from homefed.hub.ledger_gate import LedgerGate
from homefed.hub.meter_gaps import MeterGaps
from homefed.hub.reports import Mailbox, Reports
from homefed.kube.client import KubeClient
from homefed.kube.resources import REWARDCLAIMS

logger = logging.getLogger(__name__)
Json = dict[str, Any]

SETTLED: Final = "Settled"
TOLD_AFTER_SECONDS: Final = 30
"""So long a missing report is nothing to speak of: it is on its way."""
CLAIMS_PER_PASS: Final = 100

FINE: Final = Finding(conditions.TRUE, SETTLED, "Every window that has passed is settled, and receipted by the ledger.")


@dataclass(frozen=True)
class Outcome:
    """What a pass over one home in one pool came to."""

    finding: Finding
    again: int = 0
    """Second before which nothing more is to be done."""
    alarming: bool = False

    @classmethod
    def of(cls, error: HomefedError) -> Outcome:
        """What the ledger's answer, or its absence, comes to."""
        found = Finding(conditions.FALSE, error.reason, standstill.sentence(error))
        return cls(found, alarming=standstill.alarming(error))


class PoolSettlement:
    """One per hub operator."""

    def __init__(
        self,
        client: KubeClient,
        ledger: LedgerGate,
        key: Ed25519PrivateKey,
        federation: str,
        alarms: Alarms,
        is_observed: Callable[[Json, datetime], bool],
    ) -> None:
        self._client, self._ledger, self._key = client, ledger, key
        self._federation, self._is_observed = federation, is_observed
        public = key.public_key().public_bytes_raw()
        self.keys: Mapping[str, bytes] = {dsse.fingerprint(public): public}
        self.claims = Claims(client, ledger)
        self.gaps = MeterGaps()
        self._reports = Reports(federation)
        self._clearing = Clearing(client, self.claims, self._reports)
        self._corrections = Corrections(alarms, self._write, key.private_bytes_raw())

    async def settle(self, mailbox: Mailbox, pool: str, found: Json | None, book: Book, now: datetime) -> Outcome:
        """What is due of a home in a pool (None: it is gone). Errors: the API server's; Incident stands still."""
        if found is None:
            message = f"SchedulingPool {pool} is gone: its windows have no price."
            return Outcome(Finding(conditions.FALSE, "PoolGone", message))
        if behind := sum(not self._is_observed(guest, now) for guest in mailbox.guests):
            logger.info("settlement of %s waits: %d guests are being observed", mailbox.name, behind)
            return Outcome(FINE)
        spec = meta.parse(SchedulingPoolSpec, found["spec"], where="spec")
        if book.broken is not None:
            raise book.broken
        payee = self._payee(mailbox, pool, spec)
        await self._verify(mailbox, payee, book, now)
        trouble = await self._push(book, now)
        inputs, refused = self._inputs(mailbox, pool, spec, book)
        await self._corrections.apply(mailbox, payee, book, inputs)
        step, inputs = await self._settle_windows(mailbox, payee, book, inputs, now)
        if step is None:
            await self._release(mailbox, payee, book, inputs, int(now.timestamp()))
        trouble = trouble or await self._push(book, now)
        if trouble is not None:
            return Outcome.of(trouble)
        if isinstance(step, Settle):
            return Outcome(FINE)
        if isinstance(step, Wait):
            return _waiting(pool, step, refused, int(now.timestamp()))
        return await self._clear(mailbox, pool, book, replace(inputs, chain=book.chain), int(now.timestamp()))

    def _inputs(self, mailbox: Mailbox, pool: str, spec: SchedulingPoolSpec, book: Book) -> tuple[Inputs, str]:
        """And which reports are refused, as a text."""
        guests = [observation(obj) for obj in mailbox.guests if obj["spec"]["poolName"] == pool]
        parts, refused = self._reports.parts(mailbox, pool, book.chain.reports - book.reports_taken_back)
        reports = readings.assemble(parts)
        return Inputs(self._federation, mailbox.home_uid, spec, guests, reports, book.chain), refused

    async def _settle_windows(
        self, mailbox: Mailbox, payee: Payee, book: Book, inputs: Inputs, now: datetime
    ) -> tuple[settlement.Decision, Inputs]:
        """Window after window, as many as one pass may: the step that comes next."""
        step: settlement.Decision = None
        for _ in range(CLAIMS_PER_PASS):
            inputs = replace(inputs, chain=book.chain)
            step = settlement.decide(inputs, int(now.timestamp()))
            if not isinstance(step, Settle):
                break
            await self._settle_window(mailbox, payee, book, inputs, step)
        return step, inputs

    async def _settle_window(self, mailbox: Mailbox, payee: Payee, book: Book, inputs: Inputs, step: Settle) -> None:
        own, secret = _priced(payee, inputs, step.window), self._key.private_bytes_raw()
        claim = claim_building.build(own, book.chain, step.window, step.lines, step.reports, secret)
        await self._write(mailbox, book, claim)
        for stranger in step.strangers:
            self._reports.tell_once(
                stranger, f"{mailbox.name}: reported pod {stranger} is no guest of this home", "UnknownPod"
            )

    async def _release(self, mailbox: Mailbox, payee: Payee, book: Book, inputs: Inputs, now: int) -> None:
        """Of the held-back share what is due, or all of it as the home leaves, where no work brings a claim."""
        window = _release_window(mailbox, payee.release, inputs, now)
        if window is None:
            return
        own = _priced(payee, inputs, window)
        if _left(mailbox, inputs, now):
            own = replace(own, release="all")
        await self._write(mailbox, book, claim_building.build(own, book.chain, window, [], [], b""))

    async def _clear(self, mailbox: Mailbox, pool: str, book: Book, inputs: Inputs, now: int) -> Outcome:
        await self._clearing.clear(mailbox, pool, book, inputs, now)
        length, grace = inputs.pool.settlement.window_seconds, settlement.grace_of(inputs)
        return Outcome(FINE, windows.floor(now - grace, length) + length + grace)

    def _payee(self, mailbox: Mailbox, pool: str, spec: SchedulingPoolSpec) -> Payee:
        terms, metadata = spec.settlement, mailbox.home["metadata"]
        return Payee(
            self._federation,
            pool,
            mailbox.home_uid,
            fee_ppm=terms.fee_ppm,
            held_schedule=terms.held_back,
            joined=windows.seconds(metadata["creationTimestamp"]),
            hold_months=terms.release_after_months,
            release="none" if names.ANNOTATION_WITHHOLD in (metadata.get("annotations") or {}) else "due",
        )

    async def _verify(self, mailbox: Mailbox, payee: Payee, book: Book, now: datetime) -> None:
        """Before the first settlement after a start, and after an answer that stops: does the ledger's chain agree
        with ours? What it has of ours beyond that is taken over, which can also be the remedy."""
        if self._ledger.incident is not None:
            raise self._ledger.incident
        if book.verified or not self._ledger.configured:
            return
        try:
            foreign, place = await self.claims.compare(payee, book.digests, book.newest, self.keys, now)
        except HomefedError as error:
            if book.stopped is None or isinstance(error, Incident):
                raise
            raise book.stopped from error  # that the ledger is away as well is not what a person has to see to
        if foreign:
            first = foreign[0].claim.header.sequence
            ours = [one for one in book.pending if one.header["spec"]["sequence"] >= first]
            for one in ours:
                await self.claims.forget(mailbox.name, one.name, len(one.parts))
            for adopted in foreign:
                await self.claims.adopt(mailbox.name, adopted)
            objects = (await self._client.list(REWARDCLAIMS, mailbox.name)).items
            vars(book).update(vars(open_book(objects, payee.pool, self.keys)))
            if book.broken is not None:
                raise book.broken
        if book.stopped is not None:
            raise book.stopped
        if place is not None and book.last is not None and place.digest == book.last.digest:
            void = await self.claims.is_void(book.last, now)
            chain = book.chain.without(book.last) if void else book.chain
            book.chain = replace(chain, cumulative_paid=place.cumulative_paid)
        book.verified = True

    async def _push(self, book: Book, now: datetime) -> HomefedError | None:
        """Send what has no receipt, in order. Trouble is returned: windows are settled while the ledger is down, too.

        After an answer that stops nothing is sent again before the chain has been compared; see `_verify`.
        """
        if not book.pending:
            return None
        sent, trouble = await self.claims.push(book.pending, now)
        names_ = {one.name for one in book.pending[:sent]}
        receipted = int(now.timestamp())
        book.kept = [replace(kept, receipted=receipted) if kept.name in names_ else kept for kept in book.kept]
        del book.pending[:sent]
        book.verified = trouble is None or not standstill.stops(trouble)
        return trouble

    async def _write(self, mailbox: Mailbox, book: Book, claim: Claim, taken_back: Claim | None = None) -> None:
        """Write the next claim of the chain, signed; `taken_back`: the one that it reverses."""
        parts, header = claim_chain.objects(claim, mailbox.name, self._key)
        book.enter(claim, await self.claims.write(parts, header), taken_back)
        self.gaps.observe(mailbox.home["metadata"]["name"], claim.lines)
        logger.info("claim %s of %s: %s µcredit", claim.name, mailbox.name, claim.header.charged)


def _priced(payee: Payee, inputs: Inputs, window: Window) -> Payee:
    """With what holds in the window: its held-back share, and the card in force."""
    card = rates.in_force(inputs.pool, window.start)
    return replace(payee.at(window), rate_card_digest=rates.card_digest(card))


def _waiting(pool: str, step: Wait, refused: str, now: int) -> Outcome:
    told = now >= step.since + TOLD_AFTER_SECONDS
    message = f"{pool}: {step.message}" + (f" (refused: {refused})" if refused else "")
    return Outcome(Finding(conditions.FALSE, step.reason, message) if told else FINE)


def _left(mailbox: Mailbox, inputs: Inputs, now: int) -> bool:
    """The home is being deleted, and all that its guests did is in claims: the end of a membership in good order."""
    if "deletionTimestamp" not in mailbox.home["metadata"]:
        return False
    return all(one.ended is not None and not settlement.owed(inputs, one, now) for one in inputs.guests)


def _release_window(mailbox: Mailbox, release: Release, inputs: Inputs, now: int) -> Window | None:
    """The window of a claim without lines; None where nothing is to be released."""
    chain, length = inputs.chain, inputs.pool.settlement.window_seconds
    if release == "none" or chain.end is None or not chain.held:
        return None
    end = windows.floor(now - settlement.grace_of(inputs), length)
    if end > chain.end and held.due(chain.held, end):
        return Window(max(chain.end, end - length), end)
    return Window(chain.end, now) if now > chain.end and _left(mailbox, inputs, now) else None
