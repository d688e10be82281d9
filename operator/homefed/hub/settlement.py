"""Settlement: gathers what the hub knows of a home, lets `core.settlement` decide, writes and sends claims.

    settlement = Settlement(client, ledger, key, config, alarms)
    await settlement.run_pass(now)            # every few seconds, from the hub operator's tasks
    await settlement.settle("alice", now)     # one home; idempotent

Nothing is kept here that cannot be read back: claims are objects in the mailbox, and what was accepted so far stands in
their lines. A book per home and pool holds that in memory and is dropped after every error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse, meta, names
from homefed.api.errors import HomefedError, Incident
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import (
    claim_building,
    claim_chain,
    conditions,
    guest_lifecycle,
    home_key,
    readings,
    settlement,
    standstill,
    windows,
)
from homefed.core.claim_chain import Payee
from homefed.core.findings import Finding
from homefed.core.pool import rate_card_digest
from homefed.core.rewards import observation
from homefed.core.settlement import Inputs, Settle, Wait
from homefed.hub.alarms import Alarms
from homefed.hub.books import Book, read_book
from homefed.hub.claims import Claims
from homefed.hub.clearing import Clearing
from homefed.hub.config import Config
from homefed.hub.ledger_gate import Ledger, LedgerGate
from homefed.hub.reports import Mailbox, Reports
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, HOMES, REWARDCLAIMS, SCHEDULINGPOOLS, USAGEREPORTS

logger = logging.getLogger(__name__)
Json = dict[str, Any]

SETTLED: Final = "Settled"
FIELD_MANAGER: Final = "homefed-settlement"
TOLD_AFTER_SECONDS: Final = 30
"""So long a missing report is nothing to speak of: it is on its way."""
CLAIMS_PER_PASS: Final = 100

_FINE: Final = Finding(
    conditions.TRUE, SETTLED, "Every window that has passed is settled, and receipted by the ledger."
)


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


class Settlement:
    """Settles the windows of all homes. One per hub operator."""

    def __init__(
        self,
        client: KubeClient,
        ledger: Ledger | None,
        key: Ed25519PrivateKey,
        config: Config,
        alarms: Alarms,
        *,
        is_observed: Callable[[Json, datetime], bool] | None = None,
    ) -> None:
        """Without a ledger claims are made and stored, and wait. `is_observed` tells of a GuestPod whether the hub's
        own observation of it is complete: a home is settled only when it is of all its guests. None: its spec tells."""
        self._is_observed = is_observed or (lambda guest, now: guest_lifecycle.is_observed(guest, None, now))
        self._client = client
        self._alarms = alarms
        self._key = key
        self._config = config
        self._ledger = LedgerGate(ledger)
        self._claims = Claims(client, self._ledger)
        public = key.public_key().public_bytes_raw()
        self._keys = {dsse.fingerprint(public): public}
        self._books: dict[tuple[str, str], Book] = {}
        self._with_claims: dict[str, set[str]] = {}
        """UID of a Home → pools in which it had claims when they were listed last."""
        self._idle_until: dict[str, int] = {}
        self._reports = Reports(config.federation_id)
        self._clearing = Clearing(client, self._claims, self._reports)

    async def run_pass(self, now: datetime) -> None:
        """Every home for which something may be due; `now` is the hub's clock (aware). Failures are conditions."""
        homes = (await self._client.list(HOMES)).items
        pools = {pool["metadata"]["name"]: pool for pool in (await self._client.list(SCHEDULINGPOOLS)).items}
        self._alarms.keep({home["metadata"]["name"] for home in homes})
        await self._ledger.check(now)
        for home in homes:
            idle = int(now.timestamp()) < self._idle_until.get(home["metadata"]["uid"], 0)
            if (
                idle
                and self._ledger.incident is None
                and names.ANNOTATION_RESUME not in (home["metadata"].get("annotations") or {})
            ):
                continue
            try:
                await self._settle(home, pools, now)
            except HomefedError as error:
                # One home's trouble is not another's; what can be said of it has been said in its condition.
                logger.warning("settlement of %s: %s", home["metadata"]["name"], error.message, extra=_extra(error))

    async def settle(self, home_name: str, now: datetime) -> Finding:
        """Settle what is due of one home, send what is not receipted, and say so in its condition Settled."""
        await self._ledger.check(now)
        home = await self._client.get(HOMES, home_name)
        pools = {pool["metadata"]["name"]: pool for pool in (await self._client.list(SCHEDULINGPOOLS)).items}
        return await self._settle(home, pools, now)

    async def _settle(self, home: Json, pools: Mapping[str, Json], now: datetime) -> Finding:
        mailbox = await self._gather(home, now)
        if mailbox is None:
            return _FINE
        await self._resume(mailbox, now)
        uid = mailbox.home_uid
        outcomes = [await self._outcome(mailbox, pool, pools.get(pool), now) for pool in await self._pools_of(mailbox)]
        worst = next((one.finding for one in outcomes if one.finding.status != conditions.TRUE), _FINE)
        await self._tell(home, worst, now)
        self._idle_until[uid] = min((one.again for one in outcomes), default=int(now.timestamp()) + TOLD_AFTER_SECONDS)
        return worst

    async def _outcome(self, mailbox: Mailbox, pool: str, found: Json | None, now: datetime) -> Outcome:
        """One pool's part of a pass; what a person has to see to is an alarm as well."""
        name, key = mailbox.home["metadata"]["name"], (mailbox.home_uid, pool)
        try:
            outcome = await self._settle_pool(mailbox, pool, found, now)
        except Incident as error:
            outcome = Outcome.of(error)
        except HomefedError as error:
            self._books.pop(key, None)
            outcome = Outcome(Finding.of(error), alarming=standstill.alarming(error))
        if outcome.alarming:
            await self._alarms.raise_(mailbox.home, pool, outcome.finding)
        else:
            self._alarms.clear(name, pool)
        if key in self._books:
            self._alarms.waiting(name, pool, len(self._books[key].pending))
        return outcome

    async def _resume(self, mailbox: Mailbox, now: datetime) -> None:
        """The organiser's word that settlement may go on: taken away once everything that it concerns is written."""
        metadata = mailbox.home["metadata"]
        wanted = (metadata.get("annotations") or {}).get(names.ANNOTATION_RESUME)
        if wanted is None:
            return
        resend = wanted == standstill.RESUME_RESEND
        if resend:
            self._begin_anew()
        for obj in (await self._client.list(REWARDCLAIMS, mailbox.name)).items:
            if obj["spec"]["part"] == "Header":
                await self._claims.release(obj, now, resend=resend)
        self._books = {key: book for key, book in self._books.items() if key[0] != mailbox.home_uid}
        version = {"resourceVersion": metadata["resourceVersion"], "annotations": {names.ANNOTATION_RESUME: None}}
        await self._client.patch(HOMES, metadata["name"], {"metadata": version})
        what = "claims without receipt, and those that the ledger has lost," if resend else "claims without receipt"
        await self._alarms.tell(mailbox.home, "SettlementResumed", f"By the organiser's word {what} are sent.")

    def _begin_anew(self) -> None:
        """What the ledger shows now is believed; every other home's receipts must hold against it."""
        self._ledger.begin_anew()
        for book in self._books.values():
            book.verified = False

    async def _gather(self, home: Json, now: datetime) -> Mailbox | None:
        """None for a home that has no mailbox yet."""
        status = home.get("status") or {}
        name = status.get("mailbox")
        if not name:
            return None
        guests = (await self._client.list(GUESTPODS, name)).items
        reports = (await self._client.list(USAGEREPORTS, name)).items
        return Mailbox(home, name, guests, reports, home_key.report_keys(status.get("key"), now))

    async def _pools_of(self, mailbox: Mailbox) -> list[str]:
        """Pools with guests or claims. On the way every book of theirs that is not open is read: one that was dropped
        after an error must not be taken for one without claims."""
        uid = mailbox.home_uid
        wanted = {guest["spec"]["poolName"] for guest in mailbox.guests} | self._with_claims.get(uid, set())
        if uid not in self._with_claims or any((uid, pool) not in self._books for pool in wanted):
            objects = (await self._client.list(REWARDCLAIMS, mailbox.name)).items
            self._with_claims[uid] = {obj["spec"]["poolName"] for obj in objects}
            wanted |= self._with_claims[uid]
            for pool in wanted:
                if (uid, pool) not in self._books:
                    self._books[uid, pool] = self._read(pool, objects)
        return sorted(wanted)

    def _read(self, pool: str, objects: Sequence[Json]) -> Book:
        """A book that cannot be read stands still: what it says is not what this hub signed."""
        try:
            return read_book([obj for obj in objects if obj["spec"]["poolName"] == pool], self._keys)
        except Incident as error:
            return Book(broken=error)

    async def _settle_pool(self, mailbox: Mailbox, pool: str, found: Json | None, now: datetime) -> Outcome:
        if found is None:
            message = f"SchedulingPool {pool} is gone: its windows have no price."
            return Outcome(Finding(conditions.FALSE, "PoolGone", message))
        if behind := sum(not self._is_observed(guest, now) for guest in mailbox.guests):
            logger.info("settlement of %s waits: %d guests are being observed", mailbox.name, behind)
            return Outcome(_FINE)
        spec = meta.parse(SchedulingPoolSpec, found["spec"], where="spec")
        payee = self._payee(mailbox, pool, spec)
        book = self._books[mailbox.home_uid, pool]
        if book.broken is not None:
            raise book.broken
        await self._verify(mailbox, payee, book, now)
        trouble = await self._push(book, now)
        guests = [observation(obj) for obj in mailbox.guests if obj["spec"]["poolName"] == pool]
        parts, refused = self._reports.parts(mailbox, pool, book.chain.reports)
        reports = readings.assemble(parts)
        seconds = int(now.timestamp())
        for _ in range(CLAIMS_PER_PASS):
            inputs = Inputs(self._config.federation_id, mailbox.home_uid, spec, guests, reports, book.chain)
            step = settlement.decide(inputs, seconds)
            if not isinstance(step, Settle):
                break
            await self._write(mailbox, payee, book, step)
        trouble = trouble or await self._push(book, now)
        if trouble is not None:
            return Outcome.of(trouble)
        if isinstance(step, Settle):
            return Outcome(_FINE)
        if isinstance(step, Wait):
            told = seconds >= step.since + TOLD_AFTER_SECONDS
            message = f"{pool}: {step.message}" + (f" (refused: {refused})" if refused else "")
            return Outcome(Finding(conditions.FALSE, step.reason, message) if told else _FINE)
        await self._clearing.clear(mailbox, pool, book, inputs, seconds)
        length, grace = spec.settlement.window_seconds, settlement.grace_of(inputs)
        return Outcome(_FINE, windows.floor(seconds - grace, length) + length + grace)

    def _payee(self, mailbox: Mailbox, pool: str, spec: SchedulingPoolSpec) -> Payee:
        return Payee(
            self._config.federation_id,
            pool,
            mailbox.home_uid,
            fee_ppm=spec.settlement.fee_ppm,
            rate_card_digest=rate_card_digest(spec),
        )

    async def _verify(self, mailbox: Mailbox, payee: Payee, book: Book, now: datetime) -> None:
        """Before the first settlement after a start, and after an answer that stops: does the ledger's chain agree
        with ours? What it has of ours beyond that is taken over, which can also be the remedy."""
        if self._ledger.incident is not None:
            raise self._ledger.incident
        if book.verified or not self._ledger.configured:
            return
        try:
            foreign, place = await self._claims.compare(payee, book.digests, book.newest, self._keys, now)
        except HomefedError as error:
            if book.stopped is None or isinstance(error, Incident):
                raise
            raise book.stopped from error  # that the ledger is away as well is not what a person has to see to
        if foreign:
            first = foreign[0].claim.header.sequence
            ours = [one for one in book.pending if one.header["spec"]["sequence"] >= first]
            for one in ours:
                await self._claims.forget(mailbox.name, one.name, len(one.parts))
            for adopted in foreign:
                await self._claims.adopt(mailbox.name, adopted)
            objects = (await self._client.list(REWARDCLAIMS, mailbox.name)).items
            vars(book).update(vars(self._read(payee.pool, objects)))
        if book.stopped is not None:
            raise book.stopped
        if place is not None and book.last is not None and place.digest == book.last.digest:
            void = await self._claims.is_void(book.last, now)
            chain = book.chain.without(book.last) if void else book.chain
            book.chain = replace(chain, cumulative_paid=place.cumulative_paid)
        book.verified = True

    async def _push(self, book: Book, now: datetime) -> HomefedError | None:
        """Send what has no receipt, in order. Trouble is returned: windows are settled while the ledger is down, too.

        After an answer that stops nothing is sent again before the chain has been compared; see `_verify`.
        """
        if not book.pending:
            return None
        sent, trouble = await self._claims.push(book.pending, now)
        names_ = {one.name for one in book.pending[:sent]}
        receipted = int(now.timestamp())
        book.kept = [replace(kept, receipted=receipted) if kept.name in names_ else kept for kept in book.kept]
        del book.pending[:sent]
        book.verified = trouble is None or not standstill.stops(trouble)
        return trouble

    async def _write(self, mailbox: Mailbox, payee: Payee, book: Book, step: Settle) -> None:
        secret = self._key.private_bytes_raw()
        claim = claim_building.build(payee, book.chain, step.window, step.lines, step.reports, secret)
        for stranger in step.strangers:
            self._reports.tell_once(
                stranger, f"{mailbox.name}: reported pod {stranger} is no guest of this home", "UnknownPod"
            )
        parts, header = claim_chain.objects(claim, mailbox.name, self._key)
        book.enter(claim, await self._claims.write(parts, header))
        logger.info("claim %s of %s: %s µcredit", claim.name, mailbox.name, claim.header.charged)

    async def _tell(self, home: Json, finding: Finding, now: datetime) -> None:
        """Write condition Settled of the Home, when it says something new."""
        before = conditions.get((home.get("status") or {}).get("conditions"), SETTLED)
        generation = home["metadata"].get("generation", 0)
        (after,) = conditions.set_condition(
            [before] if before is not None else [],
            SETTLED,
            finding.status,
            finding.reason,
            finding.message,
            generation,
            now,
        )
        if after == before or (before is None and finding == _FINE):
            return
        metadata = {"name": home["metadata"]["name"], "uid": home["metadata"]["uid"]}
        body = {"metadata": metadata, "status": {"conditions": [after]}}
        await self._client.apply(HOMES, body, field_manager=FIELD_MANAGER, force=True, subresource="status")


def _extra(error: HomefedError) -> dict[str, str]:
    return {"reason": error.reason}
