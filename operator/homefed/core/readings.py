"""Reports as documents: what the agent signs, and what the hub (and the agent, of its own) believes of what it reads.

A report counts only whole: all its parts, under one key, about one window, resting on one evidence digest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse, quantities
from homefed.api.canonical import canonical
from homefed.api.claim_document import ReportSignature
from homefed.api.errors import Invalid
from homefed.api.guest_pod import TERMINAL
from homefed.api.meta import parse
from homefed.api.report_document import LINES_PER_PART, MAX_READINGS, UNITS, Reading, ReportDocument, ReportLine
from homefed.core.meter_inputs import KUBELET_MS
from homefed.core.metering import METER_VERSION, Guest, Measured, Settings, Span
from homefed.core.windows import Window, millis, seconds

MAX_PART_BYTES: Final = 480_000
"""Of lines and readings: base64 twice makes 1.78 of it, and an envelope holds 1 000 000 characters."""

MALFORMED_LINE: Final = "MalformedLine"


@dataclass(frozen=True)
class Origin:
    """Whose report: federation id, pool name, Home UID."""

    federation: str
    pool: str
    home: str


@dataclass(frozen=True)
class Part:
    """One verified part, with the signature that a claim will quote."""

    document: ReportDocument
    signature: ReportSignature

    @property
    def window(self) -> Window:
        return Window(seconds(self.document.window_start), seconds(self.document.window_end))


@dataclass(frozen=True)
class Report:
    """A whole report."""

    window: Window
    lines: tuple[ReportLine, ...]
    readings: tuple[Reading, ...]
    signatures: tuple[ReportSignature, ...]
    interval_ms: int = KUBELET_MS
    """Between two samples, as expected."""

    @property
    def digest(self) -> str:
        """One name for the whole: of its first part."""
        return self.signatures[0].digest


def compose(
    origin: Origin, window: Window, measured: Measured, settings: Settings, evidence_digest: str
) -> list[ReportDocument]:
    """The parts of one report: a pod's lines and readings stay together."""
    packs = list(_packs(measured)) or [([], [])]
    return [
        ReportDocument(
            federation=origin.federation,
            pool=origin.pool,
            home=origin.home,
            window_start=window.start_text,
            window_end=window.end_text,
            part=number,
            parts=len(packs),
            clock_offset_ms=settings.offset_ms,
            scrape_interval_ms=settings.scrape_ms,
            evidence_digest=evidence_digest,
            meter_version=METER_VERSION,
            lines=lines,
            readings=readings,
        )
        for number, (lines, readings) in enumerate(packs, start=1)
    ]


def _packs(measured: Measured) -> Iterator[tuple[list[ReportLine], list[Reading]]]:
    lines: list[ReportLine] = []
    readings: list[Reading] = []
    size = 0
    for own_lines, own_readings in _by_pod(measured):
        more = sum(len(canonical(one.dump())) + 1 for one in (*own_lines, *own_readings))
        full = (
            size + more > MAX_PART_BYTES
            or len(lines) + len(own_lines) > LINES_PER_PART
            or len(readings) + len(own_readings) > MAX_READINGS
        )
        if full and (lines or readings):
            yield lines, readings
            lines, readings, size = [], [], 0
        lines, readings, size = lines + own_lines, readings + own_readings, size + more
    if lines or readings:
        yield lines, readings


def _by_pod(measured: Measured) -> Iterator[tuple[list[ReportLine], list[Reading]]]:
    lines: dict[str, list[ReportLine]] = defaultdict(list)
    readings: dict[str, list[Reading]] = defaultdict(list)
    for line in measured.lines:
        lines[line.guest_pod].append(line)
    for reading in measured.readings:
        readings[reading.guest_pod].append(reading)
    for pod in sorted({*lines, *readings}):
        yield lines[pod], readings[pod]


def report_name(pool: str, window: Window, part: int) -> str:
    """Of the UsageReport object: the same for the same part, so that a killed agent cannot report twice."""
    return f"{pool}-{window.end}-p{part}"


def report_object(document: ReportDocument, mailbox: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The UsageReport of one part, signed. Equal documents give equal objects."""
    window = Window(seconds(document.window_start), seconds(document.window_end))
    return {
        "metadata": {"name": report_name(document.pool, window, document.part), "namespace": mailbox},
        "spec": {
            "poolName": document.pool,
            "windowStart": document.window_start,
            "windowEnd": document.window_end,
            "part": document.part,
            "parts": document.parts,
            "envelope": dsse.sign(document.dump(), dsse.REPORT_TYPE, key).encode(),
        },
    }


def open_part(obj: Mapping[str, Any], origin: Origin, keys: Mapping[str, bytes]) -> Part:
    """The signed part in a UsageReport. `keys`: keyid → raw public key of the Home.

    Errors: Invalid with reason of dsse.verify, InvalidField, or NotItsOwn where the document is about something else.
    """
    spec = obj.get("spec", {})
    envelope = dsse.decode(str(spec.get("envelope", "")))
    document = parse(ReportDocument, dsse.verify(envelope, dsse.REPORT_TYPE, keys), where="report")
    _check_origin(document, spec, origin)
    _check_name(document, str(obj.get("metadata", {}).get("name")))
    signature = envelope.to_json()["signatures"][0]
    return Part(document, ReportSignature(digest=sha256(envelope.payload).hexdigest(), **signature))


def _check_origin(document: ReportDocument, spec: Mapping[str, Any], origin: Origin) -> None:
    """What is signed must be about this home, this pool and the window that the object's spec names."""
    expected = {
        "federation": (document.federation, origin.federation),
        "home": (document.home, origin.home),
        "pool": (document.pool, origin.pool),
        "poolName": (document.pool, spec.get("poolName")),
        "windowStart": (document.window_start, spec.get("windowStart")),
        "windowEnd": (document.window_end, spec.get("windowEnd")),
        "part": (document.part, spec.get("part")),
        "parts": (document.parts, spec.get("parts")),
    }
    wrong = [f"{name} is {said!r}, expected {want!r}" for name, (said, want) in expected.items() if said != want]
    if wrong:
        raise Invalid(f"report: {'; '.join(wrong)[:800]}", reason="NotItsOwn")
    if not 0 < seconds(document.window_end) - seconds(document.window_start) <= 86_400 * 31:
        raise Invalid("report: windowEnd must lie after windowStart, at most 31 days", reason="InvalidWindow")


def _check_name(document: ReportDocument, name: str) -> None:
    """A part has one name, and an API server one object of a name: so no window is reported twice."""
    window = Window(seconds(document.window_start), seconds(document.window_end))
    expected = report_name(document.pool, window, document.part)
    if name != expected:
        raise Invalid(f"report: metadata.name is {name[:253]!r}, expected {expected!r}", reason="NotItsOwn")


def assemble(parts: Iterable[Part]) -> list[Report]:
    """Whole reports, oldest window first; of what lacks a part nothing is used."""
    groups: dict[tuple[Window, str, int], dict[int, Part]] = defaultdict(dict)
    for part in parts:
        groups[part.window, part.document.evidence_digest, part.document.parts][part.document.part] = part
    return sorted(
        (
            _whole(window, [group[number] for number in sorted(group)])
            for (window, _, count), group in groups.items()
            if set(group) == set(range(1, count + 1))
        ),
        key=lambda report: report.window.end,
    )


def _whole(window: Window, parts: list[Part]) -> Report:
    return Report(
        window,
        tuple(line for part in parts for line in part.document.lines),
        tuple(reading for part in parts for reading in part.document.readings),
        tuple(part.signature for part in parts),
        max(KUBELET_MS, *(part.document.scrape_interval_ms for part in parts)),
    )


def line_fault(line: ReportLine) -> str | None:
    """A code when a line contradicts itself."""
    if line.unit != UNITS[line.resource] or int(line.close) - int(line.open) != int(line.amount):
        return MALFORMED_LINE
    return None


def guest_of(obj: Mapping[str, Any]) -> Guest:
    """What the meter needs of a GuestPod; the agent writes the times of its status on the hub's clock."""
    spec, status = obj["spec"], obj.get("status") or {}
    end = _moment(status.get("finishedAt")) or _moment(spec.get("observed", {}).get("endedAt"))
    life = Span(_moment(status.get("startedAt")), end if status.get("phase") in TERMINAL else None)
    containers = {
        one["name"]: _span_of(one, life)
        for one in status.get("containers", ())
        if one.get("startedAt") or one.get("lastFinishedAt")
    }
    return Guest(spec["podUid"], quantities.parse_all(spec.get("requests")), life, containers)


def _span_of(container: Mapping[str, Any], life: Span) -> Span:
    """Of the container's newest instance; while it waits to be restarted, of the one before."""
    state, last = container.get("state"), container.get("lastFinishedAt")
    ends = tuple(millis(one) for one in container.get("earlierEnds") or ([last] if last else []))
    if state == "waiting":
        return Span(life.start, _moment(last), ends)
    end = _moment(container.get("finishedAt")) if state == "terminated" else life.end
    return Span(_moment(container.get("startedAt")), end, ends)


def _moment(time: str | None) -> int | None:
    return None if time is None else millis(time)
