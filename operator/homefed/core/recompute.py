"""A report and a claim, computed again from an evidence bundle, and compared byte for byte with what was signed.

What is not computed is taken from what was signed, and is only this: the home's signatures over its reports, the salts
of the lines parts (HMACs under the hub's key), and the hub's own choices, which `given` names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from homefed.api import dsse, names
from homefed.api.canonical import canonical
from homefed.api.canonical import parse as parse_json
from homefed.api.claim_document import ClaimHeader, LinesPart, ReportSignature
from homefed.api.errors import Invalid, Refused
from homefed.api.evidence_document import Bundle, EvidenceDocument, Settled, SettledClaim
from homefed.api.meta import parse
from homefed.api.report_document import ReportDocument
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import claim_building, evidence, held, rates, readings, settlement
from homefed.core.claim_chain import Chain, Claim, Payee
from homefed.core.metering import measure
from homefed.core.readings import Part, Report
from homefed.core.rewards import Observation, observation
from homefed.core.samples import intake
from homefed.core.windows import Window, seconds

SHOWN: Final = 20
"""Fields that differ, of one document."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One member of a document."""

    field: str
    signed: Any
    """None where the signed document has no such member; likewise below."""
    computed: Any


@dataclass(frozen=True)
class Compared:
    """One document: as it was signed, and as it was computed from the bundle."""

    document: str
    signed_digest: str
    computed_digest: str
    size: int
    """Bytes, as signed."""
    at: int | None
    """The first byte that differs; None where none does."""
    fields: tuple[Difference, ...] = ()

    @property
    def same(self) -> bool:
        return self.at is None


@dataclass(frozen=True)
class Result:
    documents: tuple[Compared, ...]
    given: tuple[str, ...] = ()
    """What was taken from the signed documents, because only the hub can know it."""

    @property
    def same(self) -> bool:
        return bool(self.documents) and all(one.same for one in self.documents)


def report(bundle: Bundle) -> Result:
    """The report of the bundle's window. Errors: Invalid, naming the member that cannot be read."""
    if bundle.evidence is None:
        return Result(())
    computed = report_documents(bundle.evidence)
    signed = [dsse.from_json(one).payload for one in bundle.reports]
    return Result(tuple(_compare_all("report", signed, [canonical(one.dump()) for one in computed])))


def report_documents(found: EvidenceDocument) -> list[ReportDocument]:
    """The parts of the report, from samples, lives and readings alone."""
    window, guests, settings = evidence.window_of(found), evidence.guests_of(found), evidence.settings_of(found)
    taken = intake(
        evidence.series_of(found),
        {guest.uid for guest in guests},
        window,
        now_ms=found.asked_at * 1000,
        offset_ms=settings.offset_ms,
    )
    measured = measure(window, guests, taken, found.readings, settings)
    digest = evidence.digest(evidence.encoded(found))
    return readings.compose(evidence.origin_of(found), window, measured, settings, digest)


def claim(bundle: Bundle, signed: SettledClaim | None = None) -> Result:
    """The claim of the bundle's window; `signed`: as it was had elsewhere, else as the home has seen it.

    Errors: Refused where the bundle does not hold the hub's side.
    """
    if bundle.settled is None:
        raise Refused(
            "the hub had not settled this window when the bundle was written: take it again later", reason="NotSettled"
        )
    signed = signed or bundle.settled.claim
    envelope = dsse.from_json(signed.envelope)
    header = parse(ClaimHeader, dsse.document_of(envelope), where="claim")
    made, given = _computed(bundle, bundle.settled, header, signed.parts)
    parts = [canonical(part.dump()) for part in signed.parts]
    computed = [canonical(part.dump()) for part in made.parts]
    documents = [
        *_compare_all("claim", [envelope.payload], [canonical(made.header.dump())]),
        *_compare_all("lines", parts, computed),
    ]
    return Result(tuple(documents), given)


def _computed(
    bundle: Bundle, settled: Settled, header: ClaimHeader, parts: Sequence[LinesPart]
) -> tuple[Claim, tuple[str, ...]]:
    if header.reverses:
        raise Refused(
            f"claim {header.id} takes back {header.reverses}: it has no lines of its own to compute; compute that one",
            reason="Reversal",
        )
    if header.revision:
        raise Refused(
            f"claim {header.id} corrects an earlier one by the organiser's word: its lines follow from what the hub"
            " knew when it was corrected, which is not in the bundle; `homefed claims explain` checks them one by one",
            reason="Correction",
        )
    terms, chain = _terms(settled), evidence.chain_of(settled.before)
    window = Window(seconds(header.window_start), seconds(header.window_end))
    federation, _, home = header.account.partition(":")[2].partition("/")
    inputs = settlement.Inputs(
        federation,
        home,
        terms,
        [_observed(guest, window) for guest in settled.guests],
        _reports(bundle, settled, parts),
        chain,
    )
    step = settlement.settle_window(inputs, window, late=False)
    payee = Payee(
        federation,
        header.pool,
        home,
        fee_ppm=terms.settlement.fee_ppm,
        held_ppm=_held_ppm(settled, terms, window),
        hold_months=terms.settlement.release_after_months,
        rate_card_digest=rates.card_digest(step.card or terms.rate_card),
    )
    payee, given = _choices(payee, header, chain)
    made = claim_building.build(
        payee, chain, window, step.lines, step.reports, b"", phase=header.phase, revision=header.revision
    )
    return _salted(made, parts), given


def _observed(guest: Json, window: Window) -> Observation:
    """As it was when the window was settled: that a guest is settled through it, the hub writes after its receipt."""
    try:
        found = observation(guest)
        through = guest["metadata"]["annotations"].get(names.ANNOTATION_SETTLED)
    except (KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"settled.guests: not a GuestPod: {error!r}", reason="InvalidField") from error
    return replace(found, settled=through is not None and seconds(through) < window.end)


def _terms(settled: Settled) -> SchedulingPoolSpec:
    if not settled.terms:
        raise Refused(
            "the hub had not shown its rate card (Offer.status.terms) when the bundle was written: a newer hub does",
            reason="NoTerms",
        )
    return parse(SchedulingPoolSpec, settled.terms, where="settled.terms")


def _held_ppm(settled: Settled, terms: SchedulingPoolSpec, window: Window) -> int:
    schedule = terms.settlement.held_back
    if not schedule:
        return 0
    if settled.member_since is None:
        raise Refused(
            "settled.memberSince: the hub had not said since when this home is a member, by which a share is held back",
            reason="NoTerms",
        )
    return held.held_ppm(schedule, seconds(settled.member_since), window.end)


def _choices(payee: Payee, header: ClaimHeader, chain: Chain) -> tuple[Payee, tuple[str, ...]]:
    """What the organiser decides, and no formula."""
    given = []
    if header.phase != "posted":
        given.append("phase")
    due = held.released(chain.held, seconds(header.window_end), "due")[0]
    if int(header.released) != due:
        for how in get_args(held.Release):
            if held.released(chain.held, seconds(header.window_end), how)[0] == int(header.released):
                return replace(payee, release=how), (*given, f"release ({how})")
    return payee, tuple(given)


def _reports(bundle: Bundle, settled: Settled, parts: Sequence[LinesPart]) -> list[Report]:
    """Those that the claim quotes: this window's as computed from the evidence, earlier ones as they were signed."""
    missing = {one.digest for part in parts for one in part.reports}
    own = [dsse.from_json(one) for one in bundle.reports]
    earlier = [dsse.from_json(one) for one in settled.earlier]
    found = [_part(one) for one in earlier if _digest(one.payload) in missing]
    if bundle.evidence is not None:
        # What this window's evidence gives stands under the signature that the home gave, though it may not fit it.
        computed = zip(report_documents(bundle.evidence), own, strict=False)
        found += [_as_signed(document, one) for document, one in computed if _digest(one.payload) in missing]
    if missing := missing - {_digest(one.payload) for one in (*own, *earlier)}:
        raise Refused(
            f"{len(missing)} reports that the claim rests on are not in the bundle, the first is {min(missing)}: their"
            " files were gone from the home when the claim was made",
            reason="ReportMissing",
        )
    return readings.assemble(found)


def _part(envelope: dsse.Envelope) -> Part:
    document = parse(ReportDocument, dsse.document_of(envelope), where="settled.earlier")
    return _as_signed(document, envelope)


def _as_signed(document: ReportDocument, envelope: dsse.Envelope) -> Part:
    signature = envelope.to_json()["signatures"][0]
    return Part(document, ReportSignature(digest=_digest(canonical(document.dump())), **signature))


def _salted(made: Claim, given: Sequence[LinesPart]) -> Claim:
    """With the salts of the signed parts, which only the hub's key can make."""
    salts = {part.part: part.salt for part in given}
    parts = tuple(part.model_copy(update={"salt": salts.get(part.part, part.salt)}) for part in made.parts)
    digests = [_digest(canonical(part.dump())) for part in parts]
    return replace(made, header=made.header.model_copy(update={"parts": digests}), parts=parts)


def _compare_all(name: str, signed: Sequence[bytes], computed: Sequence[bytes]) -> Iterator[Compared]:
    many = max(len(signed), len(computed)) > 1 or name == "lines"
    for number in range(max(len(signed), len(computed))):
        one = signed[number] if number < len(signed) else b""
        other = computed[number] if number < len(computed) else b""
        yield compare(f"{name} {number + 1}" if many else name, one, other)


def compare(name: str, signed: bytes, computed: bytes) -> Compared:
    """Canonical documents; an empty one is not there."""
    if signed == computed:
        return Compared(name, _digest(signed), _digest(computed), len(signed), None)
    at = next(
        (at for at, (one, other) in enumerate(zip(signed, computed, strict=False)) if one != other),
        min(len(signed), len(computed)),
    )
    found = []
    for difference in differences(_value(signed), _value(computed)):
        found.append(difference)
        if len(found) == SHOWN:
            break
    return Compared(name, _digest(signed), _digest(computed), len(signed), at, tuple(found))


def differences(signed: Any, computed: Any, path: str = "") -> Iterator[Difference]:
    """Members that differ, in order; of a list that is longer, what the other one lacks."""
    if isinstance(signed, dict) and isinstance(computed, dict):
        for name in sorted({*signed, *computed}):
            yield from differences(signed.get(name), computed.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(signed, list) and isinstance(computed, list):
        for number in range(max(len(signed), len(computed))):
            one, other = (values[number] if number < len(values) else None for values in (signed, computed))
            yield from differences(one, other, f"{path}.{number}".lstrip("."))
    elif signed != computed:
        yield Difference(path, signed, computed)


def _value(data: bytes) -> Mapping[str, Any] | None:
    return None if not data else dict(parse_json(data, limit=evidence.MAX_BUNDLE))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
