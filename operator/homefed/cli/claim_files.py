"""A claim with its lines, from the hub's objects or from a file that was written of it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from homefed.api import dsse
from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import ClaimHeader, LinesPart
from homefed.api.errors import Invalid
from homefed.api.meta import parse
from homefed.core import evidence
from homefed.kube.client import KubeClient
from homefed.kube.resources import GUESTPODS, REWARDCLAIMS

Row = dict[str, Any]
MAX_FILE: Final = 128 * 2**20

mailbox_option = click.option(
    "--mailbox", default=None, help="Look into this namespace only, as its contributor's credential allows."
)


@dataclass(frozen=True)
class ClaimFile:
    """What was signed, and what is trusted through it. Nothing is verified yet."""

    envelope: dsse.Envelope
    parts: tuple[LinesPart, ...]
    guests: tuple[Row, ...] = field(default=())
    """GuestPods of its home and pool, where they are at hand."""

    @property
    def header(self) -> ClaimHeader:
        return parse(ClaimHeader, dsse.document_of(self.envelope), where="claim")


async def objects_of(kube: KubeClient, claim: str, mailbox: str | None) -> list[Row]:
    """RewardClaims of the one claim whose id begins so, header first; Invalid where there is none, or several."""
    everything = (await kube.list(REWARDCLAIMS, mailbox)).items
    matching = {item["spec"]["claimId"] for item in everything if item["spec"]["claimId"].startswith(claim)}
    if len(matching) != 1:
        raise Invalid(f"CLAIM {claim!r}: {len(matching)} claims begin so; see `homefed claims list`")
    (claim_id,) = matching
    parts = [item for item in everything if item["spec"]["claimId"] == claim_id]
    if not any(item["spec"]["part"] == "Header" for item in parts):
        raise Invalid(f"claim {claim_id} has no header yet: it is being written; try again in a moment")
    return sorted(parts, key=lambda item: int(item["spec"]["number"]))


async def from_hub(kube: KubeClient, claim: str, mailbox: str | None) -> ClaimFile:
    header, *parts = await objects_of(kube, claim, mailbox)
    guests = (await kube.list(GUESTPODS, header["metadata"]["namespace"])).items
    own = [guest for guest in guests if guest["spec"]["poolName"] == header["spec"]["poolName"]]
    documents = [part_of(item) for item in parts]
    return ClaimFile(dsse.decode(header["spec"]["envelope"]), _parts(documents), tuple(own))


def part_of(item: Row) -> Row:
    """The lines document in a RewardClaim of part Lines."""
    return dict(json.loads(base64.b64decode(item["spec"]["envelope"])))


def from_file(path: Path) -> ClaimFile:
    """`homefed claims show CLAIM -o json`, or an evidence bundle that a claim has been added to.

    Errors: Invalid, naming the file and the member.
    """
    if path.name.endswith(".gz"):
        return _from_bundle(path)
    document = parse_json(path.read_bytes(), limit=MAX_FILE)
    if not isinstance(document, dict) or not isinstance(document.get("parts"), list):
        raise Invalid(f"{path}: no claim with its parts, as `homefed claims show CLAIM -o json` writes it")
    return ClaimFile(dsse.from_json(document.get("envelope")), _parts(document["parts"]))


def _from_bundle(path: Path) -> ClaimFile:
    bundle = evidence.read(path.read_bytes())
    if bundle.settled is None:
        raise Invalid(f"{path}: no claim is in this bundle yet: its window had not been settled when it was written")
    claim = bundle.settled.claim
    return ClaimFile(dsse.from_json(claim.envelope), tuple(claim.parts), tuple(bundle.settled.guests))


def _parts(documents: list[Row]) -> tuple[LinesPart, ...]:
    return tuple(parse(LinesPart, one, where=f"parts.{number}") for number, one in enumerate(documents))
