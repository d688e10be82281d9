"""Ready comes from renewals that grow; evictions come when Kubernetes withholds them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from homefed.core import liveness
from homefed.core.lease import micro_time
from homefed.core.liveness import Renewal
from homefed.core.times import to_rfc3339

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
Json = dict[str, Any]


def lease(renewed: datetime | None) -> Json:
    return {"spec": {"renewTime": micro_time(renewed)} if renewed else {}}


def node(status: str | None, *, since: datetime = NOON, tainted: bool = False, pressure: str = "") -> Json:
    conditions = [{"type": "Ready", "status": status, "lastTransitionTime": to_rfc3339(since)}] if status else []
    conditions += [{"type": "MemoryPressure", "status": pressure}] if pressure else []
    taints = [{"key": liveness.UNREACHABLE, "effect": "NoExecute"}] if tainted else []
    return {"metadata": {"name": "hf-a"}, "spec": {"taints": taints}, "status": {"conditions": conditions}}


def pod(seconds: int | None = 300, *, tolerates: bool = True, **metadata: Any) -> Json:
    toleration: Json = {"key": liveness.UNREACHABLE, "effect": "NoExecute", "operator": "Exists"}
    toleration |= {"tolerationSeconds": seconds} if seconds is not None else {}
    spec = {"tolerations": [toleration] if tolerates else []}
    return {"metadata": {"name": "one"} | metadata, "spec": spec}


def test_a_lease_counts_from_when_it_was_seen_to_grow() -> None:
    first = liveness.observe(None, lease(None), NOON)
    assert not first.fresh(NOON)
    grown = liveness.observe(first, lease(NOON - timedelta(hours=1)), NOON)
    assert grown.fresh(NOON + 30 * SECOND)
    assert not grown.fresh(NOON + 31 * SECOND)


def test_a_renewal_that_does_not_grow_does_not_count() -> None:
    first = liveness.observe(None, lease(NOON), NOON)
    back = liveness.observe(first, lease(NOON - SECOND), NOON + 60 * SECOND)
    assert back == first
    assert not back.fresh(NOON + 60 * SECOND)


def test_a_time_in_the_future_proves_nothing_until_it_grows() -> None:
    ahead = liveness.observe(None, lease(NOON + timedelta(days=1)), NOON)
    assert not ahead.fresh(NOON)
    assert liveness.observe(ahead, lease(NOON + timedelta(days=1, seconds=1)), NOON).fresh(NOON)


def test_an_unreadable_lease_is_no_sign_of_life() -> None:
    assert not liveness.observe(None, {"spec": {"renewTime": "soon"}}, NOON).fresh(NOON)


def test_a_new_node_becomes_ready_with_its_first_renewal() -> None:
    patch = liveness.ready_again(node(None), Renewal(NOON, NOON), NOON)
    assert patch is not None
    (ready,) = patch["status"]["conditions"]
    assert (ready["type"], ready["status"]) == ("Ready", "True")


def test_a_ready_node_or_a_silent_one_is_not_written() -> None:
    assert liveness.ready_again(node("True"), Renewal(NOON, NOON), NOON) is None
    assert liveness.ready_again(node("Unknown"), None, NOON) is None
    assert liveness.ready_again(node(None), Renewal(NOON, NOON), NOON + 60 * SECOND) is None


def test_a_node_marked_unknown_needs_a_renewal_after_that() -> None:
    marked = node("Unknown", since=NOON, pressure="Unknown")
    assert liveness.ready_again(marked, Renewal(NOON, NOON - SECOND), NOON) is None
    patch = liveness.ready_again(marked, Renewal(NOON, NOON + SECOND), NOON + SECOND)
    assert patch is not None
    assert [condition["type"] for condition in patch["status"]["conditions"]] == ["Ready", "MemoryPressure"]


def test_eviction_is_withheld_where_the_taint_is_missing() -> None:
    assert liveness.withheld_since(node("Unknown", since=NOON)) == NOON
    assert liveness.withheld_since(node("Unknown", tainted=True)) is None
    assert liveness.withheld_since(node("True")) is None
    assert liveness.withheld_since(node(None)) is None


def test_pods_are_evicted_after_their_own_toleration() -> None:
    due, later = liveness.evictions([pod(10), pod(300), pod(tolerates=False)], NOON, NOON + 10 * SECOND)
    assert due == [pod(10), pod(tolerates=False)]
    assert later == NOON + 300 * SECOND


def test_pods_that_tolerate_for_ever_or_are_over_or_are_kept_stay() -> None:
    kept = pod(0, annotations={"homefed.io/on-disconnect": "Keep"})
    leaving = pod(0, deletionTimestamp="2026-01-31T11:00:00Z")
    over = pod(0) | {"status": {"phase": "Succeeded"}}
    assert liveness.evictions([pod(None), kept, leaving, over], NOON, NOON + timedelta(days=1)) == ([], None)


def test_the_shortest_of_several_tolerations_counts() -> None:
    both = pod(300)
    both["spec"]["tolerations"].append({"operator": "Exists", "tolerationSeconds": 5})
    due, _ = liveness.evictions([both], NOON, NOON + 5 * SECOND)
    assert due == [both]
