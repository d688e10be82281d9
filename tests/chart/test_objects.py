"""What the chart renders, against a real API server: strictly decoded, accepted, and run by restricted pods."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chart_values import values_of

from testbed.binaries import Binaries
from testbed.chart import Object, pod_templates, render
from testbed.cluster import Cluster
from testbed.installation import Release

VARIANTS = {
    "hub": values_of("hub", ledger={"persistence": {"ephemeral": False}}),
    "home": values_of("home", prometheus={"persistence": {"ephemeral": False}}),
    "both": values_of("both"),
    "hub, ledger elsewhere": values_of("hub", ledger={"enabled": False, "url": "https://ledger.example.org"}),
    "hub, ledger on PostgreSQL with TLS": values_of(
        "hub",
        ledger={
            "postgresql": {"url": "postgresql://ledger@db.example/ledger", "existingSecret": "ledger-database"},
            "tls": {"existingSecret": "ledger-tls", "clientCaSecret": "clients", "clientNames": ["billing.example"]},
        },
    ),
    "home, own Prometheus": values_of(
        "home", prometheus={"url": "https://prometheus.example.org", "existingSecret": "prometheus-token"}
    ),
    "placed": values_of(
        "both",
        imagePullSecrets=[{"name": "registry"}],
        hub={"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "node-role", "operator": "Exists"}]},
        home={"guests": {"publicCidrs": ["203.0.113.7/32"], "podSecurityVersion": "latest"}},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_api_server_accepts_every_object_as_it_stands(installed: Release, binaries: Binaries, variant: str) -> None:
    objects = render(binaries, VARIANTS[variant], release="second")
    answers = apply_dry(installed.cluster, objects)
    assert len(answers) == len(objects)


def apply_dry(cluster: Cluster, objects: list[Object]) -> list[str]:
    """Names of what was accepted; a field that is unknown or deprecated is an error here."""
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    return cluster.kubectl(
        "apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "--warnings-as-errors",
        "-o", "name", "-f", "-", stdin=body,
    ).split()  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_of_the_chart_runs_in_a_restricted_namespace(
    installed: Release, binaries: Binaries, variant: str
) -> None:
    cluster, namespace = installed.cluster, "restricted"
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    metadata = {"name": namespace, "labels": labels}
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
    for component, template in pod_templates(render(binaries, VARIANTS[variant])).items():
        cluster.create_service_account(namespace, template["spec"]["serviceAccountName"])
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": component}, "spec": template["spec"]}
        cluster.api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_have_read_only_roots_requests_and_memory_limits(binaries: Binaries, variant: str) -> None:
    for template in pod_templates(render(binaries, VARIANTS[variant])).values():
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_the_namespace_of_guests_is_restricted_and_pinned(installed: Release) -> None:
    labels = installed.cluster.api.get("/api/v1/namespaces/homefed-guests")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["pod-security.kubernetes.io/enforce-version"] == "v1.30"


def test_guests_reach_no_private_range_even_with_egress_internet(installed: Release) -> None:
    path = "/apis/networking.k8s.io/v1/namespaces/homefed-guests/networkpolicies"
    policies: dict[str, Any] = {p["metadata"]["name"]: p["spec"] for p in installed.cluster.api.get(path)["items"]}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ((rule,),) = [r["to"] for r in policies["egress-internet"]["egress"]]
    reserved = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "127.0.0.0/8"}
    assert reserved < set(rule["ipBlock"]["except"])
    assert not [policy for policy in policies.values() if policy.get("ingress")]


def test_the_notes_say_what_comes_next(installed: Release) -> None:
    notes = installed.status()["info"]["notes"]
    for sentence in (
        "homefed invite NAME",
        "homefed consumer enable NAMESPACE",
        "kubectl -n homefed apply -f examples/contribution.yaml",
        "home.guests.publicCidrs is not set",
        "--take-ownership",
        "no public image is assumed",
    ):
        assert sentence in notes


def test_a_federation_cannot_be_renamed(installed: Release) -> None:
    with pytest.raises(Exception, match=r"federation\.id is immutable: it was \"garden-lane\""):
        installed.upgrade({"federation": {"id": "other-lane"}})
    installed.values["federation"] = {"id": "garden-lane"}
