"""After settlement: guests that ended are marked as settled, and what is old is forgotten."""

from __future__ import annotations

from typing import Any

from homefed.core import retention, settlement, windows
from homefed.core.guest_lifecycle import ANNOTATION_SETTLED
from homefed.core.settlement import Inputs
from homefed.hub.books import Book
from homefed.hub.claims import Claims
from homefed.hub.reports import Mailbox, Reports
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, USAGEREPORTS

Json = dict[str, Any]


class Clearing:
    """For pools in which everything closed is settled and receipted."""

    def __init__(self, client: KubeClient, claims: Claims, reports: Reports) -> None:
        self._client, self._claims, self._reports = client, claims, reports

    async def clear(self, mailbox: Mailbox, pool: str, book: Book, inputs: Inputs, now: int) -> None:
        """`now` in seconds, the hub's clock."""
        length = inputs.pool.settlement.window_seconds
        through = retention.settled_through(now, length=length, grace_seconds=settlement.grace_of(inputs))
        await self._mark_guests(mailbox, inputs, through)
        await self._forget_reports(mailbox, pool, through)
        existing = {guest.uid for guest in inputs.guests}
        for kept in retention.old_claims(book.kept, book.chain, existing, now):
            await self._claims.forget(mailbox.name, kept.name, kept.parts)
            book.kept.remove(kept)

    async def _mark_guests(self, mailbox: Mailbox, inputs: Inputs, through: int) -> None:
        done = [guest for guest in inputs.guests if not settlement.owed(inputs, guest, through)]
        marked = {
            obj["metadata"]["name"]: (obj["metadata"].get("annotations") or {}).get(ANNOTATION_SETTLED)
            for obj in mailbox.guests
        }
        for uid, window in retention.settled_guests(done, through, inputs.pool.settlement.window_seconds).items():
            if marked.get(uid) is None:
                patch = {"metadata": {"annotations": {ANNOTATION_SETTLED: window.end_text}}}
                await self._client.patch(GUESTPODS, uid, patch, mailbox.name)

    async def _forget_reports(self, mailbox: Mailbox, pool: str, through: int) -> None:
        named = [
            (obj["metadata"]["name"], windows.seconds(obj["spec"]["windowEnd"]))
            for obj in mailbox.reports
            if obj["spec"]["poolName"] == pool
        ]
        old = retention.old_reports(named, through)
        gone = {obj["metadata"]["uid"] for obj in mailbox.reports if obj["metadata"]["name"] in old}
        for name in old:
            await self._client.delete(USAGEREPORTS, name, mailbox.name)
        self._reports.forget(gone)
