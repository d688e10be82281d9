"""A hub and homes, side by side on loopback, the homes with simulated nodes."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from testbed.binaries import Binaries
from testbed.cluster import Cluster, start_all
from testbed.kwok import Kwok


@dataclass
class Member:
    """One cluster of a federation, with what is put into it before anyone uses it: CRDs, simulated nodes."""

    cluster: Cluster
    crds: Path | None = None
    nodes: Sequence[str] = ()
    kwok: Kwok = field(init=False)

    def __post_init__(self) -> None:
        self.kwok = Kwok(self.cluster)

    def start(self) -> None:
        """Starts the cluster; all of the above is there when this returns."""
        self.cluster.start()
        if self.crds is not None:
            self.cluster.install_crds(self.crds)
        if self.nodes:
            self.kwok.start()
        for node in self.nodes:
            self.kwok.add_node(node)
        for node in self.nodes:
            self.kwok.await_node(node)

    def stop(self) -> None:
        self.kwok.stop()
        self.cluster.stop()


class Federation:
    """A hub and its homes; a context manager that starts and stops them all, in parallel."""

    def __init__(self, hub: Member, homes: Sequence[Member]) -> None:
        self._hub, self._homes = hub, tuple(homes)

    @classmethod
    def create(
        cls,
        folder: Path,
        binaries: Binaries,
        *,
        homes: int = 2,
        kwok_nodes: int = 2,
        crds: Path | None = None,
        hub_allocates_node_cidrs: bool = False,
        hub_extra: Mapping[str, Sequence[str]] | None = None,
    ) -> "Federation":
        """A hub named `hub` and homes named `home-1`, `home-2` …, each with nodes `home-1-a`, `home-1-b` … of 8 cores
        and 16 GiB. Nothing runs yet. `crds`: a folder whose CRDs are installed in every cluster. `hub_extra`: flags
        for the hub's components, such as {"kube-controller-manager": ["--node-monitor-grace-period=20s"]}."""
        hub = Cluster("hub", folder / "hub", binaries, allocate_node_cidrs=hub_allocates_node_cidrs, extra=hub_extra)
        members = []
        for number in range(1, homes + 1):
            name = f"home-{number}"
            nodes = [f"{name}-{chr(ord('a') + index)}" for index in range(kwok_nodes)]
            members.append(Member(Cluster(name, folder / name, binaries), crds, nodes))
        return cls(Member(hub, crds), members)

    @property
    def hub(self) -> Cluster:
        return self._hub.cluster

    @property
    def homes(self) -> tuple[Cluster, ...]:
        return tuple(home.cluster for home in self._homes)

    def kwok(self, home: Cluster) -> Kwok:
        """The simulator of a home, to add nodes to it or to kill it."""
        return next(member.kwok for member in self._homes if member.cluster is home)

    def start(self) -> "Federation":
        """Starts everything side by side; nothing is left running when something fails."""
        start_all((self._hub, *self._homes))
        return self

    def stop(self) -> None:
        with contextlib.ExitStack() as stack:  # the rest is stopped even where stopping one fails
            for member in (self._hub, *self._homes):
                stack.callback(member.stop)

    def __enter__(self) -> "Federation":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
