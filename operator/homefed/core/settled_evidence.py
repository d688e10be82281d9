"""What the home sees of the hub's side when a window has been settled, put together for the window's bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homefed.api import dsse
from homefed.api.claim_document import ClaimHeader
from homefed.api.errors import Invalid
from homefed.api.evidence_document import Settled, SettledClaim
from homefed.api.meta import parse
from homefed.core import claim_chain, evidence
from homefed.core.claim_chain import Chain, Claim
from homefed.core.ledger_reading import payload_digest

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A claim in its chain, as the mailbox shows it; the hub's signature is not looked at."""

    claim: Claim
    envelope: dsse.Envelope
    before: Chain
    previous: dsse.Envelope | None
    after: Chain


def places(objects: Iterable[Mapping[str, Any]], known: Place | None = None) -> Iterator[Place]:
    """The claims among RewardClaims of one home and pool, in order, but those up to `known`, the last one that was
    given before. Errors: Incident or Invalid where they do not follow each other, or parts are missing or altered."""
    everything = list(objects)
    headers = sorted(filter(_is_header, everything), key=lambda obj: int(obj["spec"]["sequence"]))
    chain, previous = Chain(), None
    if known is not None and any(_is(obj, known) for obj in headers):
        chain, previous = known.after, known.envelope
        headers = [obj for obj in headers if int(obj["spec"]["sequence"]) > chain.sequence]
    for obj in headers:
        place = _place(obj, everything, chain, previous)
        yield place
        chain, previous = place.after, place.envelope


def _is(obj: Mapping[str, Any], known: Place) -> bool:
    """Whether it is still the same: a hub that was restored from a backup may have made another one."""
    same = obj["spec"]["claimId"] == known.claim.header.id
    return bool(same and obj["spec"]["envelope"] == known.envelope.encode())


def _place(
    obj: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], chain: Chain, previous: dsse.Envelope | None
) -> Place:
    envelope = dsse.decode(obj["spec"]["envelope"])
    claim = _claim(envelope, obj["spec"]["claimId"], objects)
    back = next((one for one in objects if one["spec"]["claimId"] == claim.header.reverses and _is_header(one)), None)
    taken_back = _claim(dsse.decode(back["spec"]["envelope"]), claim.header.reverses, objects) if back else None
    return Place(claim, envelope, chain, previous, chain.after(claim, taken_back))


def _is_header(obj: Mapping[str, Any]) -> bool:
    return bool(obj["spec"]["part"] == "Header")


def _claim(envelope: dsse.Envelope, claim_id: str, objects: Iterable[Mapping[str, Any]]) -> Claim:
    header = parse(ClaimHeader, dsse.document_of(envelope), where="claim")
    if header.id != claim_id:
        raise Invalid(f"RewardClaim of {claim_id} holds the header of {header.id}", reason="WrongId")
    parts = {
        int(obj["spec"]["number"]): claim_chain.part_bytes(obj)
        for obj in objects
        if obj["spec"]["claimId"] == claim_id and obj["spec"]["part"] == "Lines"
    }
    return claim_chain.assemble(header, payload_digest(envelope), parts)


def settled(
    place: Place, offer: Mapping[str, Any], guests: Sequence[Mapping[str, Any]], earlier: Sequence[dsse.Envelope]
) -> Settled:
    """`offer`: the status of an Offer into the pool; `guests`: GuestPods of the pool; `earlier`: reports of other
    windows that the claim rests on."""
    return Settled(
        claim=SettledClaim(envelope=place.envelope.to_json(), parts=list(place.claim.parts)),
        terms=dict(offer.get("terms") or {}),
        member_since=offer.get("memberSince"),
        guests=[evidence.guest_excerpt(guest) for guest in guests if "observed" in guest.get("spec", {})],
        before=evidence.place_of(place.before, place.previous, guests),
        earlier=[one.to_json() for one in earlier],
    )


def digest_of(report: Mapping[str, Any]) -> str:
    """Of a report in its envelope's JSON: what a claim quotes it by."""
    return payload_digest(dsse.from_json(report))


def reports_among(objects: Iterable[Mapping[str, Any]], wanted: Iterable[str]) -> list[dsse.Envelope]:
    """Envelopes of UsageReports with these digests; looked for until all are found."""
    missing, found = set(wanted), []
    for obj in objects:
        if not missing:
            break
        envelope = dsse.decode(obj["spec"]["envelope"])
        digest = payload_digest(envelope)
        if digest in missing:
            missing.discard(digest)
            found.append(envelope)
    return found
