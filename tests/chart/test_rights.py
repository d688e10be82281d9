"""The rights of the chart, as a table: a change here is a change of who may do what, and is to be looked at twice.

Deviations from the least that one would think of, and why:
- `create` of Leases is not bound to a name, as RBAC cannot: the object has no name yet.
- Broad verbs of the hub operator (nodes, namespaces, pods, roles …) are narrowed to HomeFed's names by policy.
- A verb that no code uses is not granted, even where it seems to belong to the others (`patch` of namespaces,
  `delete` of ServiceAccounts): it comes with the code that needs it.
- What the mailbox gives an agent to read is more than today's agent reads: hubs and homes are upgraded apart.
- The agent patches Contributions: its finalizer is metadata, which has no subresource.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chart_values import values_of

from testbed.binaries import Binaries
from testbed.chart import Object, of_kind, render

READ = "get list watch"

HUB = {
    "ClusterRole homefed-hub": {
        "homefed.io/schedulingpools,offers": "list watch",
        "homefed.io/homes": "get list watch patch",
        "homefed.io/guestpods": READ,
        "homefed.io/usagereports": "list",
        "homefed.io/rewardclaims": "get list",
        "homefed.io/consumerbudgets": "list",
        "homefed.io/schedulingpools/status,homes/status,consumerbudgets/status": "patch",
        "/nodes": "get list watch create patch delete",
        "/nodes/status": "patch",
        "/pods": "get list watch delete",
        "/pods/status": "patch",
        "/events": "create patch",
        "/namespaces": "get list watch create delete",
        "node.k8s.io/runtimeclasses": "get create patch delete",
        "/serviceaccounts": "get create patch",
        "rbac.authorization.k8s.io/roles,rolebindings": "get create patch delete",
        "rbac.authorization.k8s.io/clusterroles[homefed-mailbox-agent,homefed-mailbox-hub]": "bind",
    },
    "Role kube-node-lease/homefed-hub": {"coordination.k8s.io/leases": "get list watch create update delete"},
    "Role homefed/homefed-hub": {
        "coordination.k8s.io/leases[homefed-hub]": "get update",
        "coordination.k8s.io/leases": "create",
        "/secrets[homefed-hub]": "get patch",
        "/configmaps[homefed-hub-key,homefed-home-keys]": "get patch",
    },
    "ClusterRole homefed-mailbox-agent": {
        "homefed.io/offers": "get list watch create patch delete",
        "homefed.io/guestpods": READ,
        "homefed.io/guestpods/status": "patch",
        "homefed.io/usagereports": "get list watch create",
        "homefed.io/rewardclaims": READ,
        "/secrets,configmaps": READ,
        "coordination.k8s.io/leases": READ,
        "/serviceaccounts/token[homefed-agent]": "create",
    },
    "ClusterRole homefed-mailbox-hub": {
        "homefed.io/offers/status,rewardclaims/status": "patch",
        "homefed.io/guestpods": "create patch delete",
        "homefed.io/usagereports": "delete",
        "homefed.io/rewardclaims": "create delete",
        "/secrets,configmaps": "list create patch delete",
        "coordination.k8s.io/leases": "get create update",
    },
    "ClusterRole homefed-consumer-objects": {"/secrets,configmaps": "get"},
    "ClusterRole homefed-budget-viewer": {"homefed.io/consumerbudgets": READ},
    "ClusterRole homefed-consumer-statements": {"homefed.io/consumerstatements": "get"},
    "ClusterRole homefed-ledger": {
        "authentication.k8s.io/tokenreviews": "create",
        "authorization.k8s.io/subjectaccessreviews": "create",
        "/namespaces": "get",
    },
}

HOME = {
    "ClusterRole homefed-agent": {"/nodes,pods": "list watch"},
    "Role homefed/homefed-agent": {
        "homefed.io/contributions": "get list watch patch",
        "homefed.io/contributions/status": "patch",
        "/events": "create patch",
        "coordination.k8s.io/leases[homefed-agent]": "get update",
        "coordination.k8s.io/leases": "create",
        "/secrets[homefed-join]": "get",
        "/secrets[homefed-agent]": "get patch",
    },
    "Role homefed-guests/homefed-agent": {
        "/pods": "get create delete",
        "/secrets,configmaps": "list create patch delete",
        "/resourcequotas[homefed-guests]": "get patch",
    },
    "ClusterRole homefed-prometheus": {"/nodes": "list watch", "/nodes/metrics": "get"},
}

HOOK_HUB = {
    "ClusterRole homefed-uninstall": {
        "homefed.io/homes,guestpods": "get list patch",
        "homefed.io/rewardclaims": "list",
        "/nodes,pods,namespaces": "list delete",
        "node.k8s.io/runtimeclasses": "list delete",
    },
    "Role kube-node-lease/homefed-uninstall": {"coordination.k8s.io/leases": "list delete"},
}
HOOK_HOME = {"Role homefed-guests/homefed-uninstall": {"/pods": "list delete"}}
HOOK = {"apps/deployments": "list", "apps/deployments/scale": "patch", "/pods": "list"}
HOOK_CONTRIBUTIONS = {"homefed.io/contributions": "get list patch", "homefed.io/contributions/status": "patch"}

EXPECTED: dict[str, dict[str, dict[str, str]]] = {
    "hub": HUB | HOOK_HUB | {"Role homefed/homefed-uninstall": HOOK},
    "home": HOME | HOOK_HOME | {"Role homefed/homefed-uninstall": HOOK | HOOK_CONTRIBUTIONS},
    "both": HUB | HOME | HOOK_HUB | HOOK_HOME | {"Role homefed/homefed-uninstall": HOOK | HOOK_CONTRIBUTIONS},
}


@pytest.mark.parametrize("role", EXPECTED)
def test_the_chart_grants_exactly_the_rights_of_the_table(binaries: Binaries, role: str) -> None:
    assert granted(render(binaries, values_of(role))) == EXPECTED[role]


def test_the_right_to_quotas_of_kueue_comes_with_its_value_only(binaries: Binaries) -> None:
    with_kueue = granted(render(binaries, values_of("hub", hub={"kueue": {"enabled": True}})))
    right = {"kueue.x-k8s.io/clusterqueues": "get patch"}
    assert with_kueue["ClusterRole homefed-hub"] == EXPECTED["hub"]["ClusterRole homefed-hub"] | right


@pytest.mark.parametrize("role", EXPECTED)
def test_no_rule_has_a_wildcard_or_the_power_to_raise_itself(binaries: Binaries, role: str) -> None:
    for rule in _rules(render(binaries, values_of(role))):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"], *rule.get("resourceNames", [])]
        assert not {"escalate", "impersonate"} & set(rule["verbs"])
        assert "nonResourceURLs" not in rule
        assert "bind" not in rule["verbs"] or rule["resourceNames"]


@pytest.mark.parametrize("role", EXPECTED)
def test_every_role_is_bound_to_its_own_account_only(binaries: Binaries, role: str) -> None:
    objects = render(binaries, values_of(role))
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        (subject,) = binding["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": binding["metadata"]["name"], "namespace": "homefed"}
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
    accounts = {obj["metadata"]["name"] for obj in of_kind(objects, "ServiceAccount")}
    assert accounts == {b["metadata"]["name"] for b in of_kind(objects, "RoleBinding", "ClusterRoleBinding")}


def test_the_rights_of_the_hook_exist_only_while_it_runs(binaries: Binaries) -> None:
    for obj in render(binaries, values_of("both")):
        if obj["metadata"]["name"] == "homefed-uninstall":
            assert obj["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
            assert "hook-succeeded" in obj["metadata"]["annotations"]["helm.sh/hook-delete-policy"]


def granted(objects: list[Object]) -> dict[str, dict[str, str]]:
    """Role → {group/resources[names]: verbs}."""
    table: dict[str, dict[str, str]] = {}
    for role in of_kind(objects, "Role", "ClusterRole"):
        namespace = role["metadata"].get("namespace")
        name = f"{namespace}/{role['metadata']['name']}" if namespace else role["metadata"]["name"]
        table[f"{role['kind']} {name}"] = {_what(rule): " ".join(rule["verbs"]) for rule in role["rules"]}
    return table


def _what(rule: dict[str, Any]) -> str:
    (group,) = rule["apiGroups"]
    names = f"[{','.join(rule['resourceNames'])}]" if "resourceNames" in rule else ""
    return f"{group}/{','.join(rule['resources'])}{names}"


def _rules(objects: list[Object]) -> Iterator[dict[str, Any]]:
    for role in of_kind(objects, "Role", "ClusterRole"):
        yield from role["rules"]
