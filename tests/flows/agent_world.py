"""One home's agent as a process, against a hub and a home of the testbed; the test plays the hub operator.

At the hub the agent has the rights of a mailbox and no more.
"""

import base64
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from homefed.api import names
from homefed.api.canonical import digest
from homefed.core.key_rotation import fingerprint_of
from testbed.api import APPLY, MERGE_PATCH, Api, ApiError
from testbed.cluster import Cluster
from testbed.process import Process

Json = dict[str, Any]
GROUP = f"/apis/{names.API_VERSION}"
NAMESPACE = "homefed"
PATIENCE_S = 120.0
"""Seconds that are waited for anything: they cost nothing where all works, and a loaded machine is slow."""
AGENT = """
import asyncio, sys
from pathlib import Path
from homefed.agent.app import Config, run
from homefed.cli.logs import configure_logging
configure_logging("info")
asyncio.run(run(Config(
    namespace=sys.argv[1], kubeconfig=Path(sys.argv[2]), evidence_dir=Path(sys.argv[3]), identity="agent",
    image_pull_policy="Never", health_host="127.0.0.1", health_port=0, lease_seconds=12,
)))
"""
MAILBOX_RULES: list[Json] = [
    {
        "apiGroups": ["homefed.io"],
        "resources": ["offers"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": ["homefed.io"], "resources": ["guestpods", "rewardclaims"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["homefed.io"], "resources": ["guestpods/status"], "verbs": ["patch"]},
    {"apiGroups": ["homefed.io"], "resources": ["usagereports"], "verbs": ["get", "list", "watch", "create"]},
    {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch"]},
    {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": [names.AGENT_SERVICE_ACCOUNT],
        "verbs": ["create"],
    },
]  # fmt: skip


class World:
    """A hub and one home, joined. `name` is the Home's; objects are found by the same name."""

    def __init__(self, hub: Cluster, home: Cluster, name: str, folder: Path) -> None:
        self.hub, self.home, self.name, self.folder = hub, home, name, folder
        self.mailbox = names.mailbox(name)
        self.home_uid = f"uid-of-{name}"
        self.agent: Process | None = None
        self._starts = 0

    def prepare(self) -> "World":
        """Mailbox, rights and an invitation; the home's namespaces as the chart makes them."""
        self.hub.create_namespace(self.mailbox)
        self.hub.create_service_account(self.mailbox, names.AGENT_SERVICE_ACCOUNT)
        role = {"metadata": {"name": "agent", "namespace": self.mailbox}, "rules": MAILBOX_RULES}
        self.hub.apply([
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **role},
            _binding(self.mailbox, "agent", self.mailbox),
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names.NODE_LEASE_NAMESPACE}},
        ])  # fmt: skip
        quota = {"metadata": {"name": names.GUESTS_QUOTA, "namespace": names.GUESTS_NAMESPACE}}
        bounds = {"apiVersion": "v1", "kind": "ResourceQuota", **quota, "spec": {"hard": {"services": "0"}}}
        priority = {"metadata": {"name": "homefed-guest"}, "value": -1_000_000, "preemptionPolicy": "Never"}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "homefed-agent", "namespace": NAMESPACE}}
        for namespace in (NAMESPACE, names.GUESTS_NAMESPACE):
            if not self.found(self.home.api, f"/api/v1/namespaces/{namespace}"):
                self.home.create_namespace(namespace, {"pod-security.kubernetes.io/enforce": _level(namespace)})
        self.home.apply([{"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", **priority}, secret, bounds])
        self.invite(self.hub.token_for(self.mailbox, names.AGENT_SERVICE_ACCOUNT))
        return self

    def invite(self, token: str, **changes: str) -> None:
        """The join Secret, as an invitation's values fill it."""
        values = {"home": self.name, "url": self.hub.url, "ca": self.hub.ca_path.read_text(), "token": token}
        metadata = {"name": "homefed-join", "namespace": NAMESPACE}
        data = {key: _b64(value) for key, value in (values | changes).items()}
        self.home.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}])

    # The agent.

    def start_agent(self) -> Process:
        self._starts += 1
        log = self.folder / f"agent-{self._starts}.log"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
        argv: list[str | Path] = [
            sys.executable, "-c", AGENT, NAMESPACE, self.home.kubeconfig, self.folder / "evidence",
        ]  # fmt: skip
        self.agent = Process(f"agent of {self.name}", argv, log, env=environment).start()
        return self.agent

    def stop_agent(self) -> None:
        if self.agent is not None:
            self.agent.kill()

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("agent-*.log")))

    # What the contributor does and sees.

    def contribute(self, name: str, **spec: Any) -> None:
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"poolName": "garden", **spec}}
        self.home.apply([{"apiVersion": names.API_VERSION, "kind": "Contribution", **body}])

    def contribution(self, name: str) -> Json | None:
        return self.found(self.home.api, f"{GROUP}/namespaces/{NAMESPACE}/contributions/{name}")

    def quota(self) -> dict[str, str]:
        """What guests together may request, as it is in force."""
        path = f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/resourcequotas/{names.GUESTS_QUOTA}"
        return dict((self.home.api.get(path).get("status") or {}).get("hard") or {})

    def home_pod(self, uid: str) -> Json | None:
        path = f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/pods/{names.home_pod(uid)}"
        return self.found(self.home.api, path)

    # What the hub operator does and sees.

    def offer(self, name: str) -> Json | None:
        return self.found(self.hub.api, f"{GROUP}/namespaces/{self.mailbox}/offers/{name}")

    def accept(self, name: str) -> dict[str, str]:
        """Answer an Offer as the hub operator does, with a Lease and the right to it; machine id → virtual node."""
        offer = self.wait(lambda: self.offer(name), f"offer {name}")
        nodes = {m["id"]: names.virtual_node(self.name, self.home_uid, m["id"]) for m in offer["spec"]["machines"]}
        rules = [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": list(nodes.values()),
                "verbs": ["get", "update"],
            }
        ]
        role = {"metadata": {"name": self.mailbox, "namespace": names.NODE_LEASE_NAMESPACE}, "rules": rules}
        leases = [
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": node, "namespace": names.NODE_LEASE_NAMESPACE},
            }
            for node in nodes.values()
        ]
        roles = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **role}
        self.hub.apply([roles, _binding(names.NODE_LEASE_NAMESPACE, self.mailbox, self.mailbox), *leases])
        self.answer(offer, nodes)
        return nodes

    def answer(self, offer: Json, nodes: Mapping[str, str], status: str = "True", reason: str = "Accepted") -> None:
        condition = {
            "type": "Accepted",
            "status": status,
            "reason": reason,
            "message": f"the hub says {reason}",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        answer = {
            "homeUid": self.home_uid,
            "federationId": "test",
            "keyFingerprint": fingerprint_of(offer["spec"]["publicKey"]),
            "machines": [{"id": machine, "node": node} for machine, node in nodes.items()],
            "windowSeconds": 3600,
            "conditions": [condition],
        }
        path = f"{GROUP}/namespaces/{self.mailbox}/offers/{offer['metadata']['name']}/status"
        self.hub.api.request("PATCH", path, {"status": answer}, content_type=MERGE_PATCH)

    def beat(self) -> None:
        """The Lease that says the hub operator has finished a full pass."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": names.HUB_LEASE, "namespace": self.mailbox},
            "spec": {"holderIdentity": "hub", "renewTime": moment},
        }
        self.hub.apply([lease])

    def node_lease(self, node: str) -> str:
        """renewTime, "" before the first renewal."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{names.NODE_LEASE_NAMESPACE}/leases/{node}"
        return str((self.hub.api.get(path).get("spec") or {}).get("renewTime") or "")

    def send(self, uid: str, machine: str, *, offer: str = "mine", **changes: Any) -> Json:
        """A GuestPod; `changes` are to its spec."""
        pod = {"labels": {}, "annotations": {}, "spec": pod_spec()}
        spec: Json = {
            "podUid": uid,
            "podName": f"pod-{uid}",
            "podNamespace": "shop",
            "namespaceUid": "ns-uid",
            "poolName": "garden",
            "nodeName": names.virtual_node(self.name, self.home_uid, machine),
            "machineId": machine,
            "offerName": offer,
            "egress": "DNS",
            "requests": {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"},
            "pod": pod,
            "observed": {"boundAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        }
        spec |= changes
        spec.setdefault("podDigest", digest(spec["pod"]))
        body = {"apiVersion": names.API_VERSION, "kind": "GuestPod", "metadata": {"name": uid}, "spec": spec}
        sent: Json = self.hub.api.request("POST", f"{GROUP}/namespaces/{self.mailbox}/guestpods", body)
        return sent

    def guest(self, uid: str) -> Json:
        found: Json = self.hub.api.get(f"{GROUP}/namespaces/{self.mailbox}/guestpods/{uid}")
        return found

    def status(self, uid: str) -> Json:
        return dict(self.guest(uid).get("status") or {})

    def stop(self, uid: str, grace_seconds: int = 1) -> None:
        path = f"{GROUP}/namespaces/{self.mailbox}/guestpods/{uid}"
        stop = {"spec": {"stop": {"gracePeriodSeconds": grace_seconds, "reason": "Deleted"}}}
        self.hub.api.request("PATCH", path, stop, content_type=MERGE_PATCH)

    # Waiting.

    def wait(self, look: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
        """The first result that is true. AssertionError with the agent's log otherwise."""
        deadline = time.monotonic() + within_s
        while not (found := look()):
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}\n{self.log()[-6000:]}"
            time.sleep(0.05)
        return found

    def wait_still(self, look: Callable[[], Any], for_s: float, what: str) -> Any:
        """What it finds, once that has not changed for so many seconds."""
        found, since = look(), time.monotonic()

        def is_still() -> bool:
            nonlocal found, since
            if (now := look()) != found:
                found, since = now, time.monotonic()
            return time.monotonic() - since >= for_s

        self.wait(is_still, f"{what}: still for {for_s} s")
        return found

    def wait_condition(self, name: str, type_: str, reason: str, within_s: float = PATIENCE_S) -> Json:
        def look() -> Json | None:
            conditions = ((self.contribution(name) or {}).get("status") or {}).get("conditions") or []
            return next((c for c in conditions if c["type"] == type_ and c["reason"] == reason), None)

        found: Json = self.wait(look, f"{name}: {type_} with reason {reason}; {self.contribution(name)}", within_s)
        return found

    def wait_phase(self, uid: str, phase: str, within_s: float = PATIENCE_S) -> Json:
        found: Json = self.wait(
            lambda: status if (status := self.status(uid)).get("phase") == phase else None, f"{uid} {phase}", within_s
        )
        return found

    @staticmethod
    def found(api: Api, path: str) -> Json | None:
        try:
            answer: Json = api.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return answer

    def writes(self, offset: int) -> list[str]:
        """What the agent wrote at the hub since this offset of its audit log, Leases aside."""
        account = f"system:serviceaccount:{self.mailbox}:{names.AGENT_SERVICE_ACCOUNT}"
        return [
            f"{event.verb} {event.resource}"
            for event in self.hub.audit_events(offset)
            if event.user == account and event.verb not in ("get", "list", "watch") and event.resource != "leases"
        ]


@contextmanager
def joined(hub: Cluster, home: Cluster, name: str, folder: Path) -> Iterator[World]:
    """A world with a running agent; afterwards the home is as it was before."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World(hub, home, name, folder).prepare()
    world.start_agent()
    try:
        yield world
    finally:
        world.stop_agent()
        _clean(home)


def _clean(home: Cluster) -> None:
    """No contribution, guest, copy or key of this test meets the next."""
    for found in home.api.get(f"{GROUP}/namespaces/{NAMESPACE}/contributions")["items"]:
        path = f"{GROUP}/namespaces/{NAMESPACE}/contributions/{found['metadata']['name']}"
        home.api.request("PATCH", path, {"metadata": {"finalizers": []}}, content_type=MERGE_PATCH)
        home.kubectl("delete", "contribution", "-n", NAMESPACE, found["metadata"]["name"], "--ignore-not-found")
    home.kubectl("delete", "pods,configmaps,secrets", "--all", "-n", names.GUESTS_NAMESPACE, "--force")
    home.kubectl("delete", "secret,lease", "-n", NAMESPACE, "--all")


def pod_spec(**changes: Any) -> Json:
    """A translated pod's spec, as the hub sends it."""
    amounts = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"}
    container = {"name": "main", "image": "registry.test/app:1", "resources": {"requests": amounts, "limits": amounts}}
    return {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 5, **changes}


def _level(namespace: str) -> str:
    return "restricted" if namespace == names.GUESTS_NAMESPACE else "privileged"


def _binding(namespace: str, role: str, mailbox: str) -> Json:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": names.AGENT_SERVICE_ACCOUNT, "namespace": mailbox}],
    }


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


__all__ = ["APPLY", "World", "joined", "pod_spec"]
