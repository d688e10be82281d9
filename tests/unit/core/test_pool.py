"""Pools: one line for consumers, one sum for organisers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from homefed.api import names
from homefed.api.errors import Invalid
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.core import conditions, pool

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
CARD = {"version": "1", "validFrom": "2026-01-01T00:00:00Z", "prices": []}
SPEC = SchedulingPoolSpec.model_validate({"rateCard": CARD})
GARDEN: dict[str, Any] = {"metadata": {"name": "garden", "generation": 2}}
Json = dict[str, Any]


def node(home: str, cpu: str, *, ready: bool = True, cordoned: bool = False) -> Json:
    status = {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": str(ready)}]}
    labels = {names.LABEL_HOME_UID: home, names.LABEL_POOL: "garden", "type": "virtual-kubelet"}
    return {"metadata": {"labels": labels}, "spec": {"unschedulable": cordoned}, "status": status}


def test_the_status_sums_up_ready_nodes_that_take_guests() -> None:
    nodes = [node("a", "1500m"), node("a", "2"), node("b", "8", ready=False), node("c", "8", cordoned=True)]
    status = pool.status(GARDEN, SPEC, nodes, "", NOON)
    assert (status["homes"], status["machines"], status["readyMachines"]) == (3, 4, 2)
    assert status["capacity"] == {"cpu": "3500m", "memory": "0", "ephemeral-storage": "0", "pods": "0"}
    assert status["rateCardDigest"] == pool.rate_card_digest(SPEC, NOON)
    assert conditions.is_true(status["conditions"], "Ready")


def test_the_same_nodes_later_give_the_same_status() -> None:
    status = pool.status(GARDEN, SPEC, [node("a", "1")], "", NOON)
    again = pool.status(GARDEN | {"status": status}, SPEC, [node("a", "1")], "", NOON + timedelta(hours=1))
    assert again == status


def test_a_pool_without_machines_says_what_to_do() -> None:
    ready = conditions.get(pool.status(GARDEN, SPEC, [], "", NOON)["conditions"], "Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", "NoReadyMachine")
    assert "homefed invite" in ready["message"]


def test_a_runtime_class_of_somebody_else_is_said() -> None:
    status = pool.status(GARDEN, SPEC, [node("a", "1")], "RuntimeClass homefed-garden exists.", NOON)
    assert conditions.get(status["conditions"], "Ready")["reason"] == "NameTaken"  # type: ignore[index]
    assert not pool.is_ours({"metadata": {"name": "homefed-garden"}, "handler": "runc"}, "garden")


def test_the_runtime_class_carries_selector_and_toleration() -> None:
    made = pool.runtime_class("garden")
    assert made["metadata"]["name"] == "homefed-garden"
    assert made["scheduling"]["nodeSelector"] == {"homefed.io/pool": "garden"}
    (toleration,) = made["scheduling"]["tolerations"]
    assert toleration == {"key": "homefed.io/pool", "operator": "Equal", "value": "garden", "effect": "NoSchedule"}
    assert pool.is_ours(made, "garden")
    assert not pool.differs(made, made)
    assert pool.differs(made | {"scheduling": {}}, made)


def test_the_rate_cards_digest_changes_with_the_card_only() -> None:
    other = SPEC.model_copy(update={"pending_timeout_seconds": 90})
    assert pool.rate_card_digest(other, NOON) == pool.rate_card_digest(SPEC, NOON)
    dearer = SchedulingPoolSpec.model_validate({"rateCard": CARD | {"version": "2"}})
    assert pool.rate_card_digest(dearer, NOON) != pool.rate_card_digest(SPEC, NOON)


def test_a_pool_that_does_not_fit_the_schema_says_which_field() -> None:
    status = pool.refused(GARDEN, Invalid("spec.rateCard: missing", reason="InvalidField"), NOON)
    ready = conditions.get(status["conditions"], "Ready")
    assert ready is not None
    assert (ready["reason"], ready["message"]) == ("InvalidField", "spec.rateCard: missing")
