"""A hub that allocates node CIDRs, with more virtual nodes than it has blocks, of one IP family or of two.

The ranges here have four blocks, a usual hub's 256: what does not fit into four with 258 nodes does not fit there.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.hub_support import Agent, eventually, hub_operator, machine, make_home, make_pool, nodes_of, prepared
from homefed.kube.client import KubeClient
from homefed.kube.resources import NODES
from testbed.binaries import Binaries
from testbed.cluster import Cluster

RANGES = {"single": "10.244.0.0/22", "dual": "10.244.0.0/22,fd00:244::/62"}
BLOCKS = 4
PER_HOME = 129
HOMES = ("anna", "berta")
Json = dict[str, Any]


@pytest.fixture(scope="module", params=RANGES)
def hub(request: pytest.FixtureRequest, binaries: Binaries, testbed_folder: Path) -> Iterator[Cluster]:
    name = f"hub-{request.param}-stack"
    ranges = RANGES[request.param]
    cluster = Cluster(name, testbed_folder / name, binaries, pod_cidr=ranges, allocate_node_cidrs=True)
    with prepared(cluster, binaries):
        yield cluster


@pytest.fixture
async def admin(hub: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(hub.kubeconfig) as client:
        yield client


async def test_more_virtual_nodes_than_blocks_leave_real_nodes_theirs(hub: Cluster, admin: KubeClient) -> None:
    families = hub.spec.pod_cidr.count(",") + 1
    real = [await real_node(admin, 0)]  # the one on which a hub operator runs
    async with hub_operator(hub):
        await make_pool(admin, "blocks")
        for home in HOMES:
            await make_home(admin, home)
            async with Agent.joined(hub, admin, home) as agent:
                agent.renewing = False  # what is asked here does not depend on it
                await agent.offer("attic", "blocks", [machine(number) for number in range(1, PER_HOME + 1)])
                await eventually(lambda: count_is(admin, home, PER_HOME), f"the nodes of {home}", 120)  # noqa: B023
        shared = await shared_blocks(admin)
        assert len(shared) == families

        hub.restart("kube-controller-manager")
        real += [await real_node(admin, number) for number in range(1, BLOCKS - 1)]
        assert all(len(blocks) == families for blocks in real)
        every = [block for blocks in [shared, *real] for block in blocks]
        assert len(set(every)) == BLOCKS * families, "each real node has blocks of its own, in every family"
        assert await shared_blocks(admin) == shared, "the restart has moved nobody"
        assert hub.processes["kube-controller-manager"].alive

        # One too many: all blocks are given out, so this one waits, and the virtual nodes' block is not given to it.
        await admin.create(NODES, {"metadata": {"name": "real-waiting"}})
        await eventually(lambda: full(hub), "the allocator says that it is full")
        assert not (await admin.get(NODES, "real-waiting"))["spec"].get("podCIDR")


async def count_is(admin: KubeClient, home: str, count: int) -> bool:
    await asyncio.sleep(0.5)  # the operator makes them in this very process
    return len(await nodes_of(admin, home)) == count


async def shared_blocks(admin: KubeClient) -> list[str]:
    """The one block per family in which all virtual nodes stand: one holds it whole, the others its first address."""
    listed = [node["spec"]["podCIDRs"] for home in HOMES for node in await nodes_of(admin, home)]
    assert len(listed) == len(HOMES) * PER_HOME
    found = []
    for cidrs in zip(*listed, strict=True):  # one family
        networks = {ipaddress.ip_network(cidr) for cidr in cidrs}
        (whole,) = [network for network in networks if network.num_addresses > 1]
        (single,) = networks - {whole}
        assert single.network_address == whole.network_address
        assert [ipaddress.ip_network(cidr) for cidr in cidrs].count(whole) == 1
        found.append(str(whole))
    return found


async def real_node(admin: KubeClient, number: int) -> list[str]:
    """A node as a kubelet registers it; the blocks that the allocator gives it."""
    name = f"real-{number}"
    await admin.create(NODES, {"metadata": {"name": name}})

    async def blocks() -> list[str]:
        return list((await admin.get(NODES, name))["spec"].get("podCIDRs") or [])

    found: list[str] = await eventually(blocks, f"blocks of {name}")
    return found


async def full(hub: Cluster) -> bool:
    log = (hub.folder / "kube-controller-manager.log").read_text(encoding="utf-8", errors="replace")
    return "real-waiting" in log and "CIDR allocation failed" in log
