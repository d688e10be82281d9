"""What the demo does, and what it sees while it happens: one step after the other, each told as it takes place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from homefed.core.times import from_rfc3339
from testbed.errors import TestbedError
from testbed.federated import Federated, Json, is_ready
from testbed.images import IMAGES
from testbed.installation import ROOT, cli
from testbed.settled import API, Claim, claims_of, metered, reports_of
from testbed.truth import Truth

POOL: Final = "garden"
CONSUMER: Final = "allotment"
WINDOW_SECONDS: Final = 60
GRACE_SECONDS: Final = 10
LATENESS_SECONDS: Final = 120
"""So long after a window's end its report may come: before that nothing is settled without it."""
FEE_PPM: Final = 20_000
PRICE_FACTOR: Final = 1000
"""The example's prices are per hour; the demo's windows are minutes, so that its amounts would hardly be seen."""
JOB_SECONDS: Final = 70
JOB_BYTES: Final = 8_000_000
JOB_BYTE_RATE: Final = 200_000
"""Sent within 40 s: the last sample before the end, at most 20 s old, has seen all of it."""
COPIES: Final = 2

Say = Callable[[str], None]
Api = dict[str, Any]


class Story:
    """One consumer's Deployment and Job over all homes of an installed federation.

    `target`: IPv4 address that guests send datagrams to. `real`: whether anything truly runs. `folder`: for logs."""

    def __init__(
        self,
        federation: Federated,
        say: Say,
        folder: Path,
        *,
        real: bool,
        target: str,
        window_seconds: int = WINDOW_SECONDS,
    ) -> None:
        self.federation, self.say, self.folder = federation, say, folder
        self.window_seconds = window_seconds
        self.real, self.target = real, target
        self.truths: dict[str, Truth] = {}
        """By guest pod UID."""
        self.pods: dict[str, Json] = {}
        """The consumer's pods as last seen, by UID."""
        self._told: set[str] = set()

    # --- the steps

    def offer(self) -> None:
        """The pool, machines labelled at home, a contribution per home; until every machine is a Ready virtual node."""
        self.federation.hub.apply([example("pool", pool_changes(self.window_seconds, real=self.real))])
        length, fee = self.window_seconds, FEE_PPM / 10_000
        self.say(f"pool {POOL}: windows of {length} s, settled {GRACE_SECONDS} s later, {fee:g} % fee")
        for name, home in self.federation.homes.items():
            home.kubectl("label", "nodes", "--all", "homefed.io/contribute=yes")
            home.apply([example("contribution", {"spec": {"egress": "Internet"}})])
            self.say(f"{name}: contribution applied (half of each machine labelled homefed.io/contribute=yes)")
        expected = sum(len(home.api.get("/api/v1/nodes")["items"]) for home in self.federation.homes.values())
        self._until(lambda: len(self.federation.ready_nodes()) >= expected, 240, "every machine a Ready virtual node")

    def consume(self) -> None:
        """A namespace that may use the pool, and in it the Deployment and the Job."""
        self.federation.hub.create_namespace(CONSUMER)
        cli(self.federation.hub, "consumer", "enable", CONSUMER, "--pool", POOL)
        self.say(f"consumer: namespace {CONSUMER} may use the pool")
        load = ["--millicores", "100", "--mib", "24", "--byte-rate", "100000"]
        batch = ["--millicores", "150", "--mib", "32", "--byte-rate", str(JOB_BYTE_RATE), "--bytes", str(JOB_BYTES)]
        batch += ["--duration", str(JOB_SECONDS)]
        deployment = example("deployment", {"metadata": {"name": "hello"}, "spec": {"replicas": COPIES}})
        job = example("job", {"metadata": {"name": "count"}, "spec": {"completions": COPIES, "parallelism": COPIES}})
        self._fill(deployment, "hello", "200m", load)
        self._fill(job, "count", "300m", batch)
        self.federation.hub.kubectl("apply", "-n", CONSUMER, "-f", "-", stdin=yaml.safe_dump_all([deployment, job]))
        self.say(f"consumer: Deployment hello and Job count applied, {COPIES} pods each, spread over the homes")

    def run(self) -> None:
        """Until the Job is done and every window in which it ran is settled and receipted for every home."""
        self._until(self._job_is_done, JOB_SECONDS + 240, "the Job completed")
        job = self.federation.hub.api.get(f"/apis/batch/v1/namespaces/{CONSUMER}/jobs/count")
        ended = from_rfc3339(job["status"]["completionTime"])
        length = self.window_seconds
        closes = datetime.fromtimestamp((ended.timestamp() // length + 1) * length, UTC)
        self.say(f"Job done; its last window closes at {closes:%H:%M:%S} UTC and is settled {GRACE_SECONDS} s later")
        ahead = max(0.0, (closes - datetime.now(UTC)).total_seconds())  # run() may begin long after the Job's end
        within = ahead + (LATENESS_SECONDS if self.real else GRACE_SECONDS) + 240
        self._until(lambda: self._settled_through(closes), within, f"every claim up to {closes:%H:%M:%S} receipted")

    def snapshot(self) -> tuple[list[Claim], Json]:
        """All claims, each with its receipt, and the ledger's totals of the same moment."""
        for _ in range(240):
            claims, totals = claims_of(self.federation, POOL), self.federation.ledger("/v1/totals")
            if totals["claims"] == len(claims) and all(claim.receipt for claim in claims):
                return claims, totals
            time.sleep(0.5)
        raise TestbedError(f"the ledger has {totals['claims']} claims, the hub {len(claims)} (not all receipted)")

    def stop(self) -> None:
        for truth in self.truths.values():
            truth.stop()

    # --- what is seen meanwhile

    def look(self) -> None:
        """Tells what is new: nodes, pods, reports, claims."""
        for node in self.federation.virtual_nodes():
            if is_ready(node):
                self._tell(f"node/{node['metadata']['uid']}", _node_text(node))
        for pod in self._consumers_pods():
            self._see_pod(pod)
        for home in self.federation.homes:
            self._see_reports(home)
        for claim in claims_of(self.federation, POOL):
            self._see_claim(claim)

    def home_of(self, pod: Json) -> str:
        """Name of the home whose machine the pod is bound to; empty before."""
        node = pod["spec"].get("nodeName", "")
        return next((name for name in self.federation.homes if node.startswith(f"hf-{name}-")), "")

    def _see_pod(self, pod: Json) -> None:
        uid, name, phase = pod["metadata"]["uid"], pod["metadata"]["name"], pod["status"].get("phase", "Pending")
        self.pods[uid] = pod
        home = self.home_of(pod)
        if home:
            self._tell(f"bound/{uid}", f"pod {name} lands in {home}")
        if phase != "Pending":
            self._tell(f"{phase}/{uid}", f"pod {name} is {phase} in {home}")
        if self.real and home and phase != "Pending" and uid not in self.truths:
            self.truths[uid] = Truth(self.federation.homes[home], uid, self.folder).start()

    def _see_reports(self, home: str) -> None:
        for report in reports_of(self.federation, home, POOL):
            cpu = sum(int(line["amount"]) for line in report["lines"] if line["resource"] == "cpu")
            pods = len({line["guestPod"] for line in report["lines"]})
            used = f"{cpu / 1e6:.2f} core·s of {pods} pods used"
            key = f"report/{home}/{report['windowEnd']}/{report['part']}"
            self._tell(key, f"{home}: signed report of the window to {clock(report['windowEnd'])}: {used}")

    def _see_claim(self, claim: Claim) -> None:
        text = f"{claim.home}: claim {claim.id[:8]} of the window to {clock(claim.window_end)}"
        money = f"{credits(claim.amount('charged'))} charged, {credits(claim.amount('paid'))} paid"
        self._tell(f"claim/{claim.id}", f"{text}: {len(claim.lines)} lines, {money}")
        if claim.receipt:
            for line in self._against_truth(claim):
                self._tell(f"truth/{claim.id}/{line}", f"{claim.home}:   {line}")
            self._tell(f"receipt/{claim.id}", f"{claim.home}: claim {claim.id[:8]} receipted by the ledger")

    def _against_truth(self, claim: Claim) -> Iterator[str]:
        """CPU of each pod up to this claim's readings beside what its log said at those moments."""
        own = [one for one in claims_of(self.federation, POOL) if one.home == claim.home]
        if f"receipt/{claim.id}" in self._told or not self.real:
            return
        until = [one for one in own if one.window_end <= claim.window_end]
        for (uid, resource), usage in metered(until, reports_of(self.federation, claim.home, POOL)).items():
            if resource == "cpu" and uid in self.truths and uid in self.pods:
                truth = self.truths[uid].told("cpu_seconds", None if usage.ended else usage.at_ms / 1000)
                name = self.pods[uid]["metadata"]["name"]
                yield f"{name}: CPU metered {usage.reported / 1e6:.2f} s, its own truth {truth:.2f} s"

    # --- inside

    def _until(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        deadline = time.monotonic() + within_s
        while True:
            self.look()
            if holds():
                return
            if time.monotonic() > deadline:
                raise TestbedError(f"not within {within_s:.0f} s: {what}\n{self._standing()}")
            time.sleep(1)

    def _standing(self) -> str:
        """Of every home: windows reported, windows claimed, conditions. For the message of an error."""
        claims = claims_of(self.federation, POOL)
        said = []
        for home in self.federation.homes:
            reported = [clock(one["windowEnd"]) for one in reports_of(self.federation, home, POOL)]
            claimed = [
                clock(one.window_end) + ("" if one.receipt else " (no receipt)") for one in claims if one.home == home
            ]
            status = self.federation.hub.api.get(f"{API}/homes/{home}").get("status") or {}
            found = status.get("conditions") or ()
            conditions = [f"{one['type']}={one['status']}: {one.get('message', '')}" for one in found]
            said.append(f"{home}: reported {reported}, claimed {claimed}, {conditions}")
        return "\n".join(said)

    def _tell(self, key: str, text: str) -> None:
        """Each piece of news once."""
        if key not in self._told:
            self._told.add(key)
            self.say(text)

    def _consumers_pods(self) -> list[Json]:
        return list(self.federation.hub.api.get(f"/api/v1/namespaces/{CONSUMER}/pods")["items"])

    def _job_is_done(self) -> bool:
        job = self.federation.hub.api.get(f"/apis/batch/v1/namespaces/{CONSUMER}/jobs/count")
        conditions = job.get("status", {}).get("conditions") or []
        if failed := next((one for one in conditions if one["type"] == "Failed" and one["status"] == "True"), None):
            raise TestbedError(f"the Job failed: {failed.get('message')}")
        return any(one["type"] == "Complete" and one["status"] == "True" for one in conditions)

    def _settled_through(self, moment: datetime) -> bool:
        newest = {claim.home: claim for claim in claims_of(self.federation, POOL) if claim.receipt}
        return set(newest) == set(self.federation.homes) and all(
            from_rfc3339(claim.window_end) >= moment for claim in newest.values()
        )

    def _fill(self, workload: Api, name: str, cpu: str, load: list[str]) -> None:
        """The workload image, its load, and a pod template that spreads over the homes."""
        template = workload["spec"]["template"]
        template.setdefault("metadata", {}).setdefault("labels", {})["app"] = name
        spread = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        spread["labelSelector"] = {"matchLabels": {"app": name}}
        template["spec"]["topologySpreadConstraints"] = [spread]
        container = template["spec"]["containers"][0]
        container.pop("command")
        container |= {"image": IMAGES["workload"], "imagePullPolicy": "IfNotPresent"}
        container["args"] = ["burn", *load, "--send-to", f"{self.target}:9", "--log-every", "0.5"]
        container["resources"]["requests"]["cpu"] = cpu
        if not self.real and name == "count":  # simulated pods end when they are told to
            container["env"] = [{"name": "TESTBED_RUN_FOR", "value": "30s"}]


def example(name: str, changes: Api) -> Api:
    """One of the repository's examples, changed member by member."""
    loaded: Api = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    return _merged(loaded, changes)


def pool_changes(window_seconds: int, *, real: bool) -> Api:
    """Short windows and visible prices. Where nothing runs nothing is reported, and nothing is waited for."""
    prices = example("pool", {})["spec"]["rateCard"]["prices"]
    visible = [price | {"microCredits": price["microCredits"] * PRICE_FACTOR} for price in prices]
    settlement = {"windowSeconds": window_seconds, "graceSeconds": GRACE_SECONDS, "feePpm": FEE_PPM, "heldBack": []}
    settlement["latenessSeconds"] = LATENESS_SECONDS if real else GRACE_SECONDS
    return {"metadata": {"name": POOL}, "spec": {"settlement": settlement, "rateCard": {"prices": visible}}}


def credits(micro: int) -> str:
    return f"{micro / 1_000_000:.6f}"


def clock(time_text: str) -> str:
    return f"{from_rfc3339(time_text):%H:%M:%S}"


def _node_text(node: Json) -> str:
    size = node["status"]["allocatable"]
    return f"node {node['metadata']['name']} is Ready: {size['cpu']} cores, {size['memory']} of memory"


def _merged(base: Api, changes: Api) -> Api:
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
