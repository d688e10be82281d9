"""Settlement: gathers what the hub knows of a home, lets `core.settlement` decide, writes and sends claims.

    settlement = Settlement(client, ledger, key, config, alarms)
    await settlement.run_pass(now)            # every few seconds, from the hub operator's tasks
    await settlement.settle("alice", now)     # one home; idempotent

Nothing is kept here that cannot be read back: claims are objects in the mailbox, and what was accepted so far stands in
their lines. A book per home and pool holds that in memory and is dropped after every error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import names
from homefed.api.errors import HomefedError, Incident
from homefed.core import conditions, guest_lifecycle, home_key, meter_agreement, standstill
from homefed.core.findings import Finding
from homefed.core.meter_agreement import METER_AGREES
from homefed.hub.alarms import Alarms
from homefed.hub.books import Book, open_book
from homefed.hub.config import Config
from homefed.hub.ledger_gate import Ledger, LedgerGate
from homefed.hub.pool_settlement import FINE, SETTLED, TOLD_AFTER_SECONDS, Outcome, PoolSettlement
from homefed.hub.reports import Mailbox
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, HOMES, REWARDCLAIMS, SCHEDULINGPOOLS, USAGEREPORTS

logger = logging.getLogger(__name__)
Json = dict[str, Any]

FIELD_MANAGER: Final = "homefed-settlement"
WORDS: Final = (names.ANNOTATION_RESUME, names.ANNOTATION_REVIEW)
"""Annotations of a Home with which the organiser asks for a pass now."""


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
        observed = is_observed or (lambda guest, now: guest_lifecycle.is_observed(guest, None, now))
        self._client, self._alarms = client, alarms
        self._ledger = LedgerGate(ledger)
        self._pools = PoolSettlement(client, self._ledger, key, config.federation_id, alarms, observed)
        self.books: dict[tuple[str, str], Book] = {}
        """By UID of the Home and pool; what is not here was not read since the start, or since an error."""
        self._with_claims: dict[str, set[str]] = {}
        """UID of a Home → pools in which it had claims when they were listed last."""
        self._idle_until: dict[str, int] = {}

    async def run_pass(self, now: datetime) -> None:
        """Every home for which something may be due; `now` is the hub's clock (aware). Failures are conditions."""
        homes = (await self._client.list(HOMES)).items
        pools = {pool["metadata"]["name"]: pool for pool in (await self._client.list(SCHEDULINGPOOLS)).items}
        known = {home["metadata"]["name"] for home in homes}
        self._alarms.keep(known)
        self._pools.gaps.keep(known)
        await self._ledger.check(now)
        for home in homes:
            if int(now.timestamp()) < self._idle_until.get(home["metadata"]["uid"], 0) and not self._is_urgent(home):
                continue
            try:
                await self._settle(home, pools, now)
            except HomefedError as error:
                # One home's trouble is not another's; what can be said of it has been said in its condition.
                logger.warning("settlement of %s: %s", home["metadata"]["name"], error.message, extra=_extra(error))

    def _is_urgent(self, home: Json) -> bool:
        """Something is to be done though no window is due."""
        metadata = home["metadata"]
        asked = any(word in (metadata.get("annotations") or {}) for word in WORDS)
        return asked or self._ledger.incident is not None or "deletionTimestamp" in metadata

    async def settle(self, home_name: str, now: datetime) -> Finding:
        """Settle what is due of one home, send what is not receipted, and say so in its condition Settled."""
        await self._ledger.check(now)
        home = await self._client.get(HOMES, home_name)
        pools = {pool["metadata"]["name"]: pool for pool in (await self._client.list(SCHEDULINGPOOLS)).items}
        return await self._settle(home, pools, now)

    async def _settle(self, home: Json, pools: Mapping[str, Json], now: datetime) -> Finding:
        mailbox = await self._gather(home, now)
        if mailbox is None:
            return FINE
        await self._resume(mailbox, now)
        uid = mailbox.home_uid
        if asked := self._annotation(home, names.ANNOTATION_REVIEW) is not None:
            self._close_books(uid)
        outcomes = [await self._outcome(mailbox, pool, pools.get(pool), now) for pool in await self._pools_of(mailbox)]
        worst = next((one.finding for one in outcomes if one.finding.status != conditions.TRUE), FINE)
        if asked and not any(book.asked or book.reopened for book in self._books_of(uid)):
            await self._take_away(home, names.ANNOTATION_REVIEW)
        agrees = meter_agreement.worse(meter_agreement.finding(book.gaps) for book in self._books_of(uid))
        await self._tell(home, {SETTLED: worst, METER_AGREES: agrees}, now)
        self._idle_until[uid] = min((one.again for one in outcomes), default=int(now.timestamp()) + TOLD_AFTER_SECONDS)
        return worst

    async def _outcome(self, mailbox: Mailbox, pool: str, found: Json | None, now: datetime) -> Outcome:
        """One pool's part of a pass; what a person has to see to is an alarm as well."""
        name, key = mailbox.home["metadata"]["name"], (mailbox.home_uid, pool)
        try:
            outcome = await self._pools.settle(mailbox, pool, found, self.books[key], now)
        except Incident as error:
            outcome = Outcome.of(error)
        except HomefedError as error:
            self.books.pop(key, None)
            outcome = Outcome(Finding.of(error), alarming=standstill.alarming(error))
        if outcome.alarming:
            await self._alarms.raise_(mailbox.home, pool, outcome.finding)
        else:
            self._alarms.clear(name, pool)
        if key in self.books:
            self._alarms.waiting(name, pool, len(self.books[key].pending))
        return outcome

    async def _resume(self, mailbox: Mailbox, now: datetime) -> None:
        """The organiser's word that settlement may go on: taken away once everything that it concerns is written."""
        wanted = self._annotation(mailbox.home, names.ANNOTATION_RESUME)
        if wanted is None:
            return
        resend = wanted == standstill.RESUME_RESEND
        if resend:
            self._begin_anew()
        for obj in (await self._client.list(REWARDCLAIMS, mailbox.name)).items:
            if obj["spec"]["part"] == "Header":
                await self._pools.claims.release(obj, now, resend=resend)
        self._close_books(mailbox.home_uid)
        await self._take_away(mailbox.home, names.ANNOTATION_RESUME)
        what = "claims without receipt, and those that the ledger has lost," if resend else "claims without receipt"
        await self._alarms.tell(mailbox.home, "SettlementResumed", f"By the organiser's word {what} are sent.")

    def _annotation(self, home: Json, name: str) -> str | None:
        found = (home["metadata"].get("annotations") or {}).get(name)
        return str(found) if found is not None else None

    async def _take_away(self, home: Json, annotation: str) -> None:
        """What it asked for is written. A word that came since then stays."""
        metadata = home["metadata"]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": {annotation: None}}}
        after = await self._client.patch(HOMES, metadata["name"], patch)
        metadata["resourceVersion"] = after["metadata"]["resourceVersion"]
        metadata["annotations"] = after["metadata"].get("annotations") or {}

    def _books_of(self, home_uid: str) -> list[Book]:
        return [book for (uid, _), book in self.books.items() if uid == home_uid]

    def _close_books(self, home_uid: str) -> None:
        """They are read anew from the claims."""
        self.books = {key: book for key, book in self.books.items() if key[0] != home_uid}

    def _begin_anew(self) -> None:
        """What the ledger shows now is believed; every other home's receipts must hold against it."""
        self._ledger.begin_anew()
        for book in self.books.values():
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
        if uid not in self._with_claims or any((uid, pool) not in self.books for pool in wanted):
            objects = (await self._client.list(REWARDCLAIMS, mailbox.name)).items
            self._with_claims[uid] = {obj["spec"]["poolName"] for obj in objects}
            wanted |= self._with_claims[uid]
            for pool in wanted:
                if (uid, pool) not in self.books:
                    self.books[uid, pool] = open_book(objects, pool, self._pools.keys)
        return sorted(wanted)

    async def _tell(self, home: Json, findings: Mapping[str, Finding | None], now: datetime) -> None:
        """Write conditions of the Home, by type, when one says something new; None leaves one as it is."""
        status, generation = home.get("status") or {}, home["metadata"].get("generation", 0)
        before = [one for one in status.get("conditions") or () if one["type"] in findings]
        after = before
        for type_, finding in findings.items():
            if finding is None or (finding == FINE and conditions.get(before, type_) is None):
                continue
            told = (finding.status, finding.reason, finding.message)
            after = conditions.set_condition(after, type_, *told, generation, now)
        if after == before:
            return
        metadata = {"name": home["metadata"]["name"], "uid": home["metadata"]["uid"]}
        body = {"metadata": metadata, "status": {"conditions": after}}
        await self._client.apply(HOMES, body, field_manager=FIELD_MANAGER, force=True, subresource="status")


def _extra(error: HomefedError) -> dict[str, str]:
    return {"reason": error.reason}
