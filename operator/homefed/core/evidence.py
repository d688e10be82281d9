"""Evidence bundles as bytes and values: how they are made, read back, and how the claim is added to one.

A bundle's file is gzip of canonical JSON. What it rests on is named by `digest`: of its member `evidence` alone.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, get_args

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import ClaimHeader
from homefed.api.errors import Invalid
from homefed.api.evidence_document import Bundle, ChainBefore, EvidenceDocument, KnownAccount, Settled
from homefed.api.meta import Document, parse
from homefed.api.report_document import Reading
from homefed.core.claim_chain import Chain, Claim
from homefed.core.ledger_reading import payload_digest
from homefed.core.metering import METER_VERSION, Guest, Settings, Span
from homefed.core.readings import Origin
from homefed.core.rewards import Account, Key
from homefed.core.samples import Metric, RawSeries
from homefed.core.windows import Window, seconds

MAX_BUNDLE: Final = 512 * 2**20
"""Bytes of a bundle, unpacked."""
_LEVEL: Final = 3
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode

Json = dict[str, Any]


def encode(
    origin: Origin,
    window: Window,
    series: Iterable[RawSeries],
    guests: Iterable[Guest],
    readings: Iterable[Reading],
    settings: Settings,
    *,
    asked_at: int,
) -> bytes:
    """The canonical JSON of an EvidenceDocument: the same for the same inputs, in whatever order they come."""
    return _object(
        version=canonical(2),
        federation=canonical(origin.federation),
        pool=canonical(origin.pool),
        home=canonical(origin.home),
        windowStart=canonical(window.start_text),
        windowEnd=canonical(window.end_text),
        meterVersion=canonical(METER_VERSION),
        askedAt=canonical(asked_at),
        settings=canonical(_members(settings)),
        guests=canonical(sorted(map(_members, guests), key=lambda one: str(one["uid"]))),
        readings=canonical([_plain(one) for one in sorted(readings, key=_identity)]),
        series=b"[%b]" % b",".join(sorted(map(_series, series))),
    )


def digest(evidence: bytes) -> str:
    """SHA-256 of the canonical JSON: what the report says that it rests on."""
    return hashlib.sha256(evidence).hexdigest()


def _members(value: Guest | Settings) -> Json:
    """Of a dataclass, as JSON reads them back: tuples are lists there."""
    return dict(json.loads(_ENCODE(asdict(value))))


def _plain(value: Document) -> Json:
    """With its empty members, which `dump` leaves out: they may stand deep in what is a plain value here."""
    return value.model_dump(mode="json", by_alias=True)


def _identity(reading: Reading) -> tuple[str, str, str]:
    return reading.guest_pod, reading.container, reading.resource


def _series(one: RawSeries) -> bytes:
    """Samples are numbers and texts of our own parser: nothing to look for in each of them."""
    return _object(
        metric=canonical(one.metric),
        labels=canonical(dict(one.labels)),
        samples=_ENCODE(sorted(one.samples)).encode(),
    )


def _object(**members: bytes) -> bytes:
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), members[name]) for name in sorted(members))


def write(evidence: bytes | None, reports: Sequence[Json], settled: Settled | None = None) -> bytes:
    """A bundle's file: the same bytes for the same content. `evidence`: as `encode` gave it."""
    content = _object(
        version=canonical(1),
        evidence=evidence or b"null",
        reports=canonical([*reports]),
        settled=canonical(settled.dump() if settled is not None else None),
    )
    return gzip.compress(content, compresslevel=_LEVEL, mtime=0)


def write_again(bundle: Bundle) -> bytes:
    """The file of a bundle that was read."""
    evidence = None if bundle.evidence is None else encoded(bundle.evidence)
    return write(evidence, bundle.reports, bundle.settled)


def encoded(evidence: EvidenceDocument) -> bytes:
    """The canonical JSON of one that was read."""
    return canonical(_plain(evidence))


def read(data: bytes, *, limit: int = MAX_BUNDLE) -> Bundle:
    """Errors: Invalid, naming what is wrong."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, ValueError) as error:
        raise Invalid(f"not an evidence bundle (gzip): {error}", reason="NotABundle") from error
    if len(content) > limit:
        raise Invalid(f"an evidence bundle of more than {limit} bytes", reason="TooLarge")
    return parse(Bundle, _tuples(parse_json(content, limit=limit)), where="bundle")


def _tuples(value: Any) -> Any:
    """JSON has no tuples, and documents are strict about them."""
    evidence = value.get("evidence") if isinstance(value, dict) else None
    for series in evidence.get("series", ()) if isinstance(evidence, dict) else ():
        if isinstance(series, dict) and isinstance(series.get("samples"), list):
            series["samples"] = [tuple(one) if isinstance(one, list) else one for one in series["samples"]]
    return value


def origin_of(evidence: EvidenceDocument) -> Origin:
    return Origin(evidence.federation, evidence.pool, evidence.home)


def window_of(evidence: EvidenceDocument) -> Window:
    return Window(seconds(evidence.window_start), seconds(evidence.window_end))


def series_of(evidence: EvidenceDocument) -> list[RawSeries]:
    known: tuple[Metric, ...] = get_args(Metric)
    metrics = {str(one): one for one in known}
    found = []
    for number, row in enumerate(evidence.series):
        if row.metric not in metrics:
            raise Invalid(f"evidence.series.{number}.metric: {row.metric!r} is not known to this version")
        found.append(RawSeries(metrics[row.metric], row.labels, row.samples))
    return found


def settings_of(evidence: EvidenceDocument) -> Settings:
    try:
        return Settings(**evidence.settings)
    except TypeError as error:
        raise Invalid(f"evidence.settings: {error}: measured by another version of the meter?") from error


def guests_of(evidence: EvidenceDocument) -> list[Guest]:
    return [_guest(one, number) for number, one in enumerate(evidence.guests)]


def _guest(value: Json, number: int) -> Guest:
    try:
        containers = {name: _span(span) for name, span in value["containers"].items()}
        return Guest(**{**value, "life": _span(value["life"]), "containers": containers})
    except (TypeError, KeyError, AttributeError) as error:
        raise Invalid(f"evidence.guests.{number}: {error}: measured by another version of the meter?") from error


def _span(value: Json) -> Span:
    members: Json = {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
    return Span(**members)


def guest_excerpt(guest: Mapping[str, Any]) -> Json:
    """Of a GuestPod, what settlement looks at; the pod itself is not needed."""
    spec = {name: value for name, value in guest["spec"].items() if name not in ("pod", "copies", "stop", "observed")}
    annotations = guest["metadata"].get("annotations") or {}
    return {"metadata": {"annotations": dict(annotations)}, "spec": spec | {"observed": guest["spec"]["observed"]}}


def place_of(chain: Chain, previous: dsse.Envelope | None, guests: Iterable[Mapping[str, Any]]) -> ChainBefore:
    """What a chain, whose newest header is in `previous`, says of these GuestPods."""
    uids = {guest["spec"]["podUid"] for guest in guests}
    return ChainBefore(
        previous=previous.to_json() if previous is not None else None,
        accounts=[
            KnownAccount(
                guest_pod=key.guest_pod,
                resource=key.resource,
                basis=key.basis,
                known={name: value if isinstance(value, bool) else str(value) for name, value in vars(one).items()},
            )
            for key, one in sorted(chain.accounts.items())
            if key.guest_pod in uids
        ],
    )


def chain_of(place: ChainBefore) -> Chain:
    """Errors: Invalid where the header before is none."""
    chain = Chain()
    if place.previous is not None:
        envelope = dsse.from_json(place.previous)
        header = parse(ClaimHeader, dsse.document_of(envelope), where="settled.before.previous")
        chain = chain.after(Claim(header, payload_digest(envelope), ()))
    accounts = {Key(one.guest_pod, one.resource, one.basis): _account(one) for one in place.accounts}
    return replace(chain, accounts=accounts)


def _account(one: KnownAccount) -> Account:
    members: Json = {name: value if isinstance(value, bool) else int(value) for name, value in one.known.items()}
    try:
        return Account(**members)
    except TypeError as error:
        raise Invalid(f"settled.before.accounts: {one.guest_pod}: {error}: of another version?") from error
