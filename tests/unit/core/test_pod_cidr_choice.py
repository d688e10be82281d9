"""Address blocks: virtual nodes share one, real nodes keep theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from homefed.core import pod_cidr

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
Json = dict[str, Any]


def node(name: str, *blocks: str, minute: int = 0, **metadata: Any) -> Json:
    spec = {"podCIDR": blocks[0], "podCIDRs": [*blocks]} if blocks else {}
    created = f"2026-01-31T11:{minute:02d}:00Z"
    return {"metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": created} | metadata, "spec": spec}


def newborn(name: str, *blocks: str) -> Json:
    return node(name, *blocks, creationTimestamp="2026-01-31T11:59:59Z")


def test_the_first_virtual_node_names_no_block() -> None:
    assert pod_cidr.for_new_node([]) == []


def test_a_further_node_takes_the_base_address_of_the_first_ones_block() -> None:
    nodes = [node("hf-b", "10.244.3.0/32", minute=2), node("hf-a", "10.244.3.0/24", minute=1)]
    assert pod_cidr.for_new_node(nodes) == ["10.244.3.0/32"]


def test_a_dual_stack_hub_gets_one_entry_per_family() -> None:
    assert pod_cidr.for_new_node([node("hf-a", "10.244.3.0/24", "fd00:1::/64")]) == ["10.244.3.0/32", "fd00:1::/128"]


def test_without_an_allocator_the_field_stays_empty() -> None:
    assert pod_cidr.for_new_node([node("hf-a"), node("hf-b")]) == []


def test_the_second_node_waits_while_the_allocator_may_be_at_work_on_the_first() -> None:
    assert pod_cidr.must_wait([newborn("hf-a")], [node("real", "10.244.0.0/24")], NOON)
    assert pod_cidr.must_wait([newborn("hf-a")], [], NOON)


def test_an_allocator_that_real_nodes_prove_is_waited_for_but_not_for_ever() -> None:
    real, first = [node("real", "10.244.0.0/24")], [node("hf-a", creationTimestamp="2026-01-31T12:00:00Z")]
    patience = pod_cidr.ALLOCATOR_PATIENCE
    assert pod_cidr.must_wait(first, real, NOON + patience - timedelta(seconds=1))
    assert not pod_cidr.must_wait(first, real, NOON + patience)
    assert not pod_cidr.must_wait(first, [], NOON + pod_cidr.ALLOCATOR_DELAY)


def test_nobody_waits_where_there_is_nothing_to_wait_for() -> None:
    assert not pod_cidr.must_wait([], [], NOON)
    assert not pod_cidr.must_wait([newborn("hf-a", "10.244.3.0/24")], [], NOON)
    assert not pod_cidr.must_wait([newborn("hf-a")], [node("real")], NOON)
    assert not pod_cidr.must_wait([node("hf-old"), newborn("hf-a")], [], NOON)


def test_the_survivor_is_the_oldest_living_node_in_the_same_block() -> None:
    leaving = node("hf-a", "10.244.3.0/24")
    dying = node("hf-b", "10.244.3.0/32", minute=1, deletionTimestamp="2026-01-31T11:58:00Z")
    elsewhere = node("hf-c", "10.244.9.0/24", minute=2)
    nodes = [
        leaving,
        dying,
        elsewhere,
        node("hf-e", "10.244.3.0/32", minute=4),
        node("hf-d", "10.244.3.0/32", minute=3),
    ]
    assert pod_cidr.survivor(leaving, nodes) == "hf-d"


def test_a_node_alone_in_its_block_frees_it() -> None:
    leaving = node("hf-a", "10.244.3.0/24")
    assert pod_cidr.survivor(leaving, [leaving, node("hf-c", "10.244.9.0/24")]) is None
    assert pod_cidr.survivor(node("hf-x"), [node("hf-y")]) is None


def test_an_intent_waits_for_its_deletion_and_is_carried_out_twice() -> None:
    marked = node("hf-b", annotations=pod_cidr.mark(pod_cidr.PENDING, "uid-hf-a", NOON))
    assert pod_cidr.owes(marked)
    assert pod_cidr.next_mark(marked, {"uid-hf-a", "uid-hf-b"}, NOON) is None
    once = pod_cidr.next_mark(marked, {"uid-hf-b"}, NOON)
    assert once == pod_cidr.mark(pod_cidr.ONCE, "uid-hf-a", NOON)
    marked["metadata"]["annotations"] = once
    assert pod_cidr.next_mark(marked, {"uid-hf-b"}, NOON + timedelta(seconds=1)) is None
    later = NOON + pod_cidr.SETTLED
    done = pod_cidr.next_mark(marked, {"uid-hf-b"}, later)
    assert done == pod_cidr.mark(pod_cidr.DONE, "uid-hf-a", later)
    marked["metadata"]["annotations"] = done
    assert not pod_cidr.owes(marked)
    assert pod_cidr.next_mark(marked, {"uid-hf-b"}, later + timedelta(hours=1)) is None


def test_a_node_that_owes_nothing_is_left_alone() -> None:
    assert not pod_cidr.owes(node("hf-a"))
    assert pod_cidr.next_mark(node("hf-a"), set(), NOON) is None
