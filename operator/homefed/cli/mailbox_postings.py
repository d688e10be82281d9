"""The claims of one mailbox, as the sums of earnings want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homefed.api import dsse, names
from homefed.api.claim_document import ClaimHeader, LinesPart
from homefed.api.errors import Refused
from homefed.api.meta import parse
from homefed.cli.as_home import Mailbox
from homefed.cli.claim_files import part_of
from homefed.core import earnings as core
from homefed.core import held
from homefed.core.earnings import Posting
from homefed.kube.resources import GUESTPODS, OFFERS, REWARDCLAIMS

Json = dict[str, Any]


@dataclass(frozen=True)
class Box:
    """What a mailbox shows."""

    postings: Sequence[Posting]
    account: str
    """The contributor's."""
    held: int
    """µcredit held back, by the newest claims."""
    spaces: Mapping[str, str]
    """UID of a consumer's namespace → its name, of guests that are there."""

    @property
    def federation(self) -> str:
        return self.account.partition(":")[2].partition("/")[0]


async def look(found: Mailbox) -> Box:
    claims = (await found.hub.list(REWARDCLAIMS, found.name)).items
    offers = (await found.hub.list(OFFERS, found.name)).items
    guests = (await found.hub.list(GUESTPODS, found.name)).items
    spaces = {one["spec"]["namespaceUid"]: one["spec"]["podNamespace"] for one in guests}
    return Box(_postings(claims), _account(claims, offers, found.name), sum(held.outstanding(claims).values()), spaces)


def _account(claims: Sequence[Json], offers: Sequence[Json], mailbox: str) -> str:
    for status in (offer.get("status") or {} for offer in offers):
        if status.get("federationId") and status.get("homeUid"):
            return names.contributor_account(status["federationId"], status["homeUid"])
    for claim in claims:
        if claim["spec"]["part"] == "Header":
            return _header(claim).account
    raise Refused(
        f"mailbox {mailbox} has no answered Offer and no claim: the hub has not accepted this home yet", reason="Empty"
    )


def _header(claim: Json) -> ClaimHeader:
    return parse(ClaimHeader, dsse.document_of(dsse.decode(claim["spec"]["envelope"])), where="claim")


def _postings(claims: Sequence[Json]) -> list[Posting]:
    """The newest that there are: what has a receipt counts."""
    headers = {claim["spec"]["claimId"]: (claim, _header(claim)) for claim in claims if _is_header(claim)}
    reversed_ = {header.reverses for _, header in headers.values()}
    lines: dict[str, list[LinesPart]] = {}
    for claim in claims:
        if not _is_header(claim):
            lines.setdefault(claim["spec"]["claimId"], []).append(parse(LinesPart, part_of(claim), where="lines"))
    found = []
    for identity, (claim, header) in headers.items():
        own = [line for part in lines.get(identity, ()) for line in part.lines]
        found.append(Posting(header, _state(claim, header, reversed_), None if header.reverses else tuple(own)))
    return core.with_reversed_lines(sorted(found, key=lambda one: (one.header.window_end, one.header.sequence)))


def _is_header(claim: Json) -> bool:
    return bool(claim["spec"]["part"] == "Header")


def _state(claim: Json, header: ClaimHeader, reversed_: set[str]) -> core.State:
    if not (claim.get("status") or {}).get("receipt"):
        return "unreceipted"
    if header.id in reversed_:
        return "reversed"
    return "pending" if header.phase == "pending" else "posted"
