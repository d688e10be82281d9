"""Which podCIDR a virtual node gets, so that virtual nodes never eat the address blocks of a hub's real nodes.

A hub that allocates node CIDRs gives every Node a block: a /16 in /24s is full at 256 machines. A podCIDR outside the
cluster's range makes kube-controller-manager exit at its next start. So the first virtual node is created without one;
if the allocator gives it a block, all further ones are created with that block's base address as /32 (/128): the block
is then simply in use. Deleting any of them frees the block's bit although others still stand in it; any update of a
survivor occupies it again. The intent is written to the survivor before the deletion, so that a crash between the two
loses nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from homefed.core.times import from_rfc3339, to_rfc3339

ANNOTATION_REOCCUPY: Final = "homefed.io/pod-cidr-reoccupy"
ALLOCATOR_DELAY: Final = timedelta(seconds=3)
"""Where nothing tells whether there is an allocator, the first virtual node is given so long to get a block."""
ALLOCATOR_PATIENCE: Final = timedelta(seconds=60)
"""Where real nodes have blocks, an allocator is there, but may be busy, or about to be elected or started."""
SETTLED: Final = timedelta(seconds=3)
PENDING: Final = "pending"
"""The survivor's annotation before the deletion; then `once`, and `done` when the allocator has surely seen it."""
ONCE: Final = "once"
DONE: Final = "done"

Node = Mapping[str, Any]


def for_new_node(virtual_nodes: Iterable[Node]) -> list[str]:
    """spec.podCIDRs of a further virtual node, one per IP family; empty while no virtual node has a block."""
    for node in sorted(virtual_nodes, key=_age):
        if blocks := pod_cidrs(node):
            return [_host_route(block) for block in blocks]
    return []


def must_wait(virtual_nodes: Iterable[Node], real_nodes: Iterable[Node], now: datetime) -> bool:
    """Whether the next virtual node has to wait: the allocator may be about to give the newest one its block.

    A hub whose real nodes have no podCIDR has no allocator. Where they have, it is waited for; each node created too
    early would get a block of its own. The wait happens once in a hub's life, and is bounded, as the range may be full.
    """
    virtual, real = list(virtual_nodes), list(real_nodes)
    if not virtual or any(pod_cidrs(node) for node in virtual):
        return False
    if real and not any(pod_cidrs(node) for node in real):
        return False
    patience = ALLOCATOR_PATIENCE if real else ALLOCATOR_DELAY
    return all(now - _created(node) < patience for node in virtual)


def survivor(deleted: Node, virtual_nodes: Iterable[Node]) -> str | None:
    """Name of the virtual node that is to occupy the block again when `deleted` is gone; None where none shares it."""
    blocks = {_base(block) for block in pod_cidrs(deleted)}
    others = [node for node in virtual_nodes if node["metadata"]["name"] != deleted["metadata"]["name"]]
    sharing = [node for node in sorted(others, key=_age) if blocks & {_base(block) for block in pod_cidrs(node)}]
    alive = [node for node in sharing if "deletionTimestamp" not in node["metadata"]]
    return str(alive[0]["metadata"]["name"]) if alive else None


def mark(stage: str, deleted_uid: str, now: datetime) -> dict[str, str]:
    """The survivor's annotation at this stage."""
    return {ANNOTATION_REOCCUPY: f"{stage}/{deleted_uid}/{to_rfc3339(now)}"}


def owes(node: Node) -> bool:
    """Whether this survivor still has an update to get."""
    return _mark_of(node)[0] in (PENDING, ONCE)


def next_mark(node: Node, all_uids: Collection[str], now: datetime) -> dict[str, str] | None:
    """The annotation to write now on a survivor; None while the deletion is not done, too fresh, or nothing is owed."""
    stage, deleted_uid, since = _mark_of(node)
    if stage == PENDING and deleted_uid not in all_uids:
        return mark(ONCE, deleted_uid, now)
    if stage == ONCE and now - from_rfc3339(since) >= SETTLED:
        return mark(DONE, deleted_uid, now)
    return None


def _mark_of(node: Node) -> tuple[str, str, str]:
    text = (node["metadata"].get("annotations") or {}).get(ANNOTATION_REOCCUPY, "")
    stage, deleted_uid, since = (*text.split("/"), "", "", "")[:3]
    return stage, deleted_uid, since


def pod_cidrs(node: Node) -> list[str]:
    spec = node.get("spec") or {}
    return list(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else []))


def _host_route(block: str) -> str:
    base = _base(block)
    return f"{base}/{base.max_prefixlen}"


def _base(block: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_network(block, strict=False).network_address


def _created(node: Node) -> datetime:
    return from_rfc3339(node["metadata"]["creationTimestamp"])


def _age(node: Node) -> tuple[str, str]:
    return node["metadata"]["creationTimestamp"], node["metadata"]["name"]
