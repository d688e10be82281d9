"""Claims on their way: from RewardClaim objects to the ledger's receipt, and back where the ledger knows more than we.

Written first, sent afterwards: parts, then the header's object, then `PUT` the parts, then `PUT` the header. Whoever is
killed in between sends the same bytes again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from homefed.api import canonical, dsse, names
from homefed.api.errors import AlreadyExists, Conflict, HomefedError, Incident, Invalid, NotFound
from homefed.core import claim_chain, conditions, standstill
from homefed.core.claim_chain import Claim, Payee
from homefed.core.findings import Finding
from homefed.core.ledger_reading import payload_digest, read_header
from homefed.core.times import to_rfc3339
from homefed.hub.ledger_gate import Ledger, LedgerGate
from homefed.kube.client import KubeClient
from homefed.kube.resources import REWARDCLAIMS
from homefed.ledger_client.documents import Chain as Place
from homefed.ledger_client.documents import Receipt, Submission

logger = logging.getLogger(__name__)
Json = dict[str, Any]


@dataclass(frozen=True)
class Pending:
    """A claim's objects, lines parts in order, header last."""

    parts: tuple[Json, ...]
    header: Json

    @property
    def name(self) -> str:
        return str(self.header["metadata"]["name"])


@dataclass(frozen=True)
class Receipted:
    """A claim that the ledger has receipted, as its object says."""

    sequence: int
    receipt: str
    envelope: dsse.Envelope


@dataclass(frozen=True)
class Adopted:
    """A claim of ours that the ledger holds and we do not."""

    claim: Claim
    envelope: dsse.Envelope


class Claims:
    """Writes, sends and receipts claims of one hub."""

    def __init__(self, client: KubeClient, ledger: LedgerGate) -> None:
        self._client = client
        self._ledger = ledger

    async def write(self, parts: Sequence[Json], header: Json) -> Pending:
        """Create the objects, parts first. What was left of an unfinished attempt is replaced: it was never sent."""
        written = [await self._create(part, replace=True) for part in parts]
        return Pending(tuple(written), await self._create(header, replace=False))

    async def _create(self, obj: Json, *, replace: bool) -> Json:
        name, mailbox = obj["metadata"]["name"], obj["metadata"]["namespace"]
        try:
            return await self._client.create(REWARDCLAIMS, obj, mailbox)
        except AlreadyExists:
            found = await self._client.get(REWARDCLAIMS, name, mailbox)
        if found["spec"] == obj["spec"]:
            return found
        if not replace:
            raise Conflict(f"RewardClaim {mailbox}/{name} is there with other content")
        await self._client.delete(REWARDCLAIMS, name, mailbox, uid=found["metadata"]["uid"])
        return await self._client.create(REWARDCLAIMS, obj, mailbox)

    async def push(self, pending: Sequence[Pending], now: datetime) -> tuple[int, HomefedError | None]:
        """Send claims of one chain, in order, and store their receipts: how many have one, and why the next has none.

        The ledger's trouble is also written to the claim's condition. After trouble that stops (see core.standstill)
        the claim says so durably: a hub that starts anew does not send it. While the ledger has asked for a pause its
        last answer holds, and nothing is sent. Errors: the API server's.
        """
        submitted = await self._ledger.submit([_submission(one) for one in pending], now)
        for one, receipt in zip(pending, submitted.receipts, strict=False):
            await self._store(one.header, receipt, now)
        sent, trouble = len(submitted.receipts), submitted.trouble
        if trouble is not None:
            found = Finding(conditions.FALSE, trouble.reason, standstill.sentence(trouble))
            await self._say(pending[sent].header, found, now, stopped=standstill.stops(trouble))
        return sent, trouble

    async def _store(
        self, header: Json, receipt: Receipt, now: datetime, more: Mapping[str, Any] | None = None
    ) -> None:
        receipted = {"receipt": receipt.text, "leafIndex": receipt.leaf_index, "receiptedAt": to_rfc3339(now)}
        found = Finding(conditions.TRUE, "Receipted", f"leaf {receipt.leaf_index} of the ledger")
        await self._say(header, found, now, receipted | dict(more or {}))

    async def release(self, header: Json, now: datetime, *, resend: bool) -> None:
        """The organiser says that this claim may be sent; idempotent.

        `resend`: also where it was receipted and the ledger does not have it any more, or has it under another receipt.
        The receipt that there was is kept beside.
        """
        status = header.get("status") or {}
        if not status.get("receipt"):
            if stopped_by(header) is not None:
                found = Finding(conditions.FALSE, "Resumed", "the organiser let settlement go on: it is sent again")
                await self._say(header, found, now)
        elif resend:
            await self._renew(header, status["receipt"], now)

    async def _renew(self, header: Json, receipt: str, now: datetime) -> None:
        async with self._ledger.asked(now) as ledger:
            try:
                held = (await ledger.claim(header["spec"]["claimId"])).receipt
            except NotFound:
                held = None
        previous = {"previousReceipt": receipt}
        if held is None:
            found = Finding(conditions.FALSE, "Lost", "the ledger has lost it: it is sent again")
            await self._say(header, found, now, previous | dict.fromkeys(("receipt", "leafIndex", "receiptedAt")))
        elif held.text != receipt:
            await self._store(header, held, now, previous)

    async def _say(
        self,
        header: Json,
        found: Finding,
        now: datetime,
        more: Mapping[str, Any] | None = None,
        *,
        stopped: bool = False,
    ) -> None:
        """Write Ready, and Stopped while it is so; `more`: further members of the status, None takes one away."""
        metadata, before = header["metadata"], header.get("status") or {}
        after = {**before, "observedGeneration": metadata.get("generation", 0), **(more or {})}
        after["conditions"] = _conditions(before, found, metadata.get("generation", 0), now, stopped=stopped)
        after = {key: value for key, value in after.items() if value is not None}
        if after == before:
            return
        body = {
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": after,
        }
        await self._client.apply(REWARDCLAIMS, body, field_manager=names.HUB_MANAGER, force=True, subresource="status")
        header["status"] = after

    async def forget(self, mailbox: str, name: str, parts: int) -> None:
        """Delete a claim's objects: the header last, so that a killed hub finds it again."""
        for number in range(1, parts + 1):
            await self._client.delete(REWARDCLAIMS, f"{name}-l{number}", mailbox)
        await self._client.delete(REWARDCLAIMS, name, mailbox)

    async def compare(
        self, payee: Payee, known: Mapping[str, int], kept: Receipted | None, keys: Mapping[str, bytes], now: datetime
    ) -> tuple[list[Adopted], Place | None]:
        """Claims of the ledger's chain that are not `known` (digest → sequence), oldest first; and its newest claim.

        `kept`: the newest claim of ours with a receipt, which must still hold.

        Before the first settlement after a start, and after a conflict: a hub restored from a backup takes over what it
        had sent. Incident where the ledger's chain is not signed by our key, or is behind what it has receipted.
        """
        async with self._ledger.asked(now) as ledger:
            if kept is not None:
                await ledger.confirm(kept.receipt, kept.envelope)
            return await _Walk(ledger, payee, keys).unknown(known, kept.sequence if kept is not None else 0)

    async def is_void(self, claim: Claim, now: datetime) -> bool:
        """Whether a claim that was sent as pending has been voided."""
        if claim.header.phase != "pending":
            return False
        async with self._ledger.asked(now) as ledger:
            return (await ledger.claim(claim.header.id)).state == "void"

    async def adopt(self, mailbox: str, found: Adopted) -> None:
        """Write a claim of the ledger's as objects."""
        parts, header = claim_chain.objects_of(found.claim, mailbox, found.envelope.encode())
        logger.warning("claim %s is taken over from the ledger", header["metadata"]["name"])
        await self.write(parts, header)


class _Walk:
    """From a chain's newest claim at the ledger back to what is known."""

    def __init__(self, ledger: Ledger, payee: Payee, keys: Mapping[str, bytes]) -> None:
        self._ledger, self._payee, self._keys = ledger, payee, keys

    async def unknown(self, known: Mapping[str, int], receipted: int) -> tuple[list[Adopted], Place | None]:
        """Oldest first, and the newest claim; `receipted`: the sequence that the ledger has got to at least."""
        place = newest = await self._place()
        at = place.sequence if place is not None else 0
        if at < receipted:
            raise Incident(
                f"the ledger's chain ends at {at}, but it has receipted {receipted}: was it restored from a backup?",
                reason="LedgerWentBack",
            )
        found: list[Adopted] = []
        while place is not None and place.digest not in known:
            one = await self._adopted(place.envelope)
            found.insert(0, one)
            previous = one.claim.header.previous_digest
            if not previous or previous in known:
                break
            place = await self._place(place.sequence - 1)
            if place is None or place.digest != previous:
                raise Incident(
                    f"claim {one.claim.header.id} follows one that is neither here nor at the ledger",
                    reason="ChainBroken",
                )
        return found, newest

    async def _place(self, sequence: int | None = None) -> Place | None:
        return await self._ledger.chain(self._payee.pool, self._payee.account, sequence)

    async def _adopted(self, envelope: dsse.Envelope) -> Adopted:
        try:
            header = read_header(envelope, self._keys)
        except Invalid as error:
            raise Incident(
                f"the ledger holds a claim of this chain that this hub did not sign: {error.message}",
                reason="ForeignClaim",
            ) from error
        parts = {
            number: canonical.canonical(await self._ledger.part(header.id, number))
            for number in range(1, len(header.parts) + 1)
        }
        return Adopted(claim_chain.assemble(header, payload_digest(envelope), parts), envelope)


def _submission(pending: Pending) -> Submission:
    spec = pending.header["spec"]
    parts = [claim_chain.part_bytes(part) for part in pending.parts]
    return Submission(spec["claimId"], parts, dsse.decode(spec["envelope"]))


def stopped_by(header: Json) -> Incident | None:
    """Why this claim is not sent any more, as its header's condition says; None where it may be."""
    found = conditions.get((header.get("status") or {}).get("conditions"), standstill.STOPPED)
    return Incident(str(found["message"]), reason=str(found["reason"])) if found is not None else None


def _conditions(before: Json, found: Finding, generation: int, now: datetime, *, stopped: bool) -> list[Json]:
    after = conditions.set_condition(
        before.get("conditions"), conditions.READY, found.status, found.reason, found.message, generation, now
    )
    if not stopped:
        return conditions.drop(after, standstill.STOPPED)
    return conditions.set_condition(
        after, standstill.STOPPED, conditions.TRUE, found.reason, found.message, generation, now
    )
