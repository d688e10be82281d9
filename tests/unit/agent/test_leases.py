"""A Lease is renewed only while it is true."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from homefed.agent.identity import Connection
from homefed.agent.leases import HOME_SILENT_SECONDS, RETRY_SECONDS, HomeProbe, NodeLeases
from homefed.api.errors import Transient
from homefed.kube.resources import LEASES
from unit.agent.doubles import Server

NODES = "kube-node-lease"


class World:
    def __init__(self) -> None:
        self.seconds = 100.0
        self.home, self.hub = Server(), Server()
        self.alive: dict[str, bool] = {"hf-a": True}
        self.now = datetime(2026, 1, 31, 10, tzinfo=UTC)
        self.client: Server | None = self.hub
        self.probe = HomeProbe(self.home, "homefed-agent", "homefed", monotonic=lambda: self.seconds)
        connection = SimpleNamespace(client=self.hub, hub=self.hub, hub_now=lambda: self.now)
        self.connection = connection
        self.leases = NodeLeases(
            cast(Connection, connection), self.probe, lambda: self.alive, NODES, monotonic=lambda: self.seconds
        )
        for name in ("hf-a", "hf-b"):
            self.hub.put(LEASES, {"metadata": {"name": name, "namespace": NODES}})

    def renewals(self) -> list[str]:
        return [name for verb, _, name in self.hub.writes if verb == "update"]

    def lease(self, name: str = "hf-a") -> dict[str, Any]:
        return cast("dict[str, Any]", self.hub.objects["leases", NODES, name]["spec"])


async def test_a_new_node_is_renewed_at_once_and_then_every_ten_seconds() -> None:
    world = World()
    await world.probe.look()
    await world.leases.renew_due()
    await world.leases.renew_due()
    assert world.renewals() == ["hf-a"]

    world.alive["hf-b"] = True
    await world.leases.renew_due()
    assert world.renewals() == ["hf-a", "hf-b"]

    world.seconds += 10
    await world.leases.renew_due()
    assert world.renewals() == ["hf-a", "hf-b", "hf-a", "hf-b"]


async def test_nothing_is_renewed_before_the_home_has_answered_nor_after_it_fell_silent() -> None:
    world = World()
    await world.leases.renew_due()
    assert world.renewals() == []

    await world.probe.look()
    world.home.trouble["get"] = Transient("down")
    world.seconds += HOME_SILENT_SECONDS
    await world.probe.look()
    await world.leases.renew_due()
    assert world.renewals() == []


async def test_a_machine_that_is_not_ready_keeps_no_lease_alive() -> None:
    world = World()
    await world.probe.look()
    world.alive = {"hf-a": False, "hf-b": True}
    await world.leases.renew_due()
    assert world.renewals() == ["hf-b"]


async def test_a_lease_that_cannot_be_renewed_is_tried_again_soon() -> None:
    world = World()
    await world.probe.look()
    world.hub.remove(LEASES, "hf-a", NODES)
    await world.leases.renew_due()
    world.hub.put(LEASES, {"metadata": {"name": "hf-a", "namespace": NODES}})
    await world.leases.renew_due()
    assert world.renewals() == []
    world.seconds += RETRY_SECONDS
    await world.leases.renew_due()
    assert world.renewals() == ["hf-a"]


async def test_a_clock_that_steps_back_still_makes_renewals_grow() -> None:
    world = World()
    await world.probe.look()
    await world.leases.renew_due()
    first = world.lease()["renewTime"]
    world.seconds += 10
    world.now = datetime(2026, 1, 31, 9, tzinfo=UTC)
    await world.leases.renew_due()
    assert world.lease()["renewTime"] > first


async def test_without_a_hub_nothing_is_tried() -> None:
    world = World()
    await world.probe.look()
    world.connection.client = None
    await world.leases.renew_due()
    assert world.hub.reads == []
