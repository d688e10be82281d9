"""One home and its hub, without a cluster: every decision by the code that decides it, objects passed by hand.

Of the home: intake of raw samples, the meter, the report and its signature. Of the hub: its own observation of guests,
its reading of reports, the decision, the claim and its objects. Then the ledger's checks, and its balances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.work import HOUR, SCRAPE_S, T0, Json, Work, moment
from homefed.api import dsse
from homefed.api.claim_document import Line
from homefed.api.guest_pod import GuestPodStatus, Observed
from homefed.api.meta import parse
from homefed.api.rate_card import Price, RateCard
from homefed.api.report_document import Reading, ReportDocument
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import claim_building, claim_chain, readings, settlement
from homefed.core.claim_chain import Chain, Payee
from homefed.core.ledger import UNITS_OF
from homefed.core.ledger_reading import PartSubmission, read_part
from homefed.core.ledger_state import Recorded
from homefed.core.metering import Settings, measure
from homefed.core.observation import observe
from homefed.core.readings import Origin
from homefed.core.rewards import observation
from homefed.core.rounding import PPM, money
from homefed.core.samples import RawSeries, intake
from homefed.core.settlement import Inputs, Settle
from homefed.core.windows import Window
from homefed.hub.reports import Mailbox, Reports
from testbed.claims import FEDERATION, hub_key
from testbed.memory_ledger import MemoryLedger, reading

POOL: Final = "evening"
HOME: Final = "99999999-2222-4333-8444-555555555555"
MAILBOX: Final = "homefed-alice"
HOME_KEY: Final = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
GRACE_S: Final = 60
REPORTED_S: Final = 61
SETTLED_S: Final = 70
LATE_S: Final = 1000
"""After a window's end the home reports, the hub settles, and settles what it had waited for."""
SEEN_S: Final = 5
"""So long after it happened the hub sees that a guest runs, or has ended."""


def card(*, used_cpu: bool = True) -> RateCard:
    """Every resource at a price; without `used_cpu` CPU is paid as reserved only."""
    prices = [
        Price(resource="cpu", basis="reserved", micro_credits=1_000_000, per="core-hour"),
        Price(resource="cpu", basis="used", micro_credits=2_000_000 if used_cpu else 0, per="core-hour"),
        Price(resource="memory", basis="used", micro_credits=64_000, per="GiB-hour"),
        Price(resource="network-receive", basis="used", micro_credits=1_000_000, per="GiB"),
        Price(resource="network-transmit", basis="used", micro_credits=1_000_000, per="GiB"),
    ]
    return RateCard(version="1", valid_from="2026-01-01T00:00:00Z", prices=prices)


class Home:
    """An honest home. What a dishonest one does otherwise it overrides.

    A whole world in it: its guests' true work, its Prometheus, its meter with the stock agent's arithmetic, its key.
    """

    name: ClassVar[str] = "honest home"
    how: ClassVar[str] = "nothing is altered"
    resource: ClassVar[str] = "cpu"
    basis: ClassVar[str] = "used"
    """What is attacked."""
    used_cpu: ClassVar[bool] = True
    """Whether the pool pays for CPU used."""
    held: ClassVar[bool] = True
    """Whether what is paid stays within 1 % of the true work."""
    unbound: ClassVar[frozenset[str]] = frozenset()
    """UIDs of guests that the hub never bound."""

    def __init__(self, guests: Sequence[Work]) -> None:
        self.guests = list(guests)
        self.readings: tuple[Reading, ...] = ()
        self.mailbox: list[Json] = []
        self.created = 0
        self.settings = Settings(SCRAPE_S * 1000)

    # What a dishonest home can alter, from the inside to the outside.

    def series(self, window: Window) -> list[RawSeries]:
        """What its Prometheus answers."""
        return [one for work in self.guests for one in work.series(window)]

    def documents(self, documents: list[ReportDocument]) -> list[ReportDocument]:
        """What its agent signs."""
        return documents

    def delivered(self, objects: list[Json], window: Window) -> list[Json]:
        """What it puts into its mailbox."""
        return objects

    def started(self, work: Work) -> str:
        """What it says when a guest started."""
        return moment(work.start)

    def finished(self, work: Work) -> str:
        return moment(work.end or 0)

    # What the agent does.

    def status(self, work: Work, now: int) -> Json:
        """Of a guest, `now` seconds after T0."""
        if now < work.start:
            return {"phase": "Pending"}
        container = {"name": "app", "state": "running", "startedAt": self.started(work)}
        if work.end is None or now < work.end:
            return {"phase": "Running", "startedAt": self.started(work), "containers": [container]}
        ended = {"finishedAt": self.finished(work)}
        containers = [container | ended | {"state": "terminated", "exitCode": 0}]
        return {"phase": "Succeeded", "startedAt": self.started(work), "containers": containers} | ended

    def report(self, window: Window, objects: Sequence[Json]) -> None:
        """Meter a window, from `objects`, the GuestPods, to signed reports in the mailbox."""
        guests = [readings.guest_of(obj) for obj in objects]
        uids, now_ms = {guest.uid for guest in guests}, (window.end + REPORTED_S) * 1000
        raw = self.series(window)
        taken = intake(raw, uids, window, now_ms=now_ms, offset_ms=self.settings.offset_ms)
        measured = measure(window, guests, taken, self.readings, self.settings)
        origin = Origin(FEDERATION, POOL, HOME)
        documents = self.documents(readings.compose(origin, window, measured, self.settings, "0" * 64))
        self.readings = tuple(one for document in documents for one in document.readings)
        made = [self.posted(document) for document in documents]
        for obj in self.delivered(made, window):
            if obj["metadata"]["name"] not in {one["metadata"]["name"] for one in self.mailbox}:  # as an API server
                self.mailbox.append(obj)

    def posted(self, document: ReportDocument, key: Ed25519PrivateKey = HOME_KEY) -> Json:
        """A UsageReport as the API server returns it."""
        obj = readings.report_object(document, MAILBOX, key)
        self.created += 1
        obj["metadata"]["uid"] = f"uid-{self.created}"
        return obj

    def claimed(self) -> int:
        """Σ amounts of the attacked resource over all reports in its mailbox, whether or not they count."""
        lines = [line for obj in self.mailbox for line in document_of(obj).lines]
        return sum(int(line.amount) for line in lines if line.resource == self.resource)


def document_of(obj: Json) -> ReportDocument:
    """What a UsageReport says, verified or not."""
    return parse(ReportDocument, dsse.document_of(dsse.decode(obj["spec"]["envelope"])), where="report")


@dataclass
class Hub:
    """Observes, settles, and keeps books, for one home."""

    pool: SchedulingPoolSpec
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    chain: Chain = field(default_factory=Chain)
    reports: Reports = field(default_factory=lambda: Reports(FEDERATION))
    observed: dict[str, Observed] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    """On the lines of all claims."""
    lines: list[Line] = field(default_factory=list)
    """Of all claims, as the ledger accepted them."""
    strangers: set[str] = field(default_factory=set)

    def see(self, home: Home, now: int) -> list[Json]:
        """Look at the home's guests, `now` seconds after T0: its GuestPods."""
        found = []
        for work in home.guests:
            if work.uid in home.unbound:
                continue
            said = home.status(work, now)
            before = self.observed.get(work.uid, Observed(bound_at=moment(work.start - SEEN_S)))
            status = parse(GuestPodStatus, said, where="status")
            when = datetime.fromtimestamp(T0 + now, UTC)
            self.observed[work.uid] = observe(before, status, None, None, when, gone=False)
            found.append(_guest_pod(work, self.observed[work.uid], said))
        return found

    def settle(self, home: Home, objects: Sequence[Json], now: int) -> None:
        """Every window that can be, `now` seconds after T0."""
        raw = HOME_KEY.public_key().public_bytes_raw()
        mailbox = Mailbox(
            {"metadata": {"uid": HOME, "name": "alice"}}, MAILBOX, objects, home.mailbox, {dsse.fingerprint(raw): raw}
        )
        guests = [observation(obj) for obj in objects]
        while True:
            parts, _ = self.reports.parts(mailbox, POOL, self.chain.reports)
            inputs = Inputs(FEDERATION, HOME, self.pool, guests, readings.assemble(parts), self.chain)
            step = settlement.decide(inputs, T0 + now)
            if not isinstance(step, Settle):
                return
            self._claim(step)

    def _claim(self, step: Settle) -> None:
        payee = Payee(FEDERATION, POOL, HOME)
        claim = claim_building.build(payee, self.chain, step.window, step.lines, step.reports, b"s" * 32)
        parts, header = claim_chain.objects(claim, MAILBOX, hub_key())
        sent = [
            PartSubmission(claim.header.id, number, read_part(body, claim.header.id, number), body)
            for number, body in ((obj["spec"]["number"], claim_chain.part_bytes(obj)) for obj in parts)
        ]
        body = dsse.decode(header["spec"]["envelope"]).canonical()
        answers = self.ledger.submit([*sent, reading("claim", claim.header.id, body)])
        assert isinstance(answers[-1], Recorded), answers[-1]
        self.chain = self.chain.after(claim)
        self.strangers |= set(step.strangers)
        self.lines += claim.lines
        self.codes.update(code for line in claim.lines for code in line.codes)


def _guest_pod(work: Work, observed: Observed, status: Json) -> Json:
    spec = {
        "podUid": work.uid,
        "podName": "work",
        "podNamespace": "shop",
        "namespaceUid": "ns-uid-1",
        "poolName": POOL,
        "requests": work.requests,
        "observed": observed.dump(),
    }
    return {"metadata": {"name": work.uid, "namespace": MAILBOX}, "spec": spec, "status": status}


@dataclass(frozen=True)
class Outcome:
    """What came of one home's doings: units of the attacked resource and basis, and what was paid for them."""

    true: int
    claimed: int
    accepted: int
    price: Price
    paid: int
    """µcredit."""
    hub: Hub

    @property
    def over_ppm(self) -> int:
        """Paid beyond what the true work costs, in millionths of that; negative where less was paid."""
        worth = money(self.true, self.price.micro_credits, UNITS_OF[self.price.per][1])
        return (self.paid - worth) * PPM // worth if worth else self.paid * PPM


def run(home: Home, hours: int = 6) -> Outcome:
    """So many hours of a home, and what the hub and the ledger make of them."""
    hub = Hub(SchedulingPoolSpec(rate_card=card(used_cpu=home.used_cpu)))
    for hour in range(1, hours + 1):
        end = hour * HOUR
        for second in seen(home.guests, end - HOUR, end):
            hub.see(home, second)
        objects = hub.see(home, end + REPORTED_S)
        home.report(Window(T0 + end - HOUR, T0 + end), objects)
        for second in (SETTLED_S, LATE_S):
            hub.settle(home, hub.see(home, end + second), end + second)
    return _outcome(home, hub, hours * HOUR)


def seen(guests: Iterable[Work], begin: int, end: int) -> list[int]:
    """When the hub sees that a guest has started or ended, in (begin, end]."""
    moments = {work.start + SEEN_S for work in guests} | {work.end + SEEN_S for work in guests if work.end is not None}
    return sorted(second for second in moments if begin < second <= end)


def _outcome(home: Home, hub: Hub, until: int) -> Outcome:
    bound = [work for work in home.guests if work.uid not in home.unbound]
    true = sum(work.used(home.resource, until) if home.basis == "used" else work.reserved(until) for work in bound)
    lines = [line for line in hub.lines if (line.resource, line.basis) == (home.resource, home.basis)]
    prices: dict[tuple[str, str], Price] = {(one.resource, one.basis): one for one in hub.pool.rate_card.prices}
    return Outcome(
        true,
        home.claimed(),
        sum(int(line.accepted) for line in lines),
        prices[home.resource, home.basis],
        sum(int(line.amount) for line in lines),
        hub,
    )
