"""The agent's meter on a real node: known-truth workloads, a real kubelet and Prometheus, and what happens to homes.

    story = Story(federation, folder)
    asyncio.run(story.run(outage_s=45))
    story.errors()                       # "steady cpu" → error in ppm over exactly the time that was metered

A container is restarted, Prometheus is restarted, nothing is scraped for a while, and the meter goes on elsewhere, with
nothing but what the hub's mailbox has. Pods are put into the home by hand; reports go to the hub's real API server.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.agent.keys import Keys
from homefed.agent.meter import Meter
from homefed.api import dsse, names
from homefed.api.canonical import digest
from homefed.api.guest_pod import GuestPodSpec
from homefed.core import home_status
from homefed.core.home_status import View
from homefed.kube.client import KubeClient
from homefed.metering.evidence import EvidenceStore
from homefed.metering.prometheus import PrometheusConfig, PrometheusSource
from testbed.api import ApiError
from testbed.errors import TestbedError
from testbed.images import IMAGES
from testbed.real import RealFederation
from testbed.truth import told_at, whole_lines

CRDS: Final = Path(__file__).parents[2] / "crds"
POOL: Final = "garden"
MAILBOX: Final = "homefed-home-truth"
REPORTS: Final = f"/apis/{names.API_VERSION}/namespaces/{MAILBOX}/usagereports"
HOME_UID: Final = "99999999-0000-4000-8000-000000000000"
WINDOW_S: Final = 15
GRACE_S: Final = 12
SCRAPE_S: Final = 5
GROWN_S: Final = 60.0
"""So old is the container that is restarted: its end is estimated at the mean rate of what was read of it."""
GAP_MS: Final = 30_000
"""A value of memory holds so long: two readings of the kubelet."""
PATIENCE_S: Final = 240.0
EVERY_S: Final = 2.0
GUESTS: Final = {"sink": "100m", "steady": "400m", "restarts": "400m"}
"""Name → CPU request."""
MEMORY: Final = "256Mi"
COMPARED: Final = {
    "cpu": ("cpu_seconds", 1e6),
    "network-transmit": ("wire_bytes", 1.0),
    "network-receive": ("wire_bytes", 1.0),
}
"""Resource → key of the workload's log, metered units in one of those."""
Json = dict[str, Any]
Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Nobody listens."""


class Story:
    """Of three guests in the first home. `reports`: the documents that the mailbox has, oldest first."""

    def __init__(self, federation: RealFederation, folder: Path, say: Say = _silent) -> None:
        self.home, self.hub = federation.homes[0], federation.hub.cluster
        self.reports: list[Json] = []
        self._folder, self._say = folder, say
        self._specs: dict[str, GuestPodSpec] = {}
        self._statuses: dict[str, Json] = {}
        self._told: dict[str, dict[float, list[Json]]] = defaultdict(dict)
        self._key, self._agents = Ed25519PrivateKey.generate(), 0

    async def run(self, *, outage_s: float) -> None:
        """Minutes; TestbedError where something does not come about."""
        await asyncio.to_thread(self._prepare)
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(KubeClient.from_kubeconfig(self.hub.kubeconfig))
            agent = self._agent(hub, stack)
            await self._until(agent, lambda: self._is_read(0), "a report of all guests")
            await self._until(agent, lambda: self._age("restarts") > GROWN_S, "a container that has run for a while")
            self._say("container and Prometheus are restarted")
            await asyncio.to_thread(self._kubectl, "exec", self._pod("restarts"), "--", "sh", "-c", "kill -TERM 1")
            prometheus = self.home.prometheus()
            await asyncio.to_thread(prometheus.stop)
            await asyncio.to_thread(prometheus.start)
            await self._until(agent, lambda: self._restarts() > 0, "the container again")
            self._say(f"nothing is scraped for {outage_s:.0f} s")
            await asyncio.to_thread(prometheus.stop)
            await self._for(agent, outage_s)
            await asyncio.to_thread(prometheus.start)
            back = time.time()
            self._say("the agent moves")
            agent = self._agent(hub, stack)
            await self._until(agent, lambda: self._is_read(back), "a report of all guests after the outage")

    # --- what came of it

    def errors(self) -> dict[str, float]:
        """`guest resource` → error in ppm, between the closing readings of the first and the last report of all."""
        first, last = self._first(), self.reports[-1]
        found = {}
        for name, resource in (
            ("steady", "cpu"),
            ("steady", "network-transmit"),
            ("sink", "network-receive"),
            ("restarts", "cpu"),
        ):
            key, scale = COMPARED[resource]
            opened, closed = (self._total(name, key, _read_at(one, self._uid(name), resource)) for one in (first, last))
            amount = sum(
                _amount(one, self._uid(name), resource) for one in self.reports[self.reports.index(first) + 1 :]
            )
            found[f"{name} {resource}"] = 1e6 * (amount - (closed - opened) * scale) / ((closed - opened) * scale)
        return found

    def memory_error(self, name: str) -> float:
        """In ppm, over the time between readings that no gap parts: what lies in one is not billed."""
        amount = truth = 0.0
        for before, after in pairwise(self.reports[self.reports.index(self._first()) :]):
            opened, closed = (_reading(one, self._uid(name), "memory") for one in (before, after))
            if closed["time"] - opened["time"] <= GAP_MS and not _gaps(after, self._uid(name)):
                amount += int(closed["cumulative"]) - int(opened["cumulative"])
                truth += self._held(name) * (closed["time"] - opened["time"])
        return float(1e6 * (amount - truth) / truth)

    def memory_billed_ppm(self, name: str) -> float:
        """Billed bytes × time of all reports, as a share of what was held from first to last reading."""
        opened, closed = (_reading(one, self._uid(name), "memory") for one in (self._first(), self.reports[-1]))
        amount = int(closed["cumulative"]) - int(opened["cumulative"])
        return 1e6 * amount / (self._held(name) * int(closed["time"] - opened["time"]))

    def flags(self, name: str, resource: str) -> set[str]:
        """Of all lines of a guest."""
        uid = self._uid(name)
        lines = (line for one in self.reports for line in one["lines"])
        return {
            flag for line in lines if (line["guestPod"], line["resource"]) == (uid, resource) for flag in line["flags"]
        }

    def resets(self, name: str) -> int:
        uid = self._uid(name)
        return sum(
            line["resets"]
            for one in self.reports
            for line in one["lines"]
            if (line["guestPod"], line["resource"]) == (uid, "cpu")
        )

    def windows(self) -> list[tuple[str, str]]:
        """(start, end) of all reports."""
        return [(one["windowStart"], one["windowEnd"]) for one in self.reports]

    def _first(self) -> Json:
        """The first report of all guests."""
        return next(one for one in self.reports if self._tells_of_all(one))

    def _tells_of_all(self, report: Json) -> bool:
        """Whether every guest was read, and not before its own first word: a container is there before its process."""
        read = {(one["guestPod"], one["resource"]): one["time"] / 1000 for one in report["readings"]}
        for name in GUESTS:
            for resource in ("memory", "network-receive"):
                if read.get((self._uid(name), resource), 0.0) < min(self._told[name], default=float("inf")):
                    return False
        return True

    def _total(self, name: str, key: str, at: float) -> float:
        """Over all instances of a guest's container, at a moment."""
        total = 0.0
        for lines in self._told[name].values():
            is_over = at >= lines[-1]["wall"] and bool(lines[-1]["final"])
            total += float(lines[-1][key]) if is_over else told_at(lines, key, at)
        return total

    def _held(self, name: str) -> int:
        """Bytes."""
        return int(next(iter(self._told[name].values()))[-1]["mib"]) * 2**20

    # --- the guests

    def _prepare(self) -> None:
        self.hub.install_crds(CRDS)
        self.hub.wait_for(self._answers, PATIENCE_S, "the hub serves UsageReports")
        self.hub.create_namespace(MAILBOX)
        self.home.cluster.create_namespace(names.GUESTS_NAMESPACE)
        self.home.load_image("workload")
        self.home.prometheus(scrape_interval_s=SCRAPE_S)
        self._start("sink", ["sink", "--log-every", "0.5"])
        address = f"{self._running('sink')['podIP']}:9000"
        sending = ["--send-to", address, "--byte-rate", "400000"]
        self._start("steady", ["burn", "--log-every", "0.5", "--millicores", "250", "--mib", "160", *sending])
        self._start("restarts", ["burn", "--log-every", "0.5", "--millicores", "200", "--mib", "120"])
        for name in GUESTS:
            self._running(name)

    def _answers(self) -> bool:
        """An API server refuses a new kind for a moment."""
        try:
            return bool(self.hub.api.get(REPORTS))
        except ApiError:
            return False

    def _start(self, name: str, arguments: list[str]) -> None:
        resources = {"cpu": GUESTS[name], "memory": MEMORY}
        container: Json = {"name": "main", "image": IMAGES["workload"], "imagePullPolicy": "Never", "args": arguments}
        container |= {"resources": {"requests": resources, "limits": resources}}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
        pod = {"labels": {}, "annotations": {}, "spec": spec}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields: Json = {"podUid": self._uid(name), "podName": name, "podNamespace": "shop", "namespaceUid": "ns"}
        fields |= {"poolName": POOL, "nodeName": "hf-truth-12345678", "machineId": "a" * 64, "offerName": "spare"}
        fields |= {"requests": resources, "pod": pod, "podDigest": digest(pod), "observed": {"boundAt": now}}
        self._specs[name] = GuestPodSpec.model_validate(fields)
        metadata = {"name": self._pod(name), "namespace": names.GUESTS_NAMESPACE}
        self.home.cluster.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}])

    def _running(self, name: str) -> Json:
        """The status of its pod."""
        self.home.cluster.wait_for(
            lambda: self._get(name)["status"].get("phase") == "Running", PATIENCE_S, f"pod {name} Running"
        )
        return dict(self._get(name)["status"])

    def _get(self, name: str) -> Json:
        return dict(self.home.cluster.api.get(f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/pods/{self._pod(name)}"))

    def _kubectl(self, command: str, *arguments: str) -> str:
        return self.home.kubectl(command, "-n", names.GUESTS_NAMESPACE, *arguments)

    def _uid(self, name: str) -> str:
        return f"{list(GUESTS).index(name) + 1:08d}-0000-4000-8000-000000000000"

    def _pod(self, name: str) -> str:
        return names.home_pod(self._uid(name))

    def _age(self, name: str) -> float:
        """Seconds that its first container has run."""
        return float(next(iter(self._told[name].values()))[-1]["elapsed"]) if self._told[name] else 0.0

    def _restarts(self) -> int:
        states = self._get("restarts")["status"].get("containerStatuses") or [{}]
        return int(states[0].get("restartCount", 0)) if states[0].get("state", {}).get("running") else 0

    # --- the agent

    def _agent(self, hub: KubeClient, stack: AsyncExitStack) -> Meter:
        """A meter that has just been started on a machine where none was before."""
        self._agents += 1
        source = PrometheusSource(PrometheusConfig(self.home.prometheus().url, timeout_seconds=5))
        stack.callback(source.close)
        keys = Keys(self._key, "salt")
        status = {"federationId": "truth", "homeUid": HOME_UID, "windowSeconds": WINDOW_S, "graceSeconds": GRACE_S}
        return Meter(
            hub,
            MAILBOX,
            lambda: keys,
            source,
            EvidenceStore(self._folder / f"machine-{self._agents}"),
            offers=lambda: [{"spec": {"poolName": POOL}, "status": status}],
            guests=self._guests,
            scrape_interval_ms=SCRAPE_S * 1000,
        )

    def _guests(self) -> list[Json]:
        """GuestPods, with the status that an agent mirrors."""
        return [
            {"metadata": {"name": spec.pod_uid}, "spec": spec.dump(), "status": self._statuses[name]}
            for name, spec in self._specs.items()
        ]

    async def _until(self, agent: Meter, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not await asyncio.to_thread(holds):
            if time.monotonic() > deadline:
                raise TestbedError(f"not within {PATIENCE_S:.0f} s: {what}; {len(self.reports)} reports so far")
            await self._pass(agent)

    async def _for(self, agent: Meter, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await self._pass(agent)

    async def _pass(self, agent: Meter) -> None:
        await asyncio.to_thread(self._look)
        await agent.run_pass(datetime.now(UTC))
        await asyncio.sleep(EVERY_S)

    def _look(self) -> None:
        """Statuses as the agent mirrors them, what the workloads have told, and the reports that are there."""
        for name, spec in self._specs.items():
            pod = self._get(name)
            view = View(spec, self._statuses.get(name), 1, datetime.now(UTC), timedelta())
            self._statuses[name] = home_status.mirror(pod, view)
            restarts = (pod["status"].get("containerStatuses") or [{}])[0].get("restartCount", 0)
            for previous in (["--previous"] if restarts else [], []):
                lines = whole_lines(self._kubectl("logs", self._pod(name), *previous))
                if lines:
                    self._told[name][round(lines[0]["wall"] - lines[0]["elapsed"], 1)] = lines
        found = [json.loads(dsse.decode(one["spec"]["envelope"]).payload) for one in self.hub.api.get(REPORTS)["items"]]
        self.reports = sorted(found, key=lambda one: str(one["windowEnd"]))

    def _is_read(self, since: float) -> bool:
        """Whether a report tells of all guests after a moment (seconds)."""
        return any(
            self._tells_of_all(one) and min(reading["time"] for reading in one["readings"]) > since * 1000
            for one in self.reports
        )


def _reading(report: Json, uid: str, resource: str) -> Json:
    (found,) = (one for one in report["readings"] if (one["guestPod"], one["resource"]) == (uid, resource))
    return dict(found)


def _read_at(report: Json, uid: str, resource: str) -> float:
    """Seconds since the epoch."""
    return float(_reading(report, uid, resource)["time"]) / 1000


def _amount(report: Json, uid: str, resource: str) -> int:
    return sum(int(one["amount"]) for one in report["lines"] if (one["guestPod"], one["resource"]) == (uid, resource))


def _gaps(report: Json, uid: str) -> int:
    return sum(one["gaps"] for one in report["lines"] if (one["guestPod"], one["resource"]) == (uid, "memory"))
