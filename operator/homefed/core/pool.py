"""A SchedulingPool as consumers meet it: its RuntimeClass, and the status that sums up its virtual nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from homefed.api import names, quantities
from homefed.api.errors import Invalid
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import conditions, rates, virtual_node
from homefed.core.conditions import FALSE, TRUE, Condition
from homefed.core.findings import Finding

HANDLER: Final = "homefed"
"""No kubelet of the hub has a handler of this name: a pod of this class can run in homes only."""
RUNTIME_CLASS: Final = "RuntimeClass"
AVAILABLE: Final = "Available"
CLUSTER_QUEUE: Final = "ClusterQueue"
"""Only where spec.clusterQueue is set."""

Json = dict[str, Any]
Node = Mapping[str, Any]


def runtime_class(pool: str) -> Json:
    """What lets a pod enter the pool by one line, `runtimeClassName: homefed-<pool>`."""
    toleration = {"key": names.TAINT_POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule"}
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {
            "name": names.runtime_class(pool),
            "labels": {names.LABEL_POOL: pool, names.LABEL_MANAGED_BY: names.HUB_MANAGER},
        },
        "handler": HANDLER,
        "scheduling": {"nodeSelector": {names.LABEL_POOL: pool}, "tolerations": [toleration]},
    }


def is_ours(found: Mapping[str, Any], pool: str) -> bool:
    """Whether an existing RuntimeClass was made for this pool; any other is left alone."""
    return (found["metadata"].get("labels") or {}).get(names.LABEL_POOL) == pool and found.get("handler") == HANDLER


def differs(found: Mapping[str, Any], wanted: Json) -> bool:
    """Whether an existing RuntimeClass of ours has to be applied again."""
    labels = found["metadata"].get("labels") or {}
    kept = all(labels.get(key) == value for key, value in wanted["metadata"]["labels"].items())
    return not kept or found.get("scheduling") != wanted["scheduling"]


def rate_card_digest(spec: SchedulingPoolSpec, now: datetime) -> str:
    """Of the card in force now: what a home compares to know that it is priced by the card that it saw."""
    return rates.card_digest(rates.in_force(spec, int(now.timestamp())))


def terms(spec: SchedulingPoolSpec) -> Json:
    """What a home has to know of the pool's spec to recompute its pay."""
    shown = {"rate_card", "next_rate_cards", "settlement", "max_bandwidth_mbps"}
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=shown)


def status(
    pool: Json,
    spec: SchedulingPoolSpec,
    nodes: Iterable[Node],
    class_problem: str,
    now: datetime,
    queue: Finding | None = None,
) -> Json:
    """The whole status of a pool. `nodes`: all its virtual nodes; `class_problem`: what is wrong with its class;
    `queue`: how it stands with spec.clusterQueue, None: as it stood."""
    members = list(nodes)
    ready = _ready(members)
    generation = pool["metadata"].get("generation", 0)
    return {
        "observedGeneration": generation,
        "homes": len({node["metadata"]["labels"][names.LABEL_HOME_UID] for node in members}),
        "machines": len(members),
        "readyMachines": len(ready),
        "capacity": quantities.render_all(capacity(members)),
        "rateCardDigest": rate_card_digest(spec, now),
        "conditions": _conditions(pool, spec, len(ready), class_problem, queue, now),
    }


def refused(pool: Json, problem: Invalid, now: datetime) -> Json:
    """The status of a pool whose spec does not fit the schema."""
    generation = pool["metadata"].get("generation", 0)
    before = (pool.get("status") or {}).get("conditions")
    after = conditions.set_condition(before, conditions.READY, FALSE, problem.reason, problem.message, generation, now)
    return {**(pool.get("status") or {}), "observedGeneration": generation, "conditions": after}


def _ready(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if virtual_node.is_ready(node) and not virtual_node.is_unschedulable(node)]


def capacity(nodes: Iterable[Node]) -> dict[str, int]:
    """Sum over accepted, Ready, schedulable virtual nodes (base units).

    Always with the resources that every node has: an empty map is written as null by server-side apply.
    """
    total = dict.fromkeys(quantities.ALWAYS_OFFERED, 0)
    for node in _ready(nodes):
        total = quantities.add(total, virtual_node.allocatable(node))
    return total


def _conditions(
    pool: Json, spec: SchedulingPoolSpec, ready: int, class_problem: str, queue: Finding | None, now: datetime
) -> list[Condition]:
    before = (pool.get("status") or {}).get("conditions")
    generation = pool["metadata"].get("generation", 0)
    name = names.runtime_class(pool["metadata"]["name"])
    made = (FALSE, "NameTaken", class_problem) if class_problem else (TRUE, "Created", f"runtimeClassName: {name}")
    after = conditions.set_condition(before, RUNTIME_CLASS, *made, generation, now)
    available = (TRUE, "Available", "Machines are ready.") if ready else (FALSE, "NoReadyMachine", _EMPTY)
    after = conditions.set_condition(after, AVAILABLE, *available, generation, now)
    required = [RUNTIME_CLASS, AVAILABLE]
    if spec.cluster_queue is None:
        after = conditions.drop(after, CLUSTER_QUEUE)
    else:
        required.append(CLUSTER_QUEUE)
        if queue is not None:
            after = conditions.set_condition(
                after, CLUSTER_QUEUE, queue.status, queue.reason, queue.message, generation, now
            )
    message = f"Pods with runtimeClassName: {name} are placed here."
    return conditions.summarise(after, required, generation, now, message=message)


_EMPTY: Final = "No home offers a ready machine: invite one with `homefed invite`, or look at `kubectl get offers -A`."
