"""The home as a witness of the ledger (C2SP tlog-witness, turned round, as homes are behind NAT).

It fetches the ledger's checkpoint, checks that it continues the last one that it cosigned, keeps it, cosigns it, and
hands that in.

What was cosigned is kept in Secret `<release>-agent` before the cosignature leaves the home, so that no kill and no
restart makes a home cosign two histories:

    ledger-key          verifier key of the ledger, as given or as seen first
    ledger-checkpoint   the newest checkpoint that was cosigned, with the ledger's signature
    ledger-conflict     one that contradicts it, with the ledger's signature: together the proof that it forked
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import Gauge

from homefed.agent.keys import text_of
from homefed.api.errors import HomefedError, Incident
from homefed.core import checkpoint as checkpoints
from homefed.core import signed_note, witness
from homefed.core.checkpoint import Checkpoint
from homefed.core.conditions import FALSE, TRUE, UNKNOWN
from homefed.core.findings import Finding
from homefed.core.signed_note import Note, VerifierKey
from homefed.core.witness import Head
from homefed.kube.client import KubeClient
from homefed.kube.resources import SECRETS
from homefed.ledger_client import LedgerClient
from homefed.ledger_client.history import History, fetch_checkpoint, went_back

logger = logging.getLogger(__name__)
Json = dict[str, Any]

EVERY_SECONDS: Final = 60.0
KEY: Final = "ledger-key"
SEEN: Final = "ledger-checkpoint"
CONFLICT: Final = "ledger-conflict"
FORKED: Final = Gauge("homefed_agent_ledger_forked", "1 while the ledger contradicts what this home has cosigned.")

ALARMS: Final = frozenset(
    {"LedgerForked", "LedgerWentBack", "LedgerKeyChanged", "WrongLedger", "WrongCheckpoint", "NotThisLog"}
)
"""Reasons that the contributor is told by an event, too: what the ledger shows cannot be true."""

_WAITING: Final = Finding(UNKNOWN, "NotAccepted", "the hub has not answered the Offer yet: no name to cosign under")
_COSIGNED: Final = Finding(TRUE, "Cosigned", "the ledger's checkpoints continue each other, and are cosigned here")


@dataclass(frozen=True)
class Member:
    """Under what name this home cosigns for which log."""

    federation: str
    home_uid: str


class Witness:
    """One home's witness of one ledger."""

    def __init__(
        self,
        home: KubeClient,
        namespace: str,
        secret: str,
        ledger: LedgerClient,
        *,
        member: Callable[[], Member | None],
        private: Callable[[], Ed25519PrivateKey | None],
    ) -> None:
        """`ledger` may have been given the ledger's key; `member` and `private` are None until they are known."""
        self._home, self._namespace, self._secret, self._ledger = home, namespace, secret, ledger
        self._member, self._private = member, private
        self._handed_in: tuple[str, bytes] | None = None
        """Text of the checkpoint that the ledger took our cosignature of, and under which key."""

    async def run_pass(self, now: datetime) -> Finding:
        """One look at the ledger; `now` is the time of a cosignature. Failures are findings."""
        member, private = self._member(), self._private()
        if member is None or private is None:
            return _WAITING
        try:
            await self._look(member, private, now)
        except Incident as error:
            FORKED.set(1)
            return Finding(
                FALSE, error.reason, f"{error.message}; it is not cosigned: tell the organiser and the others"
            )
        except HomefedError as error:
            logger.info("witness: %s", error.message, extra={"reason": error.reason})
            return _trouble(error)
        FORKED.set(0)
        return _COSIGNED

    async def _look(self, member: Member, private: Ed25519PrivateKey, now: datetime) -> None:
        secret = await self._home.get(SECRETS, self._secret, self._namespace)
        key = await self._key(secret, member)
        seen = _seen(secret, key)
        signed, found = await fetch_checkpoint(self._ledger.fetch, key)
        note = _own(signed, key)
        try:
            await self._follow(key, seen, found)
        except Incident:
            await self._keep(secret, CONFLICT, note.encode(), replace=False)
            raise
        if found.size and (seen is None or found.size > seen.size):
            await self._keep(secret, SEEN, note.encode())
        if found.size and self._handed_in != (note.text, private.public_key().public_bytes_raw()):
            await self._hand_in(note.text, member, private, now)

    async def _follow(self, key: VerifierKey, seen: Head | None, found: Checkpoint) -> None:
        if seen is not None and found.size < seen.size:
            raise went_back(found, seen)
        await History(key, self._ledger.fetch, seen).confirm(found)

    async def _key(self, secret: Json, member: Member) -> VerifierKey:
        """As given, else as seen first. Errors: Incident where it is another log's, or another one than before."""
        stored = text_of(secret, KEY)
        key = await self._ledger.ledger_key()
        origin = checkpoints.origin_of(member.federation)
        if key.name != origin:
            raise Incident(f"the ledger's key is of {key.name}, not of {origin}", reason="WrongLedger")
        if stored and stored != key.text():
            raise Incident(f"the ledger now signs by {key.text()}, before by {stored}", reason="LedgerKeyChanged")
        if not stored:
            await self._keep(secret, KEY, key.text())
        return key

    async def _hand_in(self, text: str, member: Member, private: Ed25519PrivateKey, now: datetime) -> None:
        name = witness.home_name(member.home_uid)
        cosignature = signed_note.cosign(text, name, private, int(now.timestamp()))
        await self._ledger.post_cosignature(Note(text, (cosignature,)).encode())
        self._handed_in = text, private.public_key().public_bytes_raw()

    async def _keep(self, secret: Json, name: str, text: str, *, replace: bool = True) -> None:
        """Into the Secret as it was read: Conflict where somebody else has written to it meanwhile."""
        if not replace and (secret.get("data") or {}).get(name):
            return
        data = {name: base64.b64encode(text.encode()).decode()}
        version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        written = await self._home.patch(SECRETS, self._secret, {"metadata": version, "data": data}, self._namespace)
        secret.update(written)


def _seen(secret: Json, key: VerifierKey) -> Head | None:
    stored = text_of(secret, SEEN)
    if not stored:
        return None
    found = checkpoints.verify(f"{stored}\n", key)
    return Head(found.size, found.root)


def _own(signed: str, key: VerifierKey) -> Note:
    """The note with the ledger's own signature only: cosignatures come and go."""
    note = signed_note.parse(signed)
    return Note(note.text, tuple(note.verify([key])))


def _trouble(error: HomefedError) -> Finding:
    if error.reason == "UnknownWitness":
        message = "the ledger does not know this home's key (yet): the hub publishes it, which takes a minute or two"
        return Finding(FALSE, "UnknownWitness", message)
    return Finding(FALSE, "LedgerUnreachable", f"the ledger's checkpoint is not checked: {error.message}")
