"""HomeFed on a federation with real nodes: hub, ledger, agents and Prometheus are the chart's own pods.

with real_federation(folder) as federation:
    homefed = Deployed(federation).install()
    homefed.contribute("home-1", "garden")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from testbed.federated import Federated, Json
from testbed.installation import NAMESPACE, Release, install_home, install_hub, invite, load_images
from testbed.real import RealCluster, RealFederation

FEDERATION = "testbed"
Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Nobody listens."""


class Deployed(Federated):
    """Hub and homes as `helm install --wait` makes them. `members` are the homes with their nodes, by name."""

    def __init__(self, federation: RealFederation, *, federation_id: str = FEDERATION) -> None:
        self.federation, self.federation_id = federation, federation_id
        self.members = {member.name: member for member in federation.homes}
        self.hub, self.homes = federation.hub.cluster, {name: one.cluster for name, one in self.members.items()}
        self.releases: dict[str, Release] = {}

    def install(self, say: Say = _silent) -> Deployed:
        """Role hub, then role home everywhere, side by side. Raises HelmError, CliError."""
        self.install_hub(say)
        _side_by_side(lambda name: self.join(name, say), self.homes)
        return self

    def install_hub(self, say: Say = _silent) -> None:
        """The chart with role hub; the homes' images are loaded meanwhile."""
        with ThreadPoolExecutor(len(self.members)) as pool:
            loading = [pool.submit(self._load, member) for member in self.members.values()]
            self.releases["hub"] = install_hub(self.federation.hub, self.federation_id)
            for future in loading:
                future.result()
        say("hub: helm install done: hub operator and ledger run")

    def join(self, home: str, say: Say = _silent) -> None:
        """`homefed invite`, then the chart with role home."""
        values_file = invite(self.hub, home)
        say(f"{home}: homefed invite wrote {values_file.name}")
        self.releases[home] = install_home(self.members[home], values_file)
        say(f"{home}: helm install done: agent and Prometheus run")

    def ledger(self, path: str) -> Json:
        """Through the hub's API server, which reaches the Service."""
        return dict(self.hub.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/homefed-ledger:http/proxy{path}"))

    def _load(self, member: RealCluster) -> None:
        load_images(member, "home")
        member.load_image("workload")


def _side_by_side(action: Callable[[str], None], names: Iterable[str]) -> None:
    """Runs the action for every name at once; the first error is raised when all have ended."""
    listed = list(names)
    with ThreadPoolExecutor(len(listed)) as pool:
        for future in [pool.submit(action, name) for name in listed]:
            future.result()
