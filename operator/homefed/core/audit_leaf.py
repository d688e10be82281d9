"""What an audit takes from one bundle of leaves: stateless, so that bundles can be read on all cores.

What comes back is plain tuples, as it travels between processes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

from homefed.api import dsse
from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import ClaimHeader
from homefed.api.errors import Invalid
from homefed.api.ledger_documents import MAX_LEAF, Resolution
from homefed.core.ledger import Transfer, resolved, sums_of
from homefed.core.ledger_checks import TAKEN_BACK, previous_revision
from homefed.core.ledger_reading import (
    PAYLOAD_TYPES,
    CheckedClaim,
    Content,
    Kind,
    envelope_of,
    payload_digest,
    read_content,
)
from homefed.core.merkle import leaf_hash
from homefed.core.tlog_tiles import decode_bundle

Moves = tuple[tuple[str, str, int], ...]
"""Account, unit, and what is added to it."""
Money = tuple[int, int, int, int, int, int]
"""charged, paid, held, released, fee, dust in µcredit."""
_ID: Final = re.compile(r"[0-9a-f]{64}")


class ClaimFacts(NamedTuple):
    """What of a claim the ledger's state depends on."""

    pool: str
    account: str
    window_start: str
    window_end: str
    sequence: int
    previous: bytes
    """Digest of the header before."""
    cumulative_paid: int
    phase: str
    reverses: bool
    revision: int
    revised: bytes
    """Id of the revision before; empty for revision 0."""
    money: Money
    held_back: int | None
    """µcredit that it says are held of its chain; None where it does not say."""
    fingerprint: bytes
    """16 bytes over all that a reversal has to repeat."""
    moves: Moves
    """What the claim itself moves."""
    posted: Moves
    """Of a pending claim: what posting it moves, the reservation's end included. Else empty."""
    voided: Moves
    """Of a pending claim: what voiding it moves. Else empty."""


class ResolutionFacts(NamedTuple):
    claim: bytes
    outcome: str


class FloorFacts(NamedTuple):
    account: str
    floor: int | None
    sequence: int


class LeafFacts(NamedTuple):
    """One leaf. Where it is not what it should be, `fault` is reason and message, and `body` is None."""

    leaf_index: int
    kind: str
    """claim, resolution or floor; empty where not even that can be read."""
    id: str
    digest: bytes
    """SHA-256 of the signed payload."""
    fault: tuple[str, str] | None
    body: ClaimFacts | ResolutionFacts | FloorFacts | None
    leaf: bytes = b""
    """The leaf itself, where it was asked for."""


class BundleFacts(NamedTuple):
    """The leaves of one bundle, from `first` on."""

    first: int
    hashes: tuple[bytes, ...]
    leaves: tuple[LeafFacts, ...]
    fault: tuple[str, str] | None = None
    """The bundle is not what it must be: what of it can be read is here, and what follows cannot be placed."""


class HubKey(NamedTuple):
    """A key of a hub; what it signed is good in the leaves before `until` (None: all)."""

    public: bytes
    """Raw Ed25519."""
    until: int | None = None


class LeafRules(NamedTuple):
    """What every leaf is judged by."""

    federation: str
    keys: Mapping[str, HubKey]
    """keyid → key."""
    keep_leaves: bool = False

    def registered(self, index: int, keyid: str) -> Mapping[str, bytes]:
        """The key by which that leaf may be signed. Invalid (KeyRevoked) where it had been revoked by then."""
        key = self.keys.get(keyid)
        if key is None:
            return {}
        if key.until is not None and index >= key.until:
            raise Invalid(f"signed by {keyid}, revoked from leaf {key.until} on", reason="KeyRevoked")
        return {keyid: key.public}


def read_bundle(rules: LeafRules, first: int, count: int, skip: int, data: bytes) -> BundleFacts:
    """The facts of the last `count` leaves of an untrusted bundle, the first of which has index `first`.

    `skip` leaves before them are known already. Never raises: what is wrong is in the facts.
    """
    try:
        entries = decode_bundle(data)
    except Invalid as error:
        return BundleFacts(first, (), (), (error.reason, error.message))
    fault = None
    if len(entries) != skip + count:
        message = f"leaves {first} to {first + count - 1}: {len(entries) - skip} leaves are served instead of {count}"
        fault = ("LeavesMissing", message)
    wanted = entries[skip : skip + count]
    leaves = tuple([read_leaf(rules, first + place, leaf) for place, leaf in enumerate(wanted)])
    return BundleFacts(first, tuple(map(leaf_hash, wanted)), leaves, fault)


def read_leaf(rules: LeafRules, index: int, leaf: bytes) -> LeafFacts:
    """Signature, canonical form, id, and that the document agrees with itself."""
    kept = leaf if rules.keep_leaves else b""
    try:
        envelope = envelope_of(leaf)
        kind = _kind(envelope)
    except Invalid as error:
        return LeafFacts(index, "", "", b"", (error.reason, error.message), None, kept)
    digest = bytes.fromhex(payload_digest(envelope))
    try:
        if envelope.canonical() != leaf:
            raise Invalid("the envelope is not in canonical form (RFC 8785)", reason="NotCanonical")
        content = read_content(kind, envelope, federation=rules.federation, keys=partial(rules.registered, index))
    except Invalid as error:
        named = _named(envelope)
        return LeafFacts(index, kind, named, digest, (error.reason, error.message), None, kept)
    identity, body = _facts(content)
    return LeafFacts(index, kind, identity, digest, None, body, kept)


def name_of(leaf: bytes) -> tuple[Kind, str]:
    """Kind and id of a leaf, unverified. Errors: Invalid where it has none."""
    envelope = envelope_of(leaf)
    kind, named = _kind(envelope), _named(envelope)
    if not named:
        raise Invalid("the document has no id", reason="WrongId")
    return kind, named


def _kind(envelope: dsse.Envelope) -> Kind:
    for kind, payload_type in PAYLOAD_TYPES.items():
        if payload_type == envelope.payload_type:
            return kind
    raise Invalid(f"payloadType {envelope.payload_type[:80]!r} is not of this ledger", reason="WrongType")


def _named(envelope: dsse.Envelope) -> str:
    """The id that a document gives itself, to name it in a finding; empty where it gives none."""
    try:
        value = parse_json(envelope.payload, limit=MAX_LEAF)
    except Invalid:
        return ""
    named = value.get("id") if isinstance(value, dict) else None
    return named if isinstance(named, str) and _ID.fullmatch(named) else ""


def _facts(content: Content) -> tuple[str, ClaimFacts | ResolutionFacts | FloorFacts]:
    match content:
        case CheckedClaim(header=header, transfers=moves):
            return header.id, _claim_facts(header, moves)
        case Resolution():
            return content.id, ResolutionFacts(bytes.fromhex(content.claim), content.outcome)
        case _:
            floor = int(content.floor) if content.floor else None
            return content.id, FloorFacts(content.account, floor, content.sequence)


def _claim_facts(header: ClaimHeader, moves: tuple[Transfer, ...]) -> ClaimFacts:
    pending = header.phase == "pending"
    sums = sums_of(header)
    return ClaimFacts(
        pool=header.pool,
        account=header.account,
        window_start=header.window_start,
        window_end=header.window_end,
        sequence=header.sequence,
        previous=bytes.fromhex(header.previous_digest),
        cumulative_paid=int(header.cumulative_paid),
        phase=header.phase,
        reverses=bool(header.reverses),
        revision=header.revision,
        revised=bytes.fromhex(previous_revision(header)) if header.revision else b"",
        money=(sums.charged, sums.paid, sums.held, sums.released, sums.fee, sums.dust),
        held_back=None if header.held_back is None else sum(int(share.amount) for share in header.held_back),
        fingerprint=_fingerprint(header),
        moves=_plain(moves),
        posted=_plain(resolved(header, "post")) if pending else (),
        voided=_plain(resolved(header, "void")) if pending else (),
    )


def _fingerprint(header: ClaimHeader) -> bytes:
    consumers = [
        (one.account, one.charged, [(total.basis, total.unit, total.amount) for total in one.usage])
        for one in header.consumers
    ]
    repeated = [consumers if name == "consumers" else getattr(header, name) for name in TAKEN_BACK]
    return hashlib.sha256(repr(repeated).encode()).digest()[:16]


def _plain(moves: tuple[Transfer, ...]) -> Moves:
    return tuple([(account, unit, amount) for account, unit, amount in moves])
