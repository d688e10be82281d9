"""From untrusted bytes to documents that are signed, canonical and agree with themselves; whatever is wrong is Invalid.

This is all that can be decided without the ledger's state: it is done before the writer's queue, on any core.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from homefed.api import dsse
from homefed.api.canonical import parse as parse_json
from homefed.api.canonical import parse_canonical
from homefed.api.claim_document import MAX_HEADER, MAX_PART, ClaimHeader, Line, LinesPart
from homefed.api.errors import Invalid
from homefed.api.ledger_documents import MAX_LEAF, Floor, Resolution
from homefed.api.meta import parse
from homefed.core.ledger import (
    MAX_AMOUNT,
    MICRO_CREDIT,
    UNITS_OF,
    PartSummary,
    Sums,
    Transfer,
    line_amount,
    sums_of,
    transfers,
    usage_unit,
)
from homefed.core.ledger_checks import check_claim, check_floor, check_resolution
from homefed.core.merkle import leaf_hash

Kind = Literal["claim", "resolution", "floor"]
Keys = Callable[[str], Mapping[str, bytes]]
"""A keyid's registered hub keys (keyid → raw public key), none when it is unknown; Invalid when it was revoked."""
_MEMBERS: Final = frozenset({"payloadType", "payload", "signatures"})
_SIGNATURE_MEMBERS: Final = frozenset({"keyid", "sig"})
_PLAIN: Final = re.compile(
    rb'\{"payload":"([A-Za-z0-9+/=]*)","payloadType":"([ !#-\[\]-~]*)",'
    rb'"signatures":\[\{"keyid":"([ !#-\[\]-~]*)","sig":"([A-Za-z0-9+/=]*)"\}\]\}'
)
"""An envelope in canonical form without escapes, as the hub sends it and as leaves are: read at a third of the cost."""
PAYLOAD_TYPES: Final[Mapping[Kind, str]] = {
    "claim": dsse.CLAIM_TYPE,
    "resolution": dsse.RESOLUTION_TYPE,
    "floor": dsse.FLOOR_TYPE,
}


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A claim that agrees with itself; what is left depends on the ledger's state."""

    header: ClaimHeader
    sums: Sums
    """As the header says, whatever its phase; of a reversal: of what it takes back."""
    transfers: tuple[Transfer, ...]


Content = CheckedClaim | Resolution | Floor


@dataclass(frozen=True, slots=True)
class Submission:
    """One document that was sent to be kept under `id`. Invalid ones are kept too: the id is looked up first."""

    kind: Kind
    id: str
    envelope: bytes
    """What becomes the leaf: the envelope's canonical JSON. Empty when the body was no envelope."""
    leaf_hash: bytes
    """RFC 6962: SHA-256(0 ‖ envelope). Equal hash, equal bytes."""
    digest: str
    """SHA-256 of the signed payload."""
    content: Content | Invalid

    @property
    def size(self) -> int:
        return len(self.envelope)


@dataclass(frozen=True, slots=True)
class PartSubmission:
    """A lines part that `read_part` has checked."""

    claim: str
    number: int
    summary: PartSummary
    body: bytes

    @property
    def size(self) -> int:
        return len(self.body)


def read_submission(kind: Kind, identity: str, body: bytes, *, federation: str, keys: Keys) -> Submission:
    """Read, verify and check what was sent to be kept under `identity`. Never raises: what is wrong is the content.

    `federation` is the ledger's own.
    """
    try:
        envelope = envelope_of(body)
        leaf = envelope.canonical()
        if len(leaf) > MAX_LEAF:
            raise Invalid(f"payload: the envelope has {len(leaf)} bytes, at most {MAX_LEAF}", reason="TooLarge")
    except Invalid as error:
        return Submission(kind, identity, b"", b"", "", error)
    try:
        content = read_content(kind, envelope, federation=federation, keys=keys, identity=identity)
    except Invalid as error:
        return Submission(kind, identity, leaf, leaf_hash(leaf), payload_digest(envelope), error)
    return Submission(kind, identity, leaf, leaf_hash(leaf), payload_digest(envelope), content)


def read_content(
    kind: Kind, envelope: dsse.Envelope, *, federation: str, keys: Keys, identity: str | None = None
) -> Content:
    """The document of an envelope, once its signature holds and it agrees with itself. Errors: Invalid.

    `identity` is what it was sent as; None: whatever its own key gives.
    """
    registered = keys(envelope.keyid)
    if kind == "claim":
        header = read_header(envelope, registered)
        check_claim(header, claim=identity or header.id, federation=federation)
        return CheckedClaim(header, sums_of(header), transfers(header))
    value = dsse.verify(envelope, PAYLOAD_TYPES[kind], registered)
    if kind == "resolution":
        resolution = parse(Resolution, value, where="resolution")
        check_resolution(resolution, identity=identity or resolution.id, federation=federation)
        return resolution
    floor = parse(Floor, value, where="floor")
    check_floor(floor, identity=identity or floor.id, federation=federation)
    return floor


def envelope_of(body: bytes) -> dsse.Envelope:
    """Read an untrusted body: one DSSE envelope in JSON, with no members that the protocol does not name."""
    plain = _PLAIN.fullmatch(body) if len(body) <= MAX_LEAF else None
    if plain is not None:
        return dsse.from_texts(*plain.groups())
    value = parse_json(body, limit=MAX_LEAF)
    envelope = dsse.from_json(value)
    if value.keys() != _MEMBERS or value["signatures"][0].keys() != _SIGNATURE_MEMBERS:
        raise Invalid("the envelope has members that DSSE does not name", reason="NotAnEnvelope")
    return envelope


def read_header(envelope: dsse.Envelope, keys: Mapping[str, bytes]) -> ClaimHeader:
    """The header of an envelope signed by a registered hub key (keyid → raw public key). Errors: Invalid."""
    if len(envelope.payload) > MAX_HEADER:
        raise Invalid(f"payload: {len(envelope.payload)} bytes, at most {MAX_HEADER}", reason="TooLarge")
    return parse(ClaimHeader, dsse.verify(envelope, dsse.CLAIM_TYPE, keys), where="claim")


def stored_header(leaf: bytes) -> ClaimHeader:
    """The header in a claim's leaf that the ledger has accepted: nothing of it is verified again."""
    payload = dsse.from_json(parse_json(leaf, limit=MAX_LEAF)).payload
    return parse(ClaimHeader, parse_json(payload, limit=MAX_HEADER), where="claim")


def payload_digest(envelope: dsse.Envelope) -> str:
    """SHA-256 of the signed bytes: what the next claim of the chain names as previous."""
    return hashlib.sha256(envelope.payload).hexdigest()


def read_part(body: bytes, claim: str, number: int) -> PartSummary:
    """Check an untrusted lines part that was sent as part `number` of `claim`. Errors: Invalid, naming the field."""
    try:
        value = parse_canonical(body, limit=MAX_PART)
    except Invalid as error:
        raise Invalid(f"lines: {error.message}", reason=error.reason) from error
    part = parse(LinesPart, value, where="lines")
    if part.claim != claim:
        raise Invalid(f"lines.claim: {part.claim} was sent as a part of {claim}", reason="WrongClaim")
    if part.part != number:
        raise Invalid(f"lines.part: {part.part} was sent as part {number}", reason="WrongPart")
    if not part.lines:
        raise Invalid("lines.lines: a part has at least one line", reason="EmptyPart")
    return PartSummary(hashlib.sha256(body).hexdigest(), len(body), len(part.lines), _amounts(part))


def _amounts(part: LinesPart) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for index, line in enumerate(part.lines):
        _check_line(line, f"lines.lines.{index}")
        own = found.setdefault(line.consumer, {})
        unit, accepted = usage_unit(line.basis, line.unit), int(line.accepted)
        own[unit] = own.get(unit, 0) + accepted
        own[MICRO_CREDIT] = own.get(MICRO_CREDIT, 0) + int(line.amount)
        if own[unit] > MAX_AMOUNT or own[MICRO_CREDIT] > MAX_AMOUNT:
            raise Invalid(f"lines.lines.{index}.accepted: sums are at most 2^60", reason="AmountRange")
    sums = {account: {unit: total for unit, total in own.items() if total} for account, own in found.items()}
    return {account: own for account, own in sums.items() if own}


def _check_line(line: Line, where: str) -> None:
    if not line.consumer.startswith("consumer:"):
        raise Invalid(f"{where}.consumer: {line.consumer} is not a consumer's account", reason="WrongAccount")
    unit = UNITS_OF[line.rate.per][0]
    if line.unit != unit:
        raise Invalid(f"{where}.unit: {line.unit} cannot be priced per {line.rate.per}", reason="WrongUnit")
    if int(line.accepted) > int(line.bound):
        raise Invalid(f"{where}.accepted: {line.accepted} is more than bound {line.bound}", reason="OverCapacity")
    rate = line.rate
    amount = line_amount(int(line.accepted), rate.micro_credits, rate.per, rate.price, line.factor)
    if int(line.amount) != amount:
        raise Invalid(f"{where}.amount: {line.amount}, but accepted × rate × factors is {amount}", reason="WrongAmount")
