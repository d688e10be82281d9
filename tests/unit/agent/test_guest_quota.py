"""The shell around the guests' quota: when it reads, when it writes, and what it leaves alone."""

from collections.abc import Sequence
from typing import Any

import pytest

from homefed.agent.quota import CHANGED, PASS, GuestQuota
from homefed.api import names
from homefed.api.errors import Refused, Transient
from homefed.api.quantities import Quantities
from homefed.kube.resources import RESOURCEQUOTAS
from unit.agent.doubles import Server

GUESTS = names.GUESTS_NAMESPACE
WRITE = ("apply", "resourcequotas", names.GUESTS_QUOTA)


class World:
    def __init__(self) -> None:
        self.home = Server()
        self.offers: Sequence[Quantities] | None = [{"cpu": 4000, "memory": 2**30, "pods": 10}]
        self.pods: list[dict[str, Any]] = []
        self.looks = 0
        self.install()
        self.quota = GuestQuota(
            self.home,
            GUESTS,
            offers=lambda: self.offers,
            pods=lambda: self.pods,
            present=lambda: ("cpu", "example.com/fpga"),
            done=self._look,
        )

    def _look(self) -> None:
        self.looks += 1

    def install(self, **hard: str) -> None:
        metadata = {"name": names.GUESTS_QUOTA, "namespace": GUESTS}
        self.home.put(RESOURCEQUOTAS, {"metadata": metadata, "spec": {"hard": hard}})

    @property
    def hard(self) -> dict[str, str]:
        found: dict[str, str] = self.home.objects["resourcequotas", GUESTS, names.GUESTS_QUOTA]["spec"]["hard"]
        return found


@pytest.fixture
def world() -> World:
    return World()


async def test_the_quota_follows_the_offers(world: World) -> None:
    await world.quota.reconcile(CHANGED)
    assert (world.hard["requests.cpu"], world.hard["requests.example.com/fpga"]) == ("4", "0")
    world.offers = [{"cpu": 1500}]
    await world.quota.reconcile(CHANGED)
    assert world.hard["requests.cpu"] == "1500m"


async def test_a_smaller_offer_waits_for_the_guests_that_run(world: World) -> None:
    world.pods = [{"finished": False, "requests": {"cpu": 3000}}]
    world.offers = [{"cpu": 1000}]
    await world.quota.reconcile(CHANGED)
    assert world.hard["requests.cpu"] == "3"
    world.pods = []
    await world.quota.reconcile(CHANGED)
    assert world.hard["requests.cpu"] == "1"


async def test_at_rest_nothing_is_written_and_events_are_not_even_a_reason_to_read(world: World) -> None:
    await world.quota.reconcile(CHANGED)
    reads = len(world.home.reads)
    for key in (CHANGED, PASS, CHANGED, PASS):
        await world.quota.reconcile(key)
    assert world.home.writes == [WRITE]
    assert len(world.home.reads) == reads + 2


async def test_a_pass_mends_what_somebody_has_changed(world: World) -> None:
    await world.quota.reconcile(CHANGED)
    world.install(pods="1000")
    await world.quota.reconcile(PASS)
    assert (world.hard["pods"], world.home.writes) == ("10", [WRITE, WRITE])


async def test_nothing_is_concluded_before_the_hubs_word_is_known(world: World) -> None:
    world.offers = None
    await world.quota.reconcile(PASS)
    assert (world.home.reads, world.home.writes, world.looks) == ([], [], 1)


async def test_a_missing_quota_names_the_remedy_and_keeps_nothing_else_waiting(world: World) -> None:
    world.home.remove(RESOURCEQUOTAS, names.GUESTS_QUOTA, GUESTS)
    with pytest.raises(Refused, match="upgrade the chart"):
        await world.quota.reconcile(PASS)
    assert (world.home.writes, world.looks) == ([], 1)


async def test_a_write_that_failed_is_tried_again(world: World) -> None:
    world.home.trouble["apply"] = Transient("busy")
    with pytest.raises(Transient):
        await world.quota.reconcile(CHANGED)
    world.home.trouble.clear()
    await world.quota.reconcile(CHANGED)
    assert world.home.writes == [WRITE]
