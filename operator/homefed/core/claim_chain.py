"""The chain of claims of one home in one pool: what it says so far, and how the next claim is made from lines.

What was accepted so far is not stored anywhere else: each line carries it, so the newest line of a pod, resource and
basis is enough. Claims are therefore kept while they hold the newest line of a guest pod that exists (see retention).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import canonical, dsse, names
from homefed.api.claim_document import (
    MAX_PART,
    ClaimHeader,
    Line,
    LinesPart,
)
from homefed.api.errors import Incident, Invalid
from homefed.api.ledger_documents import Outcome
from homefed.api.meta import parse
from homefed.core.held import Held, Release, add, held_ppm
from homefed.core.ledger_reading import read_header
from homefed.core.rewards import Account, Key
from homefed.core.windows import Window, seconds

REPORTS_PER_PART: Final = 100
_NONE: Final = Account()
Json = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim with its lines."""

    header: ClaimHeader
    digest: str
    """SHA-256 of the header's canonical bytes."""
    parts: tuple[LinesPart, ...]
    bodies: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    """Canonical bytes of the parts, where they are known already; empty: not yet."""

    def part_bodies(self) -> tuple[bytes, ...]:
        """Canonical bytes of each part."""
        return self.bodies or tuple(part.canonical() for part in self.parts)

    @property
    def window(self) -> Window:
        return Window(seconds(self.header.window_start), seconds(self.header.window_end))

    @property
    def lines(self) -> list[Line]:
        return [line for part in self.parts for line in part.lines]

    @property
    def reports(self) -> frozenset[str]:
        """Digests of the reports that its lines rest on."""
        return frozenset(report.digest for part in self.parts for report in part.reports)

    @property
    def name(self) -> str:
        return claim_name(self.header.pool, self.window, self.header.id)


@dataclass(frozen=True)
class Chain:
    """What the claims of one home in one pool say, up to the newest."""

    sequence: int = 0
    head: str = ""
    """Digest of the newest header; empty before the first."""
    end: int | None = None
    """Seconds: end of the newest claim's window."""
    cumulative_paid: int = 0
    accounts: Mapping[Key, Account] = field(default_factory=dict)
    reports: frozenset[str] = frozenset()
    """Digests of the reports that claims have used."""
    held: Held = ()
    """What is held back and not released."""

    def after(self, claim: Claim, taken_back: Claim | None = None) -> Chain:
        """Errors: Incident where the claim does not follow this chain. Claims in between may have been pruned.

        `taken_back` is the claim that this one reverses: what it had accepted can be accepted again.
        """
        header = claim.header
        follows = header.sequence > self.sequence + 1 or header.previous_digest == self.head
        if self.sequence and (header.sequence <= self.sequence or not follows):
            raise Incident(
                f"claim {claim.name}: sequence {header.sequence}, previous digest {header.previous_digest[:12]}…, does"
                f" not follow sequence {self.sequence}, digest {self.head[:12]}…",
                reason="ChainBroken",
            )
        before = self.without(taken_back) if taken_back is not None else self
        return Chain(
            header.sequence,
            claim.digest,
            max(claim.window.end, self.end or 0),
            int(header.cumulative_paid),
            before._entered(claim),
            before.reports | claim.reports,
            tuple(header.held_back or ()),
        )

    def without(self, claim: Claim) -> Chain:
        """The chain once a claim of it is reversed or voided: its lines and reports are open again."""
        accounts = dict(self.accounts)
        for line in reversed(claim.lines):  # two lines of one key: the first one opened
            before = accounts.get(_key(line))
            if before is not None:
                accounts[_key(line)] = before.without(line, claim.header.sequence)
        return replace(self, accounts=accounts, reports=self.reports - claim.reports)

    def resolved(self, claim: Claim, outcome: Outcome) -> Chain:
        """The chain once a pending claim of it is posted or voided."""
        if outcome == "void":
            return self.without(claim)
        header = claim.header
        more = add(self.held, header.held_until, int(header.held)) if header.held_until is not None else self.held
        return replace(self, cumulative_paid=self.cumulative_paid + int(header.paid), held=more)

    def keep(self, guests: Collection[str], reports: Collection[str]) -> Chain:
        """The chain without what is said of guest pods and reports that there are no more."""
        accounts = {key: one for key, one in self.accounts.items() if key.guest_pod in guests}
        return replace(self, accounts=accounts, reports=self.reports.intersection(reports))

    def _entered(self, claim: Claim) -> dict[Key, Account]:
        accounts = dict(self.accounts)
        for line in claim.lines:
            key = _key(line)
            accounts[key] = accounts.get(key, _NONE).after(line, claim.header.sequence)
        return accounts


def _key(line: Line) -> Key:
    return Key(line.guest_pod, line.resource, line.basis)


@dataclass(frozen=True)
class Payee:
    """Whose chain: federation id, pool name, Home UID; and how its charges are split."""

    federation: str
    pool: str
    home: str
    fee_ppm: int = 0
    held_ppm: int = 0
    hold_months: int = 9
    """So many whole calendar months what is held stays held."""
    release: Release = "due"
    held_schedule: tuple[int, ...] = ()
    """`held_ppm` by month of membership."""
    joined: int = 0
    """Seconds: from when months of membership are counted."""
    rate_card_digest: str = "0" * 64

    @property
    def account(self) -> str:
        return names.contributor_account(self.federation, self.home)

    def at(self, window: Window) -> Payee:
        """With the held-back share of the month in which the window ends."""
        return replace(self, held_ppm=held_ppm(self.held_schedule, self.joined, window.end))


def claim_name(pool: str, window: Window, identity: str) -> str:
    """Of the header's object; lines parts are `<name>-l<n>`."""
    return f"{pool}-{window.end}-{identity[:8]}"


def objects(claim: Claim, mailbox: str, key: Ed25519PrivateKey) -> tuple[list[Json], Json]:
    """RewardClaims: of the lines parts, and of the header. Write the parts first."""
    return objects_of(claim, mailbox, dsse.sign(claim.header.dump(), dsse.CLAIM_TYPE, key).encode())


def objects_of(claim: Claim, mailbox: str, envelope: str) -> tuple[list[Json], Json]:
    """The same for a claim that is signed already; `envelope` as in `spec.envelope`."""
    parts = [
        _object(claim, mailbox, part.part, base64.b64encode(body).decode())
        for part, body in zip(claim.parts, claim.part_bodies(), strict=True)
    ]
    return parts, _object(claim, mailbox, 0, envelope)


def _object(claim: Claim, mailbox: str, number: int, envelope: str) -> Json:
    header = claim.header
    return {
        "metadata": {"name": f"{claim.name}-l{number}" if number else claim.name, "namespace": mailbox},
        "spec": {
            "claimId": header.id,
            "part": "Lines" if number else "Header",
            "number": number,
            "poolName": header.pool,
            "windowStart": header.window_start,
            "windowEnd": header.window_end,
            "sequence": header.sequence,
            "charged": "0" if number else header.charged,
            "paid": "0" if number else header.paid,
            "envelope": envelope,
        },
    }


def part_bytes(obj: Mapping[str, Any]) -> bytes:
    """The canonical lines document in a RewardClaim of part Lines."""
    return base64.b64decode(obj["spec"]["envelope"])


def read(header: Mapping[str, Any], parts: Iterable[Mapping[str, Any]], keys: Mapping[str, bytes]) -> Claim:
    """A claim from its RewardClaim objects. Errors: Incident where they are not what the hub's key signed.

    `parts` may be in any order and hold parts of other claims.
    """
    name = header["metadata"]["name"]
    try:
        envelope = dsse.decode(header["spec"]["envelope"])
        document = read_header(envelope, keys)
    except Invalid as error:
        raise Incident(f"claim {name}: {error.message}", reason=error.reason) from error
    own = {obj["spec"]["number"]: part_bytes(obj) for obj in parts if obj["spec"]["claimId"] == document.id}
    return assemble(document, hashlib.sha256(envelope.payload).hexdigest(), own)


def assemble(header: ClaimHeader, header_digest: str, parts: Mapping[int, bytes]) -> Claim:
    """A claim from its verified header and the canonical bytes of its parts; Incident where a digest differs."""
    documents, bodies = [], []
    for number, expected in enumerate(header.parts, start=1):
        data = parts.get(number, b"")
        bodies.append(data)
        if hashlib.sha256(data).hexdigest() != expected:
            raise Incident(f"claim {header.id}: lines part {number} is missing or altered", reason="PartDiffers")
        documents.append(parse(LinesPart, canonical.parse(data, limit=MAX_PART), where="lines"))
    return Claim(header, header_digest, tuple(documents), tuple(bodies))
