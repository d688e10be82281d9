"""What a hub's objects say was metered, claimed and paid, decoded from the signed documents in the mailboxes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from homefed.api import dsse, names
from testbed.federated import Federated, Json

API: Final = "/apis/homefed.io/v1alpha1"
SHARES: Final = ("paid", "held", "fee", "dust")


@dataclass(frozen=True)
class Claim:
    """A header with its lines, as the mailbox has them."""

    home: str
    obj: Json
    lines: Sequence[Json]

    @cached_property
    def header(self) -> Json:
        return dict(json.loads(dsse.decode(self.obj["spec"]["envelope"]).payload))

    @property
    def id(self) -> str:
        return str(self.obj["spec"]["claimId"])

    @property
    def window_end(self) -> str:
        return str(self.obj["spec"]["windowEnd"])

    @property
    def receipt(self) -> str | None:
        return (self.obj.get("status") or {}).get("receipt")

    def amount(self, name: str) -> int:
        """charged, paid, held, fee or dust, in µcredit."""
        return int(self.header[name])


@dataclass(frozen=True)
class Metered:
    """One guest and resource: cumulative units since the pod's start."""

    reported: int
    accepted: int
    estimated: int
    """Of `reported`: from the last sample to the container's end."""
    at_ms: int
    """Of the last sample, or of the end of the pod where `ended`."""
    ended: bool
    codes: tuple[str, ...] = ()


def claims_of(federation: Federated, pool: str) -> list[Claim]:
    """By window and home. Claims whose lines are not all there yet are left out, as their header is written last."""
    found = []
    for home in federation.homes:
        objects = _mailbox(federation, home, "rewardclaims", pool)
        for obj in objects:
            if obj["spec"]["part"] == "Header":
                found.append(Claim(home, obj, list(_lines(objects, obj["spec"]["claimId"]))))
    return sorted(found, key=lambda claim: (claim.window_end, claim.home))


def reports_of(federation: Federated, home: str, pool: str) -> list[Json]:
    """The documents of a home's reports, oldest window first."""
    objects = _mailbox(federation, home, "usagereports", pool)
    documents = [json.loads(dsse.decode(obj["spec"]["envelope"]).payload) for obj in objects]
    return sorted(documents, key=lambda one: (one["windowEnd"], one["part"]))


def metered(claims: Iterable[Claim], reports: Iterable[Json]) -> dict[tuple[str, str], Metered]:
    """(guest pod UID, resource) → what the claims accepted, beside the readings on which they rest.

    `claims` and `reports` are of one home; reports that no claim has used yet are left out."""
    listed = sorted(claims, key=lambda claim: claim.window_end)
    newest = listed[-1].window_end if listed else ""
    used = [report for report in reports if report["windowEnd"] <= newest]
    readings = {(one["guestPod"], one["resource"]): one for report in used for one in report["readings"]}
    estimated: dict[tuple[str, str], int] = {}
    for report in used:
        for line in report["lines"]:
            key = line["guestPod"], line["resource"]
            estimated[key] = estimated.get(key, 0) + int(line["estimated"])
    return {
        key: Metered(
            int((line["reading"] or {}).get("close", 0)),
            int(line["acceptedBefore"]) + int(line["accepted"]),
            estimated.get(key, 0),
            readings[key]["time"],
            readings[key]["ended"],
            tuple(line["codes"]),
        )
        for claim in listed
        for line in claim.lines
        if line["basis"] == "used" and (key := (line["guestPod"], line["resource"])) in readings
    }


def reserved(claims: Iterable[Claim]) -> dict[tuple[str, str], int]:
    """(guest pod UID, resource) → units paid as reserved so far."""
    return {
        (line["guestPod"], line["resource"]): int(line["acceptedBefore"]) + int(line["accepted"])
        for claim in sorted(claims, key=lambda one: one.window_end)
        for line in claim.lines
        if line["basis"] == "reserved"
    }


def imbalances(claims: Sequence[Claim], totals: Mapping[str, Any]) -> list[str]:
    """What does not add up: each claim in itself, and the ledger's own totals against the sum over the claims."""
    wrong = [
        f"claim {claim.id[:12]}: charged {claim.amount('charged')}, shared out {shared}"
        for claim in claims
        if (shared := sum(claim.amount(name) for name in SHARES)) != claim.amount("charged")
    ]
    sums = {name: sum(claim.amount(name) for claim in claims) for name in ("charged", *SHARES)}
    accounts = {kind: int(amount) for kind, amount in totals["accounts"].items()}
    expected = {"consumer": -sums["charged"], "contributor": sums["paid"], "held": sums["held"]}
    expected |= {"fee": sums["fee"], "dust": sums["dust"]}
    wrong += [
        f"ledger: {kind} accounts hold {accounts.get(kind, 0)}, the claims say {amount}"
        for kind, amount in expected.items()
        if accounts.get(kind, 0) != amount
    ]
    if int(totals["charged"]) != sums["charged"]:
        wrong.append(f"ledger: charged {totals['charged']}, the claims say {sums['charged']}")
    if not totals["conserved"]:
        wrong.append("ledger: says itself that its transfers do not balance")
    return wrong


def _mailbox(federation: Federated, home: str, plural: str, pool: str) -> list[Json]:
    path = f"{API}/namespaces/{names.mailbox(home)}/{plural}"
    return [obj for obj in federation.hub.api.get(path)["items"] if obj["spec"]["poolName"] == pool]


def _lines(objects: Iterable[Json], claim_id: str) -> Iterator[Json]:
    parts = [one for one in objects if one["spec"]["claimId"] == claim_id and one["spec"]["part"] == "Lines"]
    for part in sorted(parts, key=lambda one: int(one["spec"]["number"])):
        yield from json.loads(base64.b64decode(part["spec"]["envelope"]))["lines"]
