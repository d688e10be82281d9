"""The meter: once per window, from the home's Prometheus to signed UsageReports in the mailbox.

    meter = Meter(hub, mailbox, signer, source, evidence, offers=…, guests=…, offset=…)
    findings = await meter.run_pass(now)      # every few seconds; pool name → Finding, for condition MeterReady

The report that was sent last is the only state: its readings are where the next window opens. A window whose samples
cannot be had waits, and is caught up later; counters lose nothing by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse
from homefed.api.errors import AlreadyExists, HomefedError, Invalid, Transient
from homefed.api.report_document import Reading
from homefed.core import evidence, readings, windows
from homefed.core.conditions import FALSE, TRUE, UNKNOWN
from homefed.core.findings import Finding
from homefed.core.metering import Guest, Settings, measure
from homefed.core.readings import Origin, Part, Report
from homefed.core.rewards import observation
from homefed.core.samples import Intake, RawSeries, intake
from homefed.core.windows import Window
from homefed.kube.client import KubeClient
from homefed.kube.resources import USAGEREPORTS
from homefed.metering.evidence import EvidenceStore
from homefed.metering.prometheus import SampleSource

logger = logging.getLogger(__name__)
Json = dict[str, Any]

METER_READY: Final = "MeterReady"
CATCH_UP: Final = 24
"""Windows per pass and pool: a long outage is made good over several passes."""
PATIENCE_SECONDS: Final = 900
"""So long an empty answer is waited out; then the window is reported without samples, and says so."""


class Signer(Protocol):
    """Whose reports these are."""

    @property
    def private(self) -> Ed25519PrivateKey: ...

    @property
    def own(self) -> Mapping[str, bytes]:
        """keyid → raw public key, former ones included."""
        ...


@dataclass(frozen=True)
class Pool:
    """What the hub wrote to the status of an Offer of this pool."""

    origin: Origin
    window_seconds: int
    grace_seconds: int


@dataclass(frozen=True)
class Progress:
    """End (seconds) of the newest window that is reported, None before the first, and the readings it closed with."""

    after: int | None
    readings: tuple[Reading, ...] = ()


class Meter:
    """One home's meter, for all pools that it contributes to."""

    def __init__(
        self,
        hub: KubeClient,
        mailbox: str,
        signer: Callable[[], Signer],
        source: SampleSource,
        store: EvidenceStore,
        *,
        offers: Callable[[], Iterable[Json]],
        guests: Callable[[], Iterable[Json]],
        offset: Callable[[], timedelta] = timedelta,
        scrape_interval_ms: int = 15_000,
    ) -> None:
        """`signer` gives the home's key of the moment; `offers` and `guests` give the mailbox's Offers and GuestPods;
        `offset` gives hub's clock − local clock."""
        self._hub = hub
        self._mailbox = mailbox
        self._signer = signer
        self._source = source
        self._evidence = store
        self._offers = offers
        self._guests = guests
        self._offset = offset
        self._scrape_ms = scrape_interval_ms
        self._progress: dict[str, Progress] = {}
        self._findings: dict[str, Finding] = {}
        """Of the newest window of each pool."""
        self._failures: dict[str, Finding] = {}
        """Why the newest pass over a pool got no further."""

    async def run_pass(self, now: datetime) -> dict[str, Finding]:
        """Report every window that is due; `now` is the local clock (aware). Failures are findings, never raised."""
        settings = Settings(self._scrape_ms, round(self._offset().total_seconds() * 1000))
        hub_now = int((now + self._offset()).timestamp())
        pools = dict(_pool(offer) for offer in self._offers())
        for name, pool in pools.items():
            if pool is None:
                self._findings[name] = Finding(UNKNOWN, "NotAccepted", "the hub has not answered the offer yet")
                continue
            try:
                await self._report_due(pool, hub_now, settings)
            except HomefedError as error:
                self._progress.pop(name, None)
                self._tell(self._failures, name, Finding.of(error))
            else:
                self._failures.pop(name, None)
        known = {**self._findings, **self._failures}
        return {name: known.get(name, _fine("no window has passed yet")) for name in pools}

    async def _report_due(self, pool: Pool, now: int, settings: Settings) -> None:
        name = pool.origin.pool
        objects = [obj for obj in self._guests() if obj.get("spec", {}).get("poolName") == name]
        guests = [readings.guest_of(obj) for obj in objects]
        grace = windows.grace(pool.grace_seconds, settings.scrape_ms)
        spans = _spans(objects, guests)
        for _ in range(CATCH_UP):
            progress = await self._load(pool)
            tails = partial(_has_open_tails, guests, progress.readings)
            found = windows.due(
                progress.after, now, length=pool.window_seconds, grace_seconds=grace, spans=spans, also=tails, limit=1
            )
            if not found:
                return
            at = found[0].end + grace
            self._progress[name] = await self._report(pool, found[0], guests, progress, settings, at=at, now=now)

    async def _load(self, pool: Pool) -> Progress:
        """Progress as the mailbox has it; read once, then kept."""
        name = pool.origin.pool
        if name not in self._progress:
            found = await self._hub.list(USAGEREPORTS, self._mailbox)
            reports = readings.assemble(self._own(found.items, pool.origin))
            self._progress[name] = _progress(reports)
        return self._progress[name]

    def _own(self, objects: Iterable[Mapping[str, Any]], origin: Origin) -> list[Part]:
        """Parts that verify under our own keys, former ones too; others are not ours to continue."""
        keys = self._signer().own
        parts = []
        for obj in objects:
            if obj.get("spec", {}).get("poolName") != origin.pool:
                continue
            try:
                parts.append(readings.open_part(obj, origin, keys))
            except Invalid as error:
                logger.warning("report %s is not used: %s", obj["metadata"]["name"], error.message)
        return parts

    async def _report(
        self,
        pool: Pool,
        window: Window,
        guests: Sequence[Guest],
        before: Progress,
        settings: Settings,
        *,
        at: int,
        now: int,
    ) -> Progress:
        name = pool.origin.pool
        objects = await asyncio.to_thread(self._evidence.prepared, name, window)
        if not self._own(objects, pool.origin):
            raw = [*await self._source.fetch(window, at=at, offset_ms=settings.offset_ms)]
            taken = intake(raw, {guest.uid for guest in guests}, window, now_ms=at * 1000, offset_ms=settings.offset_ms)
            self._judge(name, window, guests, taken, settings, now)
            objects = await self._prepare(pool, window, guests, before, settings, raw, taken, at=at)
        sent = [await self._create(obj) for obj in objects]
        whole = readings.assemble(self._own(sent, pool.origin))
        await asyncio.to_thread(self._evidence.prune, now)
        return Progress(window.end, whole[-1].readings if whole else before.readings)

    async def _prepare(
        self,
        pool: Pool,
        window: Window,
        guests: Sequence[Guest],
        before: Progress,
        settings: Settings,
        raw: list[RawSeries],
        taken: Intake,
        *,
        at: int,
    ) -> list[Json]:
        """Measure, sign, and store evidence and report at home, before anything is sent. Empties `raw`."""
        name = pool.origin.pool
        found = await asyncio.to_thread(
            evidence.encode, pool.origin, window, raw, guests, before.readings, settings, asked_at=at
        )
        raw.clear()  # most of the memory of a pass, and now in the evidence
        measured = measure(window, guests, taken, before.readings, settings)
        documents = readings.compose(pool.origin, window, measured, settings, evidence.digest(found))
        objects = [readings.report_object(document, self._mailbox, self._signer().private) for document in documents]
        envelopes = [dsse.decode(obj["spec"]["envelope"]) for obj in objects]
        await asyncio.to_thread(self._evidence.keep, name, window, found, envelopes)
        await asyncio.to_thread(self._evidence.prepare, name, window, objects)
        return objects

    def _judge(
        self, name: str, window: Window, guests: Sequence[Guest], taken: Intake, settings: Settings, now: int
    ) -> None:
        """Whether these samples will do; Transient where it is better to wait."""
        ran = max((guest.life.running_ms(window) for guest in guests), default=0)
        span = f"{window.start_text} to {window.end_text}"
        if ran > 2 * settings.hold_ms and not taken.samples and not taken.rejected:
            if now < window.end + PATIENCE_SECONDS:
                raise Transient(
                    f"Prometheus has no samples of guests from {span}: does it scrape the kubelets' /metrics/cadvisor?",
                    reason="EmptyAnswer",
                )
            self._tell(
                self._findings,
                name,
                Finding(FALSE, "EmptyAnswer", f"no samples of guests from {span}: reported without usage"),
            )
        elif taken.rejected:
            codes = sorted({code for counts in taken.rejected.values() for code in counts})
            refused = sum(sum(counts.values()) for counts in taken.rejected.values())
            self._tell(
                self._findings,
                name,
                Finding(FALSE, "BadSamples", f"{refused} samples from {span} refused: {', '.join(codes)}"),
            )
        else:
            self._tell(self._findings, name, _fine("the newest window is reported"))

    async def _create(self, obj: Json) -> Json:
        """Create one part; the one that is there already counts instead (ours from before a restart)."""
        try:
            return await self._hub.create(USAGEREPORTS, obj, self._mailbox)
        except AlreadyExists:
            found = await self._hub.get(USAGEREPORTS, obj["metadata"]["name"], self._mailbox)
            if found["spec"] != obj["spec"]:
                logger.warning("report %s was there with other content: it counts", obj["metadata"]["name"])
            return found

    def _tell(self, known: dict[str, Finding], name: str, finding: Finding) -> None:
        """Keep a finding; log it when it is news."""
        if known.get(name) != finding:
            logger.log(
                logging.INFO if finding.status == TRUE else logging.WARNING,
                "meter of pool %s: %s",
                name,
                finding.message,
                extra={"reason": finding.reason},
            )
        known[name] = finding


def _fine(message: str) -> Finding:
    return Finding(TRUE, "Metering", message)


def _pool(offer: Mapping[str, Any]) -> tuple[str, Pool | None]:
    name, status = offer["spec"]["poolName"], offer.get("status") or {}
    federation, home = status.get("federationId"), status.get("homeUid")
    if not federation or not home or not status.get("windowSeconds"):
        return name, None
    return name, Pool(Origin(federation, name, home), status["windowSeconds"], status.get("graceSeconds", 0))


def _progress(reports: Sequence[Report]) -> Progress:
    return Progress(reports[-1].window.end, reports[-1].readings) if reports else Progress(None)


def _spans(objects: Iterable[Mapping[str, Any]], guests: Iterable[Guest]) -> list[tuple[int, int | None]]:
    """When guests ran, as home and hub saw it: the hub expects a report of every window in which it saw one run."""
    lives = [(guest.life.start, guest.life.end) for guest in guests]
    seen = [observation(obj) for obj in objects if "observed" in obj.get("spec", {})]
    lives += [(one.running, one.ended) for one in seen]
    return [(start, end) for start, end in lives if start is not None]


def _has_open_tails(guests: Iterable[Guest], known: Iterable[Reading], window: Window) -> bool:
    """Whether a pod has ended whose readings have not: its end was learned after its window was reported."""
    ended = {guest.uid for guest in guests if guest.life.end is not None and guest.life.end <= window.end_ms}
    return any(reading.guest_pod in ended and not reading.ended for reading in known)
