"""Contributions and Offers as a pass knows them, read from the objects of either API server."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homefed.api import quantities
from homefed.api.contribution import ContributionSpec
from homefed.api.errors import Invalid
from homefed.api.meta import parse
from homefed.api.offer import OfferSpec, OfferStatus
from homefed.core import offer as offers

logger = logging.getLogger(__name__)

UNREADABLE: Final = ContributionSpec(pool_name="unreadable")

Json = dict[str, Any]


@dataclass
class Known:
    """One contribution as the last pass saw it."""

    obj: Json
    spec: ContributionSpec
    invalid: str | None = None
    selected: Sequence[str] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    plan: offers.Plan = field(default_factory=lambda: offers.Plan(()))

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    @property
    def deleting(self) -> bool:
        return bool(self.obj["metadata"].get("deletionTimestamp"))

    @property
    def generation(self) -> int:
        return int(self.obj["metadata"].get("generation", 0))


def read_contribution(obj: Json) -> Known:
    """A spec that cannot be read becomes a sentence, not a failure: the others go on."""
    obj.get("metadata", {}).pop("managedFields", None)
    try:
        spec = parse(ContributionSpec, obj.get("spec"), where="spec")
        for name, share in spec.resources.items():
            for text in filter(None, (share.limit, share.reserve)):
                quantities.parse(name, text)
    except Invalid as error:
        return Known(obj, UNREADABLE, invalid=error.message)
    return Known(obj, spec)


def spec_of(obj: Json) -> OfferSpec:
    """Of an Offer, as we wrote it; Invalid where somebody else did."""
    return parse(OfferSpec, obj["spec"], where=f"Offer {obj['metadata']['name']} spec")


def status_of(obj: Json) -> OfferStatus:
    """The hub's answer to an Offer; an empty one where it cannot be read."""
    try:
        return parse(OfferStatus, obj.get("status") or {}, where=f"Offer {obj['metadata']['name']} status")
    except Invalid as error:
        logger.warning("%s", error.message)
        return OfferStatus(conditions=[])


def finalizers_of(obj: Json) -> list[str]:
    return list(obj["metadata"].get("finalizers") or ())


def version_of(obj: Json) -> int:
    """Of two copies of one object, which is the newer."""
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdecimal() else 0
