"""One test module's corner of a shared federation: a pool, a namespace that may use it, and what is seen of both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from homefed.api import names
from testbed.api import MERGE_PATCH, Api, ApiError
from testbed.cluster import Cluster
from testbed.federated import Json
from testbed.installation import NAMESPACE, cli
from testbed.processes import HomeFed

GROUP = f"/apis/{names.API_VERSION}"
PATIENCE_S = 120.0
"""Seconds that are waited for anything: they cost nothing where all works, and a loaded machine is slow."""
REQUESTS = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"}
PRICES = [
    {"resource": "cpu", "basis": "reserved", "microCredits": 10**9, "per": "core-hour"},
    {"resource": "cpu", "basis": "used", "microCredits": 10**9, "per": "core-hour"},
    {"resource": "memory", "basis": "reserved", "microCredits": 10**9, "per": "GiB-hour"},
]
SETTLEMENT = {"windowSeconds": 10, "graceSeconds": 1, "latenessSeconds": 3, "feePpm": 30_000, "heldBack": []}


class Corner:
    """`name` is that of the pool, and of the namespace of its consumer."""

    def __init__(self, homefed: HomeFed, name: str) -> None:
        self.homefed, self.name = homefed, name
        self.hub: Api = homefed.hub.api
        self.homes: Mapping[str, Cluster] = homefed.homes

    def prepare(self, settlement: Mapping[str, Any], **spec: Any) -> None:
        """The pool with prices that make seconds worth something, and the namespace with the right to use it."""
        card = {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": PRICES}
        pool = {"rateCard": card, "settlement": {**SETTLEMENT, **settlement}, **spec}
        self.homefed.hub.apply([_custom("SchedulingPool", self.name, spec=pool)])
        self.homefed.hub.create_namespace(self.name)
        cli(self.homefed.hub, "consumer", "enable", self.name, "--pool", self.name)
        eventually(lambda: found(self.hub, f"/apis/node.k8s.io/v1/runtimeclasses/{self.runtime_class}"), "RuntimeClass")

    @property
    def runtime_class(self) -> str:
        return names.runtime_class(self.name)

    # --- what the contributor does

    def contribute(self, home: str, contribution: str, **spec: Any) -> None:
        """A Contribution to this pool; of all machines unless a nodeSelector is given."""
        body = _custom("Contribution", contribution, NAMESPACE, spec={"poolName": self.name, **spec})
        self.homes[home].apply([body])

    def contribution(self, home: str, name: str) -> Json | None:
        return found(self.homes[home].api, _contribution(name))

    def change(self, home: str, contribution: str, **spec: Any) -> None:
        self.homes[home].api.request("PATCH", _contribution(contribution), {"spec": spec}, content_type=MERGE_PATCH)

    def withdraw(self, home: str, contribution: str) -> None:
        delete(self.homes[home].api, _contribution(contribution))

    def nodes(self) -> list[Json]:
        """Virtual nodes of this pool."""
        selector = f"labelSelector={names.LABEL_POOL}%3D{self.name}"
        return list(self.hub.get(f"/api/v1/nodes?{selector}")["items"])

    def ready_nodes(self, count: int) -> list[str]:
        """Names of the virtual nodes, as soon as so many are Ready."""
        eventually(lambda: sum(condition(n, "Ready") == "True" for n in self.nodes()) == count, "nodes Ready")
        return sorted(node["metadata"]["name"] for node in self.nodes())

    # --- what the consumer does

    def pod(
        self, name: str, namespace: str | None = None, *, env: Mapping[str, str] | None = None, **spec: Any
    ) -> Json:
        """A pod as a consumer writes it, as the API server returns it. Raises ApiError where it is refused."""
        body = {"metadata": {"name": name}, "spec": self.pod_spec(env, **spec)}
        return dict(self.hub.request("POST", f"/api/v1/namespaces/{namespace or self.name}/pods", body))

    def pod_spec(self, env: Mapping[str, str] | None = None, **spec: Any) -> Json:
        listed = [{"name": key, "value": value} for key, value in (env or {}).items()]
        container = {"name": "app", "image": "workload:test", "env": listed, "resources": {"requests": REQUESTS}}
        quick = {"terminationGracePeriodSeconds": 5, "securityContext": {"runAsUser": 1000}}
        return {"runtimeClassName": self.runtime_class, "containers": [container], **quick, **spec}

    def get(self, name: str) -> Json | None:
        """The hub's pod."""
        return found(self.hub, f"/api/v1/namespaces/{self.name}/pods/{name}")

    def pods(self) -> list[Json]:
        return list(self.hub.get(f"/api/v1/namespaces/{self.name}/pods")["items"])

    def delete(self, name: str) -> None:
        delete(self.hub, f"/api/v1/namespaces/{self.name}/pods/{name}")

    def running(self, name: str) -> Json:
        """The hub's pod, as soon as it is Running."""
        is_running = lambda: _if(self.get(name), lambda pod: phase(pod) == "Running")  # noqa: E731
        return dict(eventually(is_running, f"{name} Running"))

    def events(self, name: str) -> list[Json]:
        """Of the hub's pod of this name."""
        listed = self.hub.get(f"/api/v1/namespaces/{self.name}/events?fieldSelector=involvedObject.name%3D{name}")
        return list(listed["items"])

    # --- what lies between them

    def guests(self) -> list[Json]:
        """GuestPods of this corner, of all homes."""
        listed = self.hub.get(f"{GROUP}/guestpods")["items"]
        return [guest for guest in listed if guest["spec"]["poolName"] == self.name]

    def guest(self, uid: str) -> Json | None:
        return next((guest for guest in self.guests() if guest["metadata"]["name"] == uid), None)

    def home_pods(self, home: str) -> list[Json]:
        """Pods in the home's namespace of guests, of this pool."""
        selector = f"labelSelector={names.LABEL_POOL}%3D{self.name}"
        path = f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/pods?{selector}"
        return list(self.homes[home].api.get(path)["items"])

    def home_pod(self, uid: str) -> Json | None:
        path = f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/pods/{names.home_pod(uid)}"
        return next((pod for home in self.homes.values() if (pod := found(home.api, path))), None)

    def claims(self, home: str) -> list[Json]:
        """RewardClaims of part Header of a home in this pool, oldest first."""
        listed = self.claim_objects(home)
        return sorted((o for o in listed if o["spec"]["part"] == "Header"), key=lambda o: int(o["spec"]["sequence"]))

    def claim_objects(self, home: str) -> list[Json]:
        listed = self.hub.get(f"{GROUP}/namespaces/{names.mailbox(home)}/rewardclaims")["items"]
        return [obj for obj in listed if obj["spec"]["poolName"] == self.name]

    def home(self, name: str) -> Json:
        return dict(self.hub.get(f"{GROUP}/homes/{name}"))

    def clear(self) -> None:
        """Everything of this corner goes: pods, contributions, virtual nodes."""
        for pod in self.pods():
            self.delete(pod["metadata"]["name"])
        eventually(lambda: not self.pods(), "the consumer's pods are gone")
        for cluster in self.homes.values():
            for obj in cluster.api.get(f"{GROUP}/namespaces/{NAMESPACE}/contributions")["items"]:
                if obj["spec"]["poolName"] == self.name:
                    delete(cluster.api, _contribution(obj["metadata"]["name"]))
        eventually(lambda: not self.nodes(), "the virtual nodes are gone")
        delete(self.hub, f"{GROUP}/schedulingpools/{self.name}")


@contextmanager
def corner(homefed: HomeFed, name: str, settlement: Mapping[str, Any] | None = None, **spec: Any) -> Iterator[Corner]:
    """A corner that leaves no contribution, virtual node or pod behind. `settlement`, `spec`: of the pool."""
    made = Corner(homefed, name)
    made.prepare(settlement or {}, **spec)
    yield made
    made.clear()


def eventually(condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """The first true result; an AssertionError that says what did not happen."""
    end, last = time.monotonic() + within_s, None
    while time.monotonic() < end:
        if last := condition():
            return last
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


def found(api: Api, path: str) -> Json | None:
    """The object, None where there is none."""
    try:
        return dict(api.get(path))
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def delete(api: Api, path: str) -> None:
    """DELETE; nothing to do where it is gone."""
    try:
        api.request("DELETE", path)
    except ApiError as error:
        if error.status != 404:
            raise


def phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def condition(obj: Json | None, type_: str) -> str:
    """Its status; "" where there is none."""
    return str(whole_condition(obj, type_).get("status", ""))


def whole_condition(obj: Json | None, type_: str) -> Json:
    listed = ((obj or {}).get("status") or {}).get("conditions") or []
    return next((one for one in listed if one["type"] == type_), {})


def _if(obj: Json | None, test: Callable[[Json], bool]) -> Json | None:
    return obj if obj is not None and test(obj) else None


def _contribution(name: str) -> str:
    return f"{GROUP}/namespaces/{NAMESPACE}/contributions/{name}"


def _custom(kind: str, name: str, namespace: str | None = None, **rest: Any) -> Json:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, **rest}
