"""The home's evidence: what is kept of a window, and how the claim gets into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from homefed.agent.settled import LEAST_SECONDS, SettledEvidence
from homefed.api.errors import Refused, Transient
from homefed.core import claim_building, claim_chain, evidence, recompute, windows
from homefed.core.windows import Window
from homefed.metering.evidence import EvidenceStore
from testbed.claims import START
from unit.core.settled_home import HUB_KEY, ORIGIN, T0, TERMS, Federation, Json

HOUR = 3600


@dataclass
class Hub:
    """A mailbox that can be listed."""

    world: Federation
    down: bool = False
    listed: int = 0

    async def list(self, resource: Any, namespace: str) -> Any:
        self.listed += 1
        if self.down:
            raise Transient("the hub is down")
        return type("Listed", (), {"items": [*self.world.claims]})


@dataclass
class Home:
    """The agent's part, over a store in `folder`."""

    world: Federation
    folder: Path
    hub: Hub = field(init=False)
    store: EvidenceStore = field(init=False)
    looking: SettledEvidence = field(init=False)

    def __post_init__(self) -> None:
        self.hub, self.store = Hub(self.world), EvidenceStore(self.folder)
        status = {"terms": TERMS, "memberSince": windows.text(T0), "windowSeconds": HOUR}
        self.looking = SettledEvidence(
            self.hub,  # type: ignore[arg-type]
            "mailbox",
            self.store,
            offers=lambda: [{"spec": {"poolName": ORIGIN.pool}, "status": status}],
            guests=lambda: self.world.guests,
        )

    def keep(self, hour: int) -> None:
        """As the meter does before it sends a report."""
        self.world.measure(hour)
        window = Window(T0 + HOUR * (hour - 1), T0 + HOUR * hour)
        found, envelopes = self.world.evidence[window.end]
        own = [obj for obj in self.world.sent if obj["spec"]["windowEnd"] == window.end_text]
        self.store.keep(ORIGIN.pool, window, found, envelopes)
        self.store.prepare(ORIGIN.pool, window, own)

    async def look(self, hour: float) -> int:
        """So many hours after T0."""
        return await self.looking.run_pass(START + timedelta(hours=hour))

    def bundle(self, hour: int) -> Any:
        return self.store.read(ORIGIN.pool, T0 + HOUR * hour)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(Federation(), tmp_path)


async def test_a_window_gets_its_claim_and_both_come_out_again(home: Home, tmp_path: Path) -> None:
    for hour in (1, 2):
        home.keep(hour)
        home.world.settle(hour)
    assert await home.look(2.1) == 2
    assert [path.name.split(".", 1)[1] for path in sorted(tmp_path.glob("*.gz"))] == ["bundle.json.gz"] * 2
    for hour in (1, 2):
        bundle = home.bundle(hour)
        assert recompute.report(bundle).same
        assert recompute.claim(bundle).same


async def test_the_bundle_is_the_same_whether_claims_were_seen_one_by_one_or_at_once(tmp_path: Path) -> None:
    one, other = Home(Federation(), tmp_path / "one"), Home(Federation(), tmp_path / "other")
    for hour in (1, 2, 3):
        one.keep(hour)
        other.keep(hour)
        one.world.settle(hour)
        other.world.settle(hour)
        assert await one.look(hour + 0.1 * hour) == 1
    assert await other.look(4) == 3
    for hour in (1, 2, 3):
        assert evidence.write_again(one.bundle(hour)) == evidence.write_again(other.bundle(hour))


async def test_the_mailbox_is_asked_once_per_window(home: Home) -> None:
    home.keep(1)
    home.world.settle(1)
    for minute in range(0, 60, 5):
        await home.look(1.1 + minute / 60)
    assert home.hub.listed == 1
    assert LEAST_SECONDS == 60


async def test_a_hub_that_is_down_costs_a_look_and_nothing_else(home: Home) -> None:
    home.keep(1)
    home.world.settle(1)
    home.hub.down = True
    assert await home.look(1.1) == 0
    home.hub.down = False
    assert await home.look(2.2) == 1


async def test_what_was_reported_late_is_found_in_what_was_kept(home: Home) -> None:
    home.world.settle(1, late=True)
    assert await home.look(1.3) == 1
    assert home.bundle(1).evidence is None
    home.keep(1)
    assert home.bundle(1).settled is not None, "a claim that is there already stays"
    home.keep(2)
    home.world.settle(2)
    assert await home.look(2.4) == 1
    assert len(home.bundle(2).settled.earlier) == 1
    for hour in (1, 2):
        assert recompute.report(home.bundle(hour)).same
        assert recompute.claim(home.bundle(hour)).same


async def test_a_claim_that_corrects_another_takes_its_place(home: Home) -> None:
    home.keep(1)
    claim = home.world.settle(1)
    await home.look(1.1)
    back = claim_building.reversal(claim.header, home.world.chain)
    header = claim.header.model_copy(update={"revision": 2, "sequence": 3, "previous_digest": back.digest})
    again = type(claim)(header, "", claim.parts, claim.bodies)
    for one in (back, again):
        parts, obj = claim_chain.objects(one, "mailbox", HUB_KEY)
        home.world.claims += [*parts, _as_of(obj, one.header.id, one.header.sequence)]
    assert await home.look(2.2) == 1
    with pytest.raises(Refused, match="corrects"):
        recompute.claim(home.bundle(1))


def _as_of(obj: Json, identity: str, sequence: int) -> Json:
    return obj | {"spec": obj["spec"] | {"claimId": identity, "sequence": sequence}}


async def test_a_claim_that_was_altered_is_left_out_and_does_not_stop_the_agent(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.keep(1)
    home.world.settle(1)
    part = home.world.claims[0]
    home.world.claims[0] = part | {"spec": part["spec"] | {"envelope": "AAAA"}}
    assert await home.look(1.1) == 0
    assert "missing or altered" in caplog.text


async def test_a_disk_that_is_full_is_tried_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.keep(1)
    home.world.settle(1)
    real = home.store.settle

    def full(*_: Any) -> Path:
        raise Refused("no space left", reason="EvidenceNotWritable")

    monkeypatch.setattr(home.store, "settle", full)
    assert await home.look(1.1) == 0
    monkeypatch.setattr(home.store, "settle", real)
    assert await home.look(2.2) == 1


def test_files_that_are_old_or_too_much_go_oldest_first(home: Home, tmp_path: Path) -> None:
    for hour in (1, 2, 3):
        home.keep(hour)
    assert home.store.ends(ORIGIN.pool, settled=False) == [T0 + HOUR * hour for hour in (1, 2, 3)]
    aged = EvidenceStore(tmp_path, keep_seconds=2 * HOUR)
    assert aged.prune(T0 + 3 * HOUR + 1) == 2, "evidence and report of the first hour"
    small = EvidenceStore(tmp_path, max_bytes=sum(path.stat().st_size for path in tmp_path.glob(f"*{T0 + 3 * HOUR}*")))
    small.prune(T0 + 3 * HOUR + 1)
    assert small.ends(ORIGIN.pool, settled=False) == [T0 + 3 * HOUR]


def test_a_damaged_file_is_not_used(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.keep(1)
    (path,) = tmp_path.glob("*.evidence.json.gz")
    path.write_bytes(path.read_bytes()[:50])
    assert home.bundle(1) is None
    assert "is not used" in caplog.text
