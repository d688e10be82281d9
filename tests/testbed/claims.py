"""Signed claims as a hub would make them, for tests of everything that takes claims."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.canonical import canonical, digest
from homefed.api.claim_document import claim_id
from homefed.api.ledger_documents import Outcome, floor_id, resolution_id
from homefed.api.names import consumer_account, contributor_account

FEDERATION = "example"
POOL = "evening"
START = datetime(2026, 1, 1, tzinfo=UTC)
ZERO_DIGEST = "0" * 64

Json = dict[str, Any]


def hub_key(seed: int = 1) -> Ed25519PrivateKey:
    """The same key for the same seed."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"hub %d" % seed).digest())


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def keyring(key: Ed25519PrivateKey) -> dict[str, bytes]:
    return {dsse.fingerprint(public(key)): public(key)}


def line(namespace: str, amount: int, /, **changes: Any) -> Json:
    """A reserved CPU line that costs `amount` µcredit: that many core-hours at 1 µcredit each; for large amounts that
    many core-microseconds at a price that makes each cost 1 µcredit, as entries are at most 2^60."""
    price = 1 if amount < 2**28 else 3600 * 10**6
    units = str(amount * 3600 * 10**6 // price)
    return {
        "consumer": consumer_account(FEDERATION, namespace),
        "guestPod": "6f1c5f5e-0000-4000-8000-000000000001",
        "resource": "cpu",
        "basis": "reserved",
        "unit": "ucore.s",
        "reported": units,
        "bound": units,
        "accepted": units,
        "acceptedBefore": "0",
        "rate": {"microCredits": price, "per": "core-hour"},
        "amount": str(amount),
        "codes": [],
    } | changes


def part(claim: str, number: int, lines: Sequence[Json]) -> bytes:
    """The canonical bytes of one lines part."""
    salt = digest({"claim": claim, "part": number})
    return canonical({"claim": claim, "part": number, "salt": salt, "reports": [], "lines": [*lines]})


def usage_of(account: str, used: Mapping[tuple[str, str, str], int]) -> list[Json]:
    """`used`: (consumer, basis, unit) → units."""
    return [
        {"basis": basis, "unit": unit, "amount": str(amount)}
        for (owner, basis, unit), amount in sorted(used.items())
        if owner == account and amount
    ]


@dataclass(frozen=True)
class SignedDocument:
    """A resolution or a floor."""

    kind: Literal["resolution", "floor"]
    id: str
    envelope: dsse.Envelope

    @property
    def body(self) -> bytes:
        return canonical(self.envelope.to_json())


def resolution(claim: str, outcome: Outcome, /, key: Ed25519PrivateKey | None = None, **changes: Any) -> SignedDocument:
    """Of a pending claim's id; `changes` overwrite members."""
    identity = resolution_id(federation=FEDERATION, claim=claim)
    document = {"version": 1, "id": identity, "federation": FEDERATION, "claim": claim, "outcome": outcome} | changes
    return SignedDocument("resolution", identity, dsse.sign(document, dsse.RESOLUTION_TYPE, key or hub_key()))


def floor(namespace: str, amount: int | None, sequence: int = 1, **changes: Any) -> SignedDocument:
    """Of a consumer, µcredit; None: no floor from here on. `changes` overwrite members."""
    account = consumer_account(FEDERATION, namespace)
    identity = floor_id(federation=FEDERATION, account=account, sequence=sequence)
    document = {
        "version": 1,
        "id": identity,
        "federation": FEDERATION,
        "account": account,
        "floor": "" if amount is None else str(amount),
        "sequence": sequence,
    } | changes
    return SignedDocument("floor", identity, dsse.sign(document, dsse.FLOOR_TYPE, hub_key()))


@dataclass(frozen=True)
class SignedClaim:
    header: Json
    parts: tuple[bytes, ...]
    envelope: dsse.Envelope

    kind: ClassVar[Literal["claim"]] = "claim"

    @property
    def id(self) -> str:
        return str(self.header["id"])

    @property
    def body(self) -> bytes:
        return canonical(self.envelope.to_json())

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.envelope.payload).hexdigest()


def revised(claim: SignedClaim) -> Json:
    """The arguments of `claim_id` for the next revision of a claim's window."""
    header = claim.header
    return {
        "federation": header["federation"],
        "pool": header["pool"],
        "account": header["account"],
        "window_start": header["windowStart"],
        "window_end": header["windowEnd"],
        "revision": header["revision"] + 1,
    }


@dataclass
class Chain:
    """The claims of one home in one pool, one after the other."""

    home: str = "home-1"
    pool: str = POOL
    key: Ed25519PrivateKey = field(default_factory=hub_key)
    sequence: int = 0
    previous: str = ""
    cumulative: int = 0

    @property
    def account(self) -> str:
        return contributor_account(FEDERATION, self.home)

    def make(
        self,
        costs: Mapping[str, int] | None = None,
        *,
        held: int = 0,
        fee: int = 0,
        dust: int = 0,
        lines_per_part: int = 1000,
        instead_of: SignedClaim | None = None,
        **changes: Any,
    ) -> SignedClaim:
        """The next claim, without moving on. `costs`: namespace → µcredit; `instead_of`: of the same window, with the
        next revision; `changes` overwrite members of the header after everything was computed."""
        identity = self._window() if instead_of is None else revised(instead_of)
        id_ = claim_id(**identity)
        lines = [line(namespace, amount) for namespace, amount in ({"ns-1": 1000} if costs is None else costs).items()]
        slices = [lines[at : at + lines_per_part] for at in range(0, len(lines), lines_per_part)]
        parts = tuple(part(id_, number, chunk) for number, chunk in enumerate(slices, 1))
        header = self._header(id_, identity, lines, parts, {"held": held, "fee": fee, "dust": dust})
        if changes.get("phase") == "pending":
            header["cumulativePaid"] = str(self.cumulative)
        return self.sign(header | changes, parts)

    def reversal(self, claim: SignedClaim, **changes: Any) -> SignedClaim:
        """What takes `claim` back, without moving on."""
        identity = revised(claim)
        header = claim.header | {
            "id": claim_id(**identity),
            "revision": identity["revision"],
            "reverses": claim.id,
            "phase": "posted",
            "sequence": self.sequence + 1,
            "previousDigest": self.previous,
            "cumulativePaid": str(self.cumulative - int(claim.header["paid"])),
            "lineCount": 0,
            "parts": [],
        }
        return self.sign(header | changes)

    def sign(self, header: Json, parts: tuple[bytes, ...] = ()) -> SignedClaim:
        return SignedClaim(header, parts, dsse.sign(header, dsse.CLAIM_TYPE, self.key))

    def posted(self, claim: SignedClaim) -> None:
        """`claim` was pending and is posted now."""
        self.cumulative += int(claim.header["paid"])

    def advance(self, claim: SignedClaim) -> SignedClaim:
        """`claim` was accepted: what is made next follows it."""
        self.sequence, self.previous = claim.header["sequence"], claim.digest
        self.cumulative = int(claim.header["cumulativePaid"])
        return claim

    def next(self, costs: Mapping[str, int] | None = None, **split: Any) -> SignedClaim:
        return self.advance(self.make(costs, **split))

    def _window(self) -> Json:
        start = START + timedelta(hours=self.sequence)
        return {
            "federation": FEDERATION,
            "pool": self.pool,
            "account": self.account,
            "window_start": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "window_end": (start + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "revision": 0,
        }

    def _header(
        self, id_: str, identity: Json, lines: Sequence[Json], parts: Sequence[bytes], split: Mapping[str, int]
    ) -> Json:
        owed: Counter[str] = Counter()
        used: Counter[tuple[str, str, str]] = Counter()
        for one in lines:
            owed[one["consumer"]] += int(one["amount"])
            used[one["consumer"], one["basis"], one["unit"]] += int(one["accepted"])
        charged = sum(owed.values())
        paid = charged - sum(split.values())
        return {
            "version": 1,
            "id": id_,
            "federation": identity["federation"],
            "pool": identity["pool"],
            "account": identity["account"],
            "windowStart": identity["window_start"],
            "windowEnd": identity["window_end"],
            "revision": identity["revision"],
            "phase": "posted",
            "reverses": "",
            "sequence": self.sequence + 1,
            "previousDigest": self.previous,
            "rateCardDigest": ZERO_DIGEST,
            "consumers": [
                {"account": account, "charged": str(owed[account]), "usage": usage_of(account, used)}
                for account in sorted(owed)
            ],
            "charged": str(charged),
            "paid": str(paid),
            "released": "0",
            **{name: str(amount) for name, amount in split.items()},
            "cumulativePaid": str(self.cumulative + paid),
            "lineCount": len(lines),
            "parts": [hashlib.sha256(body).hexdigest() for body in parts],
            "evidenceDigest": "",
            "meterVersion": "test",
        }
