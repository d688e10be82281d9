"""HomeFed, installed and running, for modules of flows that need the whole of it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.binaries import Binaries
from testbed.deployed import Deployed
from testbed.errors import Unavailable
from testbed.federation import Federation
from testbed.processes import HomeFed
from testbed.real import real_federation
from testbed.workspace import new_folder

SOONER_UNKNOWN = {"kube-controller-manager": ["--node-monitor-grace-period=25s", "--node-monitor-period=2s"]}


@pytest.fixture(scope="module")
def homefed(binaries: Binaries, testbed_folder: Path) -> Iterator[HomeFed]:
    """A hub that allocates node CIDRs and two homes with two simulated nodes each; hub, ledger and agents run.

    A node is Unknown 25 s after its last renewal, not after 50, as there are tests that wait for it.

    Tests take a `corner` of it each: a pool and a namespace of their own."""
    folder = new_folder(testbed_folder, "homefed")
    with (
        Federation.create(
            folder / "clusters", binaries, hub_allocates_node_cidrs=True, hub_extra=SOONER_UNKNOWN
        ) as federation,
        HomeFed(federation, folder / "processes") as running,
    ):
        yield running


@pytest.fixture(scope="module")
def homefed_real(testbed_folder: Path) -> Iterator[Deployed]:
    """A hub and two homes with real nodes; HomeFed is installed by Helm, nothing is contributed yet. Tests leave
    contributions and pools as they find them."""
    with contextlib.ExitStack() as stack:
        try:
            federation = stack.enter_context(real_federation(new_folder(testbed_folder, "deployed")))
        except Unavailable as error:
            pytest.fail(f"real nodes cannot run: {error}", pytrace=False)
        yield Deployed(federation).install()
