"""The hub's admission policy on budgets: a namespace that has used its budget up gets no further pods in homes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from test_policies_consumer_pods import POOL, RUNTIME_CLASS, create, pod

from testbed.api import ApiError
from testbed.cluster import Cluster, KubectlError
from testbed.installation import Release

Json = dict[str, Any]
BUDGETS = "/apis/homefed.io/v1alpha1/namespaces/{}/consumerbudgets"


@pytest.fixture(scope="module")
def hub(installed: Release) -> Iterator[Cluster]:
    cluster = installed.cluster
    cluster.apply([RUNTIME_CLASS])
    for name in ("frugal", "lavish"):
        cluster.create_namespace(name, {f"pools.homefed.io/{POOL}": "enabled"})
    yield cluster
    for name in ("frugal", "lavish"):
        cluster.kubectl("delete", "consumerbudgets", "--all", "--namespace", name)


def budget(cluster: Cluster, namespace: str, name: str, *, exhausted: bool) -> None:
    body = {
        "apiVersion": "homefed.io/v1alpha1",
        "kind": "ConsumerBudget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"limitMicroCredits": 1000},
    }
    cluster.apply([body])
    spent = {"spent": "990", "estimated": "17", "remaining": "-7", "exhausted": exhausted}
    path = f"{BUDGETS.format(namespace)}/{name}/status"
    cluster.api.request("PATCH", path, {"status": spent}, content_type="application/merge-patch+json")


def outcome(cluster: Cluster, namespace: str, body: Json | None = None) -> str:
    """Why the pod is refused; empty where it is not."""
    try:
        create(cluster, body or pod(), namespace)
    except ApiError as error:
        if error.status != 403:
            raise
        return str(error)
    return ""


def test_pods_are_refused_while_the_budget_of_their_namespace_is_exhausted(hub: Cluster) -> None:
    assert outcome(hub, "frugal") == "", "a namespace without a budget is free"
    budget(hub, "frugal", "monthly", exhausted=False)
    assert outcome(hub, "frugal") == ""
    budget(hub, "frugal", "monthly", exhausted=True)
    hub.wait_for(lambda: outcome(hub, "frugal") != "", 60, "the policy sees the budget")
    message = outcome(hub, "frugal")
    assert "ConsumerBudget frugal/monthly is exhausted: 990 of 1000 µcredit are spent and 17 are under way" in message
    assert "homefed budget set frugal" in message
    assert outcome(hub, "lavish") == "", "another namespace is not concerned"
    elsewhere = {**pod(), "spec": {"containers": [{"name": "main", "image": "x"}]}}
    assert outcome(hub, "frugal", elsewhere) == "", "nor is a pod that asks for no pool"
    budget(hub, "frugal", "monthly", exhausted=False)
    hub.wait_for(lambda: outcome(hub, "frugal") == "", 60, "the policy sees the raised budget")


def test_one_exhausted_budget_of_several_is_enough(hub: Cluster) -> None:
    budget(hub, "lavish", "monthly", exhausted=False)
    budget(hub, "lavish", "project", exhausted=True)
    hub.wait_for(lambda: "lavish/project" in outcome(hub, "lavish"), 60, "the policy sees the budget")


def test_a_consumer_who_administers_the_namespace_sees_the_budget_and_cannot_write_it(hub: Cluster) -> None:
    budget(hub, "frugal", "monthly", exhausted=False)
    user = ["--as", "shopkeeper", "--namespace", "frugal"]
    hub.kubectl("create", "rolebinding", "shopkeeper", "--clusterrole=admin", "--user=shopkeeper", "--namespace=frugal")
    hub.wait_for(lambda: can(hub, "get", user), 60, "the right to look is aggregated")
    assert not any(can(hub, verb, user) for verb in ("create", "patch", "update", "delete"))


def can(cluster: Cluster, verb: str, user: list[str]) -> bool:
    try:
        return cluster.kubectl("auth", "can-i", verb, "consumerbudgets.homefed.io", *user).strip() == "yes"
    except KubectlError:  # no is its exit 1
        return False
