"""Latency, memory and writes at rest: a hub and a home with 20 simulated machines, HomeFed's processes beside them.

One world for all of these, in this order: machines join one by one, 100 guests are started, then nothing happens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from bench.arithmetic import added, per_minute, percentile
from bench.figures import AGENT_RSS, IDLE_WRITES, NODE_READY, POD_P50, POD_P99, Progress, Results
from bench.watching import Watch
from homefed.api import names
from testbed.audit import AuditEvent
from testbed.binaries import Binaries
from testbed.cluster import Cluster
from testbed.federated import is_ready
from testbed.federation import Federation
from testbed.installation import NAMESPACE, ROOT, cli
from testbed.processes import HomeFed

FIGURES: Final = (NODE_READY, POD_P50, POD_P99, AGENT_RSS, IDLE_WRITES)
POOL: Final = "garden"
HOME: Final = "home-1"
SHOP: Final = "bench"
MACHINES: Final = 20
PODS: Final = 100
BATCH: Final = 20
PODS_PER_SECOND: Final = 10
PAUSE_S: Final = 0.5
SETTLE_S: Final = 65.0
"""Longer than the hub's full pass, which brings the counts in a Home's status up to date."""
IDLE_S: Final = 120.0
NODE_WITHIN_S: Final = 30.0
PODS_WITHIN_S: Final = 90.0
CONTRIBUTIONS: Final = f"/apis/homefed.io/v1alpha1/namespaces/{NAMESPACE}/contributions"
REVIEWS: Final = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
Json = dict[str, Any]


def measure(folder: Path, wanted: Collection[str], results: Results, say: Progress) -> None:
    """Put the wanted figures of FIGURES into `results`. A later step needs the earlier ones' objects."""
    if not set(wanted) & set(FIGURES):
        return
    say(f"simulated: starting a hub and a home of {MACHINES} machines")
    with _world(folder) as world:
        say("simulated: HomeFed runs")
        _join(world, results, say)
        if set(wanted) - {NODE_READY}:
            _start_pods(world, results, say)
        if AGENT_RSS in wanted:
            process = world.processes[HOME]
            results.put(AGENT_RSS, process.rss_mib(), guests=PODS, machines=MACHINES)
        if IDLE_WRITES in wanted:
            _rest(world, results, say)


@contextmanager
def _world(folder: Path) -> Iterator[HomeFed]:
    federation = Federation.create(
        folder / "clusters", Binaries(), homes=1, kwok_nodes=MACHINES, hub_allocates_node_cidrs=True
    )
    with federation, HomeFed(federation, folder / "homefed") as world:
        pool = yaml.safe_load((ROOT / "examples" / "pool.yaml").read_text())
        pool["spec"]["settlement"] |= {"windowSeconds": 86_400}  # none ends within a run, save at midnight
        world.hub.apply([pool])
        yield world


# --- machines


def _join(world: HomeFed, results: Results, say: Progress) -> None:
    """One Contribution per machine, one after the other."""
    seconds = []
    with Watch(world.hub.api, "/api/v1/nodes", is_ready, labelSelector=f"type={names.VIRTUAL_NODE_TYPE}") as nodes:
        for node in sorted(_machines(world.homes[HOME])):
            before = set(nodes.seen)
            started = time.monotonic()
            world.homes[HOME].api.request("POST", CONTRIBUTIONS, _contribution(node))
            joined = nodes.wait_for_another(before, NODE_WITHIN_S)
            seconds.append(nodes.seen[joined] - started)
            time.sleep(PAUSE_S)
    results.put(NODE_READY, percentile(seconds, 50), seconds=_rounded(seconds))
    say(f"nodes: {len(seconds)} joined, P50 {percentile(seconds, 50):.3f} s, slowest {max(seconds):.3f} s")


def _machines(home: Cluster) -> list[str]:
    return [node["metadata"]["name"] for node in home.api.get("/api/v1/nodes")["items"]]


def _contribution(node: str) -> Json:
    """Half a machine, so that the owner's own pods, in the other half, change no offer."""
    share = {"sharePercent": 50}
    return {
        "apiVersion": "homefed.io/v1alpha1",
        "kind": "Contribution",
        "metadata": {"name": node, "namespace": NAMESPACE},
        "spec": {
            "poolName": POOL,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "resources": {"cpu": share, "memory": share, "ephemeral-storage": share},
        },
    }


# --- pods


def _start_pods(world: HomeFed, results: Results, say: Progress) -> None:
    """The same pods through the hub and directly in the home, in turns: batches at the same pace, one way at a time."""
    hub, home = world.hub, world.homes[HOME]
    for cluster in (hub, home):
        cluster.create_namespace(SHOP)
    cli(hub, "consumer", "enable", SHOP, "--pool", POOL)
    through: list[float] = []
    directly: list[float] = []
    cpu_before = _cpu_seconds(world)
    path = f"/api/v1/namespaces/{SHOP}/pods"
    with Watch(hub.api, path, _runs) as at_hub, Watch(home.api, path, _runs) as at_home:
        for batch in range(PODS // BATCH):
            numbers = range(batch * BATCH, (batch + 1) * BATCH)
            directly += _run_batch(home, at_home, [_pod(number) for number in numbers])
            through += _run_batch(hub, at_hub, [_guest(number) for number in numbers])
            say(
                f"pods: {len(through)} of {PODS}, P50 {percentile(through, 50):.3f} s, "
                f"directly {percentile(directly, 50):.3f} s"
            )
    used = {name: round((after - cpu_before[name]) * 1000 / PODS, 1) for name, after in _cpu_seconds(world).items()}
    both = {"through_the_hub_s": _summary(through), "directly_s": _summary(directly), "cpu_ms_per_guest": used}
    results.put(POD_P50, added(through, directly, 50), **both)
    results.put(POD_P99, added(through, directly, 99), **both)


def _cpu_seconds(world: HomeFed) -> dict[str, float]:
    """Used so far by hub, ledger and agent: what on a busy machine a latency is made of."""
    return {name: process.cpu_seconds() for name, process in world.processes.items()}


def _run_batch(cluster: Cluster, watch: Watch, pods: list[Json]) -> list[float]:
    """Create at the given pace, whatever the server's answers take; seconds from each request to Running."""
    started: dict[str, float] = {}

    def create(pod: Json) -> None:
        started[pod["metadata"]["name"]] = time.monotonic()
        cluster.api.request("POST", f"/api/v1/namespaces/{SHOP}/pods", pod)

    with ThreadPoolExecutor(4) as pool:
        begin = time.monotonic()
        sent = []
        for number, pod in enumerate(pods):
            time.sleep(max(0.0, begin + number / PODS_PER_SECOND - time.monotonic()))
            sent.append(pool.submit(create, pod))
        for one in sent:
            one.result()
    watch.wait(started, PODS_WITHIN_S)
    time.sleep(PAUSE_S)
    return [watch.seen[name] - at for name, at in started.items()]


def _pod(number: int) -> Json:
    container = {
        "name": "main",
        "image": "homefed-workload:testbed",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi", "ephemeral-storage": "16Mi"}},
    }
    spec = {"containers": [container], "securityContext": {"runAsUser": 1000}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number:03}"}, "spec": spec}


def _guest(number: int) -> Json:
    pod = _pod(number)
    return pod | {"spec": pod["spec"] | {"runtimeClassName": names.runtime_class(POOL)}}


def _runs(pod: Json) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Running")


# --- rest


def _rest(world: HomeFed, results: Results, say: Progress) -> None:
    """Two minutes in which nobody does anything, with the guests running; the writes in them, from the audit logs."""
    time.sleep(SETTLE_S)
    clusters = [world.hub, world.homes[HOME]]
    offsets = [cluster.audit_log.stat().st_size for cluster in clusters]
    say(f"rest: {IDLE_S:.0f} s")
    started = time.monotonic()
    time.sleep(IDLE_S)
    seconds = time.monotonic() - started
    found: Counter[str] = Counter()
    for cluster, offset in zip(clusters, offsets, strict=True):
        found.update(f"{cluster.name}: {told}" for told in map(_told, cluster.audit_events(offset)) if told)
    results.put(IDLE_WRITES, per_minute(found.total(), seconds), guests=PODS, writes=dict(found))
    say(f"rest: {found.total()} writes {dict(found) or ''}")


def _told(event: AuditEvent) -> str:
    """What was written by one of HomeFed's own identities; "" for all else.

    Leases tell that somebody lives. Reviews and requests for tokens are questions: nothing is stored."""
    ours = event.user.startswith("system:serviceaccount:homefed")
    asks = event.group in REVIEWS or event.resource == "serviceaccounts/token"
    if not ours or not event.is_write or event.resource == "leases" or asks:
        return ""
    return f"{event.user.rpartition(':')[2]} {event.verb} {event.resource}"


def _rounded(seconds: list[float]) -> list[float]:
    return [round(one, 4) for one in seconds]


def _summary(seconds: list[float]) -> Json:
    return {f"p{percent}": round(percentile(seconds, percent), 4) for percent in (50, 90, 99, 100)} | {
        "count": len(seconds)
    }
