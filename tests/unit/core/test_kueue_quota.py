"""Quotas of a ClusterQueue: what is changed, what is left alone, and what is said where nothing can be written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from homefed.api.errors import Conflict, Forbidden, HomefedError, Invalid, NotFound, Refused, Transient
from homefed.api.scheduling_pool import ClusterQueueRef, SchedulingPoolSpec
from homefed.core import conditions, kueue, pool
from homefed.core.findings import Finding

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
GI = 2**30
CAPACITY = {"cpu": 3500, "memory": 8 * GI, "ephemeral-storage": 50 * GI, "pods": 40}
REFERENCE = ClusterQueueRef(name="community", flavor="homes")
Json = dict[str, Any]


def resource(name: str, quota: Any, **more: str) -> Json:
    return {"name": name, "nominalQuota": quota, **more}


def a_queue(*resources: Json, flavor: str = "homes") -> Json:
    own = {"name": "own", "resources": [resource("cpu", 9), resource("memory", "36Gi")]}
    groups = [
        {"coveredResources": ["example.com/license"], "flavors": [{"name": "licenses", "resources": []}]},
        {"coveredResources": ["cpu", "memory"], "flavors": [own, {"name": flavor, "resources": list(resources)}]},
    ]
    return {
        "metadata": {"name": "community", "resourceVersion": "7"},
        "spec": {"cohort": "all", "resourceGroups": groups},
    }


def test_the_flavor_gets_the_capacity_and_nothing_else_is_touched() -> None:
    queue = a_queue(resource("cpu", "1", lendingLimit="1"), resource("memory", 0))
    patch = kueue.patch(queue, "homes", CAPACITY)
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7"}, "the groups are replaced only as they were read"
    expected = a_queue(resource("cpu", "3500m", lendingLimit="1"), resource("memory", "8Gi"))
    assert patch["spec"] == {"resourceGroups": expected["spec"]["resourceGroups"]}
    assert queue == a_queue(resource("cpu", "1", lendingLimit="1"), resource("memory", 0)), (
        "what was read stays as it was"
    )


@pytest.mark.parametrize(("cpu", "memory"), [("3500m", "8Gi"), ("3.5", 8 * GI), ("3500000u", "8192Mi")])
def test_equal_amounts_are_no_reason_to_write(cpu: Any, memory: Any) -> None:
    assert kueue.patch(a_queue(resource("cpu", cpu), resource("memory", memory)), "homes", CAPACITY) is None


def test_what_the_pool_has_not_is_nothing() -> None:
    patch = kueue.patch(a_queue(resource("nvidia.com/gpu", "2")), "homes", CAPACITY)
    assert patch is not None
    (homes,) = [one for one in patch["spec"]["resourceGroups"][1]["flavors"] if one["name"] == "homes"]
    assert homes["resources"] == [resource("nvidia.com/gpu", "0")]


def test_an_unreadable_quota_is_written_anew() -> None:
    assert kueue.patch(a_queue(resource("cpu", "plenty")), "homes", CAPACITY) is not None
    assert kueue.patch(a_queue({"name": "cpu"}), "homes", CAPACITY) is not None


@pytest.mark.parametrize("queue", [a_queue(flavor="other"), {"metadata": {"name": "community"}, "spec": {}}])
def test_a_flavor_that_is_not_there_is_named(queue: Json) -> None:
    with pytest.raises(Invalid, match=r"spec\.clusterQueue\.flavor: .* no flavor homes") as caught:
        kueue.patch(queue, "homes", CAPACITY)
    found = kueue.trouble(caught.value, REFERENCE)
    assert found is not None
    assert found.reason == "FlavorMissing"


def test_what_the_queue_does_not_cover_is_told() -> None:
    found = kueue.written(a_queue(resource("cpu", "1"), resource("memory", "1")), REFERENCE, CAPACITY)
    assert (found.status, found.reason) == ("True", "QuotaWritten")
    assert "does not cover ephemeral-storage, pods" in found.message


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (Transient("404", reason="KindNotServed"), "KueueNotInstalled", "install Kueue"),
        (NotFound("404"), "QueueMissing", "create it"),
        (Forbidden("403"), "QueueForbidden", "hub.kueue.enabled=true"),
        (Refused("lendingLimit: above nominalQuota"), "QuotaRefused", "lendingLimit"),
        (Invalid("lendingLimit: above nominalQuota"), "QuotaRefused", "lendingLimit"),
    ],
)
def test_what_a_person_has_to_do_is_said(error: HomefedError, reason: str, remedy: str) -> None:
    found = kueue.trouble(error, REFERENCE)
    assert found is not None
    assert (found.status, found.reason) == ("False", reason)
    assert remedy in found.message


@pytest.mark.parametrize("error", [Transient("busy"), Conflict("changed")])
def test_what_passes_by_itself_is_tried_again(error: HomefedError) -> None:
    assert kueue.trouble(error, REFERENCE) is None


def a_pool(name: str, created: str, queue: Json | None) -> Json:
    return {"metadata": {"name": name, "creationTimestamp": created}, "spec": {"clusterQueue": queue} if queue else {}}


def test_of_two_pools_with_one_flavor_the_older_one_writes() -> None:
    wanted = REFERENCE.dump()
    pools = [
        a_pool("garden", "2026-01-02", wanted),
        a_pool("orchard", "2026-01-01", wanted),
        a_pool("lawn", "2025", None),
    ]
    refused = kueue.claimed("garden", "2026-01-02", REFERENCE, pools)
    assert refused is not None
    assert (refused.reason, "orchard" in refused.message) == ("FlavorTaken", True)
    assert kueue.claimed("orchard", "2026-01-01", REFERENCE, pools) is None
    other = ClusterQueueRef(name="community", flavor="else")
    assert kueue.claimed("garden", "2026-01-02", other, pools) is None


CARD = {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": []}
QUEUED = SchedulingPoolSpec.model_validate({"rateCard": CARD, "clusterQueue": REFERENCE.dump()})


def test_a_pool_whose_quota_is_not_written_is_not_ready_and_says_so() -> None:
    garden: Json = {"metadata": {"name": "garden", "generation": 1}}
    missing = Finding("False", "QueueMissing", "create it")
    nodes: list[Json] = []
    status = pool.status(garden, QUEUED, nodes, "", NOON, missing)
    assert (conditions.get(status["conditions"], "ClusterQueue") or {})["reason"] == "QueueMissing"
    again = pool.status(garden | {"status": status}, QUEUED, nodes, "", NOON, None)
    assert again == status, "while it is not known, it stays as it was"
    plain = SchedulingPoolSpec.model_validate({"rateCard": CARD})
    dropped = pool.status(garden | {"status": status}, plain, nodes, "", NOON)
    assert conditions.get(dropped["conditions"], "ClusterQueue") is None
