"""The home's admission policies: guests are isolated whoever makes them; Contributions lie where the agent looks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from homefed.api import names
from homefed.api.guest_pod import GuestPodSpec
from homefed.core.home_pod import Isolation, build
from testbed.api import Api, ApiError
from testbed.installation import ROOT, Release

Json = dict[str, Any]
UID = "6f1c5f5e-0000-4000-8000-000000000001"
REQUESTS = {"cpu": "100m", "memory": "64Mi", "ephemeral-storage": "64Mi"}
GUESTS = "/api/v1/namespaces/homefed-guests/pods"


@pytest.fixture(scope="module")
def agent(installed: Release) -> Api:
    """The agent's own ServiceAccount: nobody has more to do with guests."""
    cluster = installed.cluster
    cluster.create_service_account("homefed-guests", "default")
    token = cluster.token_for("homefed", "homefed-agent")
    api = Api(cluster.host, cluster.spec.ports.apiserver, cluster.ca_path, token=token)
    cluster.wait_for(lambda: "metadata.name" in outcome(api, renamed("web")), 120, "the policies are in force")
    return api


def outcome(api: Api, body: Json) -> str:
    try:
        create(api, body)
    except ApiError as error:
        return str(error)
    return ""


def guest() -> Json:
    """The pod that the agent makes of a GuestPod."""
    container = {"name": "main", "image": "example.org/app:1", "resources": {"requests": dict(REQUESTS)}}
    spec = {"containers": [container], "volumes": [{"name": "scratch", "emptyDir": {}}]}
    document = GuestPodSpec.model_validate(
        {
            "podUid": UID,
            "podName": "web",
            "podNamespace": "shop",
            "namespaceUid": UID,
            "nodeName": "hf-oak-1",
            "poolName": "garden",
            "offerName": "spare",
            "machineId": "0" * 64,
            "requests": REQUESTS,
            "observed": {"boundAt": "2026-01-01T00:00:00Z"},
            "podDigest": "0" * 64,
            "pod": {"spec": spec},
        }
    )
    made = build(document, "machine", Isolation(image_pull_policy="Never"))
    return {"apiVersion": "v1", "kind": "Pod", **made}


def create(api: Api, body: Json, *, dry: bool = True) -> Json:
    created: Json = api.request("POST", f"{GUESTS}{'?dryRun=All' if dry else ''}", body)
    return created


def changed(**spec: Any) -> Json:
    body = guest()
    body["spec"] |= spec
    return body


def changed_container(**fields: Any) -> Json:
    body = guest()
    body["spec"]["containers"][0] |= fields
    return body


def renamed(name: str) -> Json:
    body = guest()
    body["metadata"]["name"] = name
    return body


def test_what_the_agent_makes_passes(agent: Api) -> None:
    create(agent, guest())


REFUSED: dict[str, tuple[Json, str]] = {
    "another name": (renamed("web"), "metadata.name"),
    "another guest's name": (renamed("hf-6f1c5f5e-0000-4000-8000-000000000002"), "metadata.name"),
    "no priority class": (changed(priorityClassName=""), "spec.priorityClassName"),
    "an owner's priority": (changed(priorityClassName="system-cluster-critical"), "spec.priorityClassName"),
    "a token": (changed(automountServiceAccountToken=True), "spec.automountServiceAccountToken"),
    "an identity": (changed(serviceAccountName="clerk"), "spec.serviceAccountName"),
    "service links": (changed(enableServiceLinks=True), "spec.enableServiceLinks"),
    "a claim": (changed(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]), "spec.volumes"),
    "a projected token": (
        changed(volumes=[{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
        "spec.volumes",
    ),
    "an endless emptyDir": (changed(volumes=[{"name": "v", "emptyDir": {}}]), "sizeLimit"),
    "no limits": (changed_container(resources={"requests": REQUESTS}), "limits must equal requests"),
    "limits above requests": (
        changed_container(resources={"requests": REQUESTS, "limits": REQUESTS | {"memory": "1Gi"}}),
        "limits must equal requests",
    ),
    "a host port": (changed_container(ports=[{"containerPort": 80, "hostPort": 80}]), "hostPort"),
    "another pull policy": (changed_container(imagePullPolicy="IfNotPresent"), "imagePullPolicy: must be Never"),
    "a machine of its choice": (changed(nodeName="machine"), "spec.nodeName"),
    "the host's network": (changed(hostNetwork=True), "restricted"),
    "root": (changed(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}), "restricted"),
    "no seccomp": (changed(securityContext={"runAsNonRoot": True}), "restricted"),
    "privilege": (changed_container(securityContext={"privileged": True}), "restricted"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_even_the_agent_cannot_loosen_a_guest(installed: Release, agent: Api, what: str) -> None:
    installed.cluster.create_service_account("homefed-guests", "clerk")
    body, sentence = REFUSED[what]
    with pytest.raises(ApiError) as caught:
        create(agent, body)
    assert caught.value.status in (403, 422)
    assert sentence in str(caught.value)


def test_the_image_of_a_guest_is_fixed(installed: Release, agent: Api) -> None:
    created = create(agent, guest(), dry=False)
    path = f"{GUESTS}/{created['metadata']['name']}"
    try:
        other = copy.deepcopy(created)
        other["spec"]["containers"][0]["image"] = "example.org/miner:1"
        with pytest.raises(ApiError, match="a guest's image is fixed"):
            installed.cluster.api.request("PUT", f"{path}?dryRun=All", other)
        label = {"metadata": {"labels": {"seen": "yes"}}}
        owner = installed.cluster.api
        owner.request("PATCH", f"{path}?dryRun=All", label, content_type="application/merge-patch+json")
    finally:
        agent.request("DELETE", f"{path}?gracePeriodSeconds=0")


def test_the_agent_makes_pods_nowhere_else(agent: Api) -> None:
    with pytest.raises(ApiError) as caught:
        agent.request("POST", "/api/v1/namespaces/homefed/pods?dryRun=All", guest())
    assert caught.value.status == 403


def test_other_things_than_pods_have_no_room_among_guests(installed: Release) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}}
    installed.cluster.wait_for(lambda: _quota_counts(installed), 120, "the quota is in force")
    with pytest.raises(ApiError, match="exceeded quota"):
        installed.cluster.api.request("POST", "/api/v1/namespaces/homefed-guests/services", service)


def _quota_counts(installed: Release) -> bool:
    quota = installed.cluster.api.get("/api/v1/namespaces/homefed-guests/resourcequotas/homefed-guests")
    return "services" in quota.get("status", {}).get("hard", {})


@pytest.mark.usefixtures("agent")
def test_a_contribution_elsewhere_is_refused_naming_the_right_namespace(installed: Release) -> None:
    contribution = yaml.safe_load((ROOT / "examples" / "contribution.yaml").read_text())
    path = f"/apis/{names.API_VERSION}/namespaces/{{}}/contributions?dryRun=All"
    installed.cluster.api.request("POST", path.format("homefed"), contribution)
    del contribution["metadata"]["namespace"]
    with pytest.raises(ApiError, match="create the Contribution in homefed"):
        installed.cluster.api.request("POST", path.format("default"), contribution)
