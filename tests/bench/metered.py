"""What is metered, against what the known-truth workload itself says: a federation with real nodes, the chart by Helm.

Two burners and a sink run as guests through the hub. Each UsageReport carries the readings with which its window
closed: cumulative units, and the time of the sample that they rest on. The truth is the workload's own log, between the
two lines around that time. So five windows, from the closing reading before the first to the closing reading of the
fifth, are compared over exactly the stretch of time that was metered: a reading always lies a few seconds before its
window's edge, and what it misses is in the next one. The figure is the largest error of any guest.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from bench.arithmetic import error_ppm
from bench.figures import METER_CPU, METER_NETWORK, Progress, Results
from homefed.api import names
from testbed.deployed import Deployed
from testbed.errors import TestbedError
from testbed.images import IMAGES
from testbed.installation import ROOT, cli
from testbed.real import real_federation
from testbed.settled import reports_of
from testbed.truth import Truth

FIGURES: Final = (METER_CPU, METER_NETWORK)
HOME: Final = "home-1"
POOL: Final = "garden"
SHOP: Final = "bench"
WINDOWS: Final = 5
WINDOW_S: Final = 30
GRACE_S: Final = 12
NODE_WITHIN_S: Final = 60.0
RUNNING_WITHIN_S: Final = 60.0
SINK: Final = "sink"
BURNERS: Final = {
    "steady": ("--millicores=100", "--byte-rate=100000"),
    "busy": ("--millicores=250", "--byte-rate=1000000"),
}
"""Its arguments beside the sink's address."""
UNITS: Final = {
    "cpu": ("cpu_seconds", 1e6),
    "network-transmit": ("wire_bytes", 1),
    "network-receive": ("wire_bytes", 1),
}
"""Resource → key of the workload's log, metered units per unit there."""
Json = dict[str, Any]


def measure(folder: Path, wanted: Collection[str], results: Results, say: Progress) -> None:
    """Put the wanted figures of FIGURES into `results`. Raises Unavailable where real nodes cannot run."""
    if not set(wanted) & set(FIGURES):
        return
    folder.mkdir(parents=True, exist_ok=True)
    say("metered: starting a hub and a home with real nodes")
    with real_federation(folder / "clusters", homes=(HOME,)) as federation:
        world = Deployed(federation).install(say)
        truths = _start_guests(world, folder, say)
        try:
            reports = _await_windows(world, truths, say)
            errors = _compare(reports, truths)
        finally:
            for truth in truths.values():
                truth.stop()
    for figure, kinds in ((METER_CPU, ("cpu",)), (METER_NETWORK, ("network-transmit", "network-receive"))):
        found = {key: value for key, value in errors.items() if key.partition(" ")[2] in kinds}
        if figure in wanted:
            results.put(figure, max(found.values()), windows=WINDOWS, window_s=WINDOW_S, error_ppm=found)


def _start_guests(world: Deployed, folder: Path, say: Progress) -> dict[str, Truth]:
    """A sink and the burners that send to it; name of the pod → its truth."""
    pool = yaml.safe_load((ROOT / "examples" / "pool.yaml").read_text())
    pool["spec"]["settlement"] |= {"windowSeconds": WINDOW_S, "graceSeconds": GRACE_S}
    world.hub.apply([pool])
    world.contribute(HOME, POOL)
    world.hub.wait_for(lambda: bool(world.ready_nodes()), NODE_WITHIN_S, "a virtual node Ready")
    world.hub.create_namespace(SHOP)
    cli(world.hub, "consumer", "enable", SHOP, "--pool", POOL)
    world.hub.apply([_guest(SINK, ["sink", "--log-every=1"], "100m")])
    truths = {SINK: _truth(world, SINK, folder)}
    address = f"{_home_pod(world, truths[SINK].guest_uid)['status']['podIP']}:9000"
    burning = ["burn", "--log-every=1", f"--send-to={address}"]
    world.hub.apply([_guest(name, [*burning, *arguments], "400m") for name, arguments in BURNERS.items()])
    truths |= {name: _truth(world, name, folder) for name in BURNERS}
    say(f"metered: {', '.join(truths)} run; {WINDOWS} windows of {WINDOW_S} s")
    return truths


def _guest(name: str, arguments: Sequence[str], cpu: str) -> Json:
    """`--flag=value` as the workload takes it: in two words."""
    container = {
        "name": "main",
        "image": IMAGES["workload"],
        "args": [word for argument in arguments for word in argument.split("=")],
        "resources": {"requests": {"cpu": cpu, "memory": "32Mi", "ephemeral-storage": "16Mi"}},
    }
    spec = {"containers": [container], "runtimeClassName": names.runtime_class(POOL)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SHOP}, "spec": spec}


def _truth(world: Deployed, name: str, folder: Path) -> Truth:
    """Of a pod of the hub, once it runs."""
    path = f"/api/v1/namespaces/{SHOP}/pods/{name}"
    world.hub.wait_for(
        lambda: world.hub.api.get(path)["status"].get("phase") == "Running", RUNNING_WITHIN_S, f"pod {name} Running"
    )
    uid = world.hub.api.get(path)["metadata"]["uid"]
    return Truth(world.homes[HOME], uid, folder).start()


def _home_pod(world: Deployed, uid: str) -> Json:
    path = f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/pods/{names.home_pod(uid)}"
    return dict(world.homes[HOME].api.get(path))


def _await_windows(world: Deployed, truths: dict[str, Truth], say: Progress) -> list[Json]:
    """The report in which all guests were read for the first time while they ran, and the five after it. (A container
    may be read before its process has begun; about that moment the workload can tell nothing.)"""
    deadline = time.monotonic() + (WINDOWS + 3) * WINDOW_S + 2 * GRACE_S
    shown = 0
    while True:
        reports = [one for one in reports_of(world, HOME, POOL) if _tells_of_all(one, truths)]
        if len(reports) > shown:
            shown = len(reports)
            say(f"metered: {max(0, shown - 1)} of {WINDOWS} windows reported")
        if len(reports) > WINDOWS:
            return reports[: WINDOWS + 1]
        if time.monotonic() > deadline:
            raise TestbedError(f"{len(reports)} reports of all guests instead of {WINDOWS + 1}: is Prometheus up?")
        time.sleep(1)


def _compared() -> list[tuple[str, str]]:
    """(pod, resource)"""
    return [(SINK, "network-receive"), *((name, kind) for name in BURNERS for kind in ("cpu", "network-transmit"))]


def _tells_of_all(report: Json, truths: dict[str, Truth]) -> bool:
    """Whether every guest was read, and not before its own first word."""
    read = {(one["guestPod"], one["resource"]) for one in report["readings"]}
    for name, resource in _compared():
        truth = truths[name]
        if (truth.guest_uid, resource) not in read or not (lines := truth.lines()):
            return False
        if _sampled_at(report, truth.guest_uid, resource) < lines[0]["wall"]:
            return False
    return True


def _compare(reports: Sequence[Json], truths: dict[str, Truth]) -> dict[str, float]:
    """`pod resource` → error in ppm over all windows but the first, whose closing reading is where they open."""
    errors = {}
    for name, resource in _compared():
        uid, (key, scale) = truths[name].guest_uid, UNITS[resource]
        opened, closed = (truths[name].told(key, _sampled_at(one, uid, resource)) for one in (reports[0], reports[-1]))
        amount = sum(_amount(report, uid, resource) for report in reports[1:])
        errors[f"{name} {resource}"] = round(error_ppm(amount, (closed - opened) * scale), 1)
    return errors


def _amount(report: Json, uid: str, resource: str) -> int:
    lines = (line for line in report["lines"] if (line["guestPod"], line["resource"]) == (uid, resource))
    return sum(int(line["amount"]) for line in lines)


def _sampled_at(report: Json, uid: str, resource: str) -> float:
    """Seconds since the epoch on the home's clock, which is the workload's."""
    (reading,) = (one for one in report["readings"] if (one["guestPod"], one["resource"]) == (uid, resource))
    return float(reading["time"] - report["clockOffsetMs"]) / 1000
