"""A home and its hub as functions: windows measured, reported, settled, and the bundles that the home keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse, names
from homefed.api.meta import parse
from homefed.api.report_document import Reading
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import (
    claim_building,
    claim_chain,
    evidence,
    held,
    rates,
    readings,
    settled_evidence,
    settlement,
    windows,
)
from homefed.core.claim_chain import Chain, Claim, Payee
from homefed.core.metering import Settings, measure
from homefed.core.readings import Origin, Report
from homefed.core.rewards import observation
from homefed.core.samples import Metric, RawSeries, intake
from homefed.core.settlement import Inputs, Settle
from homefed.core.windows import Window

T0 = 1_767_225_600
HOME = "99999999-2222-3333-4444-555555555555"
ORIGIN = Origin("fed", "evening", HOME)
APP, JOB = "11111111-2222-3333-4444-555555555555", "22222222-2222-3333-4444-555555555555"
HUB_KEY, HOME_KEY = Ed25519PrivateKey.from_private_bytes(b"h" * 32), Ed25519PrivateKey.from_private_bytes(b"a" * 32)
MIB = 2**20
Json = dict[str, Any]

PRICES = [
    {"resource": "cpu", "basis": "reserved", "microCredits": 1_000_000, "per": "core-hour"},
    {"resource": "cpu", "basis": "used", "microCredits": 2_000_000, "per": "core-hour"},
    {"resource": "memory", "basis": "used", "microCredits": 64_000, "per": "GiB-hour"},
]
TERMS = {
    "rateCard": {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": PRICES},
    "settlement": {"feePpm": 100_000, "graceSeconds": 60, "heldBack": [750_000]},
    "maxBandwidthMbps": 100,
}


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def guest_pod(uid: str, namespace: str, *, ended: int | None = None, cpu: str = "1") -> Json:
    """Runs from T0; `ended`: seconds after it."""
    begun = windows.text(T0)
    end = {} if ended is None else {"finishedAt": windows.text(T0 + ended)}
    observed = {"boundAt": begun, "runningFrom": begun} | ({} if ended is None else {"endedAt": end["finishedAt"]})
    container = {"name": "app", "state": "terminated" if end else "running", "startedAt": begun, **end}
    return {
        "metadata": {"name": uid},
        "spec": {
            "podUid": uid,
            "podName": "web",
            "podNamespace": "shop",
            "namespaceUid": namespace,
            "poolName": ORIGIN.pool,
            "requests": {"cpu": cpu, "memory": "128Mi"},
            "pod": {"spec": {"containers": []}},
            "observed": observed,
        },
        "status": {
            "phase": "Succeeded" if end else "Running",
            "startedAt": begun,
            **end,
            "containers": [container],
        },
    }


def steady(uid: str, metric: Metric, rate: float, until: int, *, missing: Sequence[range] = ()) -> RawSeries:
    """`rate` × seconds of a counter, or the constant `rate` of memory; every 15 s, but in what is missing."""
    seconds = [s for s in range(15, until + 1, 15) if not any(s in one for one in missing)]
    labels = {"pod": f"hf-{uid}", "container": "app", "id": f"/kubepods/{uid}", "namespace": "homefed-guests"}
    values = [(1000 * (T0 + s), str(rate * (1 if metric == "memory" else s))) for s in seconds]
    return RawSeries(metric, labels, values)


@dataclass
class Federation:
    """One home in one pool, hour by hour."""

    terms: Json = field(default_factory=lambda: TERMS)
    guests: list[Json] = field(default_factory=lambda: [guest_pod(APP, "ns-1"), guest_pod(JOB, "ns-2", ended=5400)])
    series: list[RawSeries] = field(
        default_factory=lambda: [
            steady(APP, "cpu", 0.25, 4 * 3600, missing=[range(1800, 2400)]),
            steady(APP, "memory", 64 * MIB, 4 * 3600),
            steady(JOB, "cpu", 0.9, 5390),
        ]
    )
    offset_ms: int = 0
    chain: Chain = field(default_factory=Chain)
    readings: tuple[Reading, ...] = ()
    reports: list[Report] = field(default_factory=list)
    sent: list[Json] = field(default_factory=list)
    """UsageReports."""
    claims: list[Json] = field(default_factory=list)
    """RewardClaims."""
    evidence: dict[int, tuple[bytes, list[dsse.Envelope]]] = field(default_factory=dict)
    """By end of the window."""

    @property
    def pool(self) -> SchedulingPoolSpec:
        return parse(SchedulingPoolSpec, self.terms, where="terms")

    def measure(self, hour: int) -> None:
        """The home reports the hour that begins `hour - 1` hours after T0."""
        window = Window(T0 + 3600 * (hour - 1), T0 + 3600 * hour)
        settings, at = Settings(15_000, self.offset_ms), window.end + 60
        raw = [replace(one, samples=[s for s in one.samples if s[0] <= at * 1000]) for one in self.series]
        guests = [readings.guest_of(one) for one in self.guests]
        found = evidence.encode(ORIGIN, window, raw, guests, self.readings, settings, asked_at=at)
        taken = intake(raw, {one.uid for one in guests}, window, now_ms=at * 1000, offset_ms=self.offset_ms)
        measured = measure(window, guests, taken, self.readings, settings)
        documents = readings.compose(ORIGIN, window, measured, settings, evidence.digest(found))
        objects = [readings.report_object(one, "mailbox", HOME_KEY) for one in documents]
        keys = {dsse.fingerprint(public(HOME_KEY)): public(HOME_KEY)}
        (whole,) = readings.assemble(readings.open_part(one, ORIGIN, keys) for one in objects)
        self.readings = whole.readings
        self.reports.append(whole)
        self.sent += objects
        self.evidence[window.end] = found, [dsse.decode(one["spec"]["envelope"]) for one in objects]

    def settle(self, hour: int, *, late: bool = False, release: held.Release = "due") -> Claim:
        """The hub settles what is due after that hour."""
        guests = [observation(one) for one in self.guests]
        inputs = Inputs(ORIGIN.federation, HOME, self.pool, guests, self.reports, self.chain)
        step = settlement.decide(inputs, T0 + 3600 * hour + (901 if late else 61))
        assert isinstance(step, Settle), step
        payee = replace(self._payee(step), release=release)
        claim = claim_building.build(payee, self.chain, step.window, step.lines, step.reports, b"s")
        parts, header = claim_chain.objects(claim, "mailbox", HUB_KEY)
        self.claims += [*parts, header]
        self.chain = self.chain.after(claim)
        return claim

    def _payee(self, step: Settle) -> Payee:
        """Member since T0."""
        terms = self.pool
        return Payee(
            ORIGIN.federation,
            ORIGIN.pool,
            HOME,
            fee_ppm=terms.settlement.fee_ppm,
            held_ppm=next(iter(terms.settlement.held_back), 0),
            hold_months=terms.settlement.release_after_months,
            rate_card_digest=rates.card_digest(step.card or terms.rate_card),
        )

    def bundle(self, hour: int) -> bytes:
        """What the home keeps of that hour."""
        end = T0 + 3600 * hour
        found, envelopes = self.evidence.get(end, (None, []))
        return evidence.write(found, [one.to_json() for one in envelopes], self._settled(end))

    def _settled(self, end: int) -> Any:
        own = [one.to_json() for one in self.evidence.get(end, (None, []))[1]]
        known = {settled_evidence.digest_of(one) for one in own}
        for place in settled_evidence.places(self.claims):
            if place.claim.window.end == end:
                earlier = settled_evidence.reports_among(self.sent, place.claim.reports - known)
                offer = {"terms": self.terms, "memberSince": windows.text(T0)}
                return settled_evidence.settled(place, offer, self.guests, earlier)
        return None


def hub_account(uid: str) -> str:
    return names.consumer_account(ORIGIN.federation, uid)
