"""A hub and homes with real nodes, each in its own network namespace; homes have outbound connections only.

    with workspace() as folder, real_federation(folder) as federation:
        federation.load_image("operator")
        federation.homes[0].kubectl("get", "nodes")

Everything that a home is made of can be killed by itself: the machine (`node.kill`), the kubelet, any part of its
control plane, its cable (`unplug`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest

from testbed import services
from testbed.binaries import Binaries
from testbed.cluster import Cluster, start_all
from testbed.errors import Unavailable
from testbed.images import Images
from testbed.leftovers import Run
from testbed.network import Network, Site
from testbed.node import PROGRAMS, RealNode
from testbed.process import Process
from testbed.workspace import new_folder

NEEDED = (*PROGRAMS, "kube-apiserver", "kubelet", "kube-proxy", "coredns", "prometheus", "kubectl", "gcc", "mmdebstrap")
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH_INSTANCES = 1024
HOMES = ("home-1", "home-2")


class RealCluster:
    """A cluster with one real node and DNS, at one site. `name` is the site's; the node is `<name>-machine`."""

    def __init__(self, cluster: Cluster, site: Site, run: Run, images: Images) -> None:
        self.name, self.cluster, self.site = cluster.name, cluster, site
        self.node = RealNode(f"{self.name}-machine", cluster, site, run, images)
        self.dns: Process = services.dns(cluster, site)
        self._scratch = run.scratch
        self._prometheus: services.Prometheus | None = None

    def start(self) -> None:
        """Starts control plane, node and DNS; all are ready, and claims find volumes, when this returns."""
        self.cluster.start()
        self.dns.start()
        self.node.start()
        self.cluster.apply(services.volumes(self.node.name, self._scratch / f"{self.name}-volumes"))
        services.await_dns(self.dns, self.site)

    def stop(self) -> None:
        with contextlib.ExitStack() as stack:  # the rest is stopped even where stopping one fails
            stack.callback(self.cluster.stop)
            stack.callback(self.node.stop)
            stack.callback(self.dns.kill)
            if self._prometheus is not None:
                stack.callback(self._prometheus.stop)

    def prometheus(self, *, scrape_interval_s: int = 15) -> services.Prometheus:
        """The home's own Prometheus, started at the first call. Later calls get the same, whatever the interval."""
        if self._prometheus is None:
            folder = self._scratch / f"{self.name}-prometheus"
            self._prometheus = services.Prometheus(
                self.cluster, self.site, folder, scrape_interval_s=scrape_interval_s
            ).start()
        return self._prometheus

    def load_image(self, role: str) -> str:
        """Puts an image of testbed.images.IMAGES on the node; its name."""
        return self.node.load_image(role)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """As Cluster.kubectl."""
        return self.cluster.kubectl(*arguments, stdin=stdin, timeout_s=timeout_s)

    def rss_mib(self) -> float:
        """Resident memory of control plane, node (containers included) and DNS, in MiB."""
        return sum(self.cluster.rss_mib().values()) + self.node.rss_mib() + self.dns.rss_mib()


class RealFederation:
    """A hub and its homes; a context manager that starts and stops them all, in parallel."""

    def __init__(self, run: Run, network: Network, hub: RealCluster, homes: Sequence[RealCluster]) -> None:
        self.run, self.network, self.hub, self.homes = run, network, hub, tuple(homes)

    @classmethod
    def create(cls, folder: Path, binaries: Binaries, run: Run, *, homes: Sequence[str] = HOMES) -> "RealFederation":
        """A hub named `hub` that anyone can reach, and homes behind NAT. The homes' address ranges are alike, as those
        of real homes are. Nothing runs yet."""
        network, images = Network(run), Images(binaries)

        def make(name: str, *, outbound_only: bool, pod_cidr: str, service_cidr: str) -> RealCluster:
            site = network.add(name, outbound_only=outbound_only)
            cluster = Cluster(
                name,
                folder / name,
                binaries,
                netns=site.netns,
                bind_ip="0.0.0.0",
                advertise_ip=site.address,
                pod_cidr=pod_cidr,
                service_cidr=service_cidr,
            )
            return RealCluster(cluster, site, run, images)

        hub = make("hub", outbound_only=False, pod_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16")
        members = [make(n, outbound_only=True, pod_cidr="10.42.0.0/16", service_cidr="10.43.0.0/16") for n in homes]
        return cls(run, network, hub, members)

    @property
    def clusters(self) -> tuple[RealCluster, ...]:
        """The hub, then the homes."""
        return (self.hub, *self.homes)

    def start(self) -> "RealFederation":
        """Starts everything side by side; nothing is left running when something fails."""
        start_all(self.clusters)
        return self

    def stop(self) -> None:
        with contextlib.ExitStack() as stack:
            for cluster in self.clusters:
                stack.callback(cluster.stop)

    def load_image(self, role: str) -> str:
        """Puts an image of testbed.images.IMAGES on every node, side by side; its name."""
        with ThreadPoolExecutor(len(self.clusters)) as pool:
            futures = [pool.submit(cluster.load_image, role) for cluster in self.clusters]
            names = [future.result() for future in futures]
        return names[0]

    def unplug(self, home: RealCluster) -> None:
        """Pulls the home's cable: connections hang. `plug` puts it back."""
        self.network.unplug(home.name)

    def plug(self, home: RealCluster) -> None:
        self.network.plug(home.name)

    def __enter__(self) -> "RealFederation":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def require(binaries: Binaries) -> None:
    """Raises Unavailable naming the first program that real nodes need and that is not there."""
    for program in NEEDED:
        binaries.path(program)


def allow_inotify() -> None:
    """Raises this machine's limit of inotify instances per user where it is lower than what a few nodes need: each
    takes about 30, and the usual 128 makes containerd and kubelets fail with "too many open files". It stays raised,
    because other runs may rely on it by the time that this one ends."""
    if int(INOTIFY_INSTANCES.read_text()) < ENOUGH_INSTANCES:
        INOTIFY_INSTANCES.write_text(str(ENOUGH_INSTANCES))


@contextmanager
def real_federation(folder: Path, *, homes: Sequence[str] = HOMES) -> Iterator[RealFederation]:
    """A running RealFederation and all that it needs around it. Raises Unavailable, saying what is missing."""
    binaries = Binaries()
    require(binaries)
    run = Run.open()
    try:
        allow_inotify()
        with RealFederation.create(folder, binaries, run, homes=homes) as federation:
            yield federation
    finally:
        run.close()


@pytest.fixture(scope="module")
def federation_real(testbed_folder: Path) -> Iterator[RealFederation]:
    """A hub and two homes with real nodes, for a module: tests take a namespace each, and put back what they kill."""
    with contextlib.ExitStack() as stack:
        try:
            federation = stack.enter_context(real_federation(new_folder(testbed_folder, "real")))
        except Unavailable as error:
            pytest.fail(f"real nodes cannot run: {error}", pytrace=False)
        yield federation
