"""How much guests together may request, and when there is something to write."""

from typing import Any

import pytest

from homefed.api import names
from homefed.api.offer import Machine, OfferStatus
from homefed.core import quota

GI = 2**30
FOUR = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "50Gi", "pods": "55"}


def a_machine(number: int, **amounts: str) -> Machine:
    return Machine.model_validate({"id": f"{number:064x}", "allocatable": FOUR | amounts, "arch": "amd64"})


def answer(*numbers: int, accepted: str = "True") -> OfferStatus:
    """The hub's word: which machines have a virtual node."""
    machines = [{"id": f"{number:064x}", "node": f"hf-me-{number}"} for number in numbers]
    moment = "2026-01-31T10:00:00Z"
    condition = {"type": "Accepted", "status": accepted, "reason": "Said", "lastTransitionTime": moment}
    return OfferStatus.model_validate({"machines": machines, "conditions": [condition]})


def a_pod(cpu: int, *, finished: bool = False, **requests: int) -> dict[str, Any]:
    return {"finished": finished, "requests": {"cpu": cpu, **requests}}


def stored(hard: dict[str, str], *owned: str) -> dict[str, Any]:
    fields = {"f:spec": {"f:hard": {f"f:{name}": {} for name in owned}}}
    entries = [{"manager": "helm", "fieldsV1": {"f:spec": {"f:hard": {"f:services": {}}}}}]
    entries.append({"manager": names.AGENT_MANAGER, "fieldsV1": fields})
    return {"metadata": {"managedFields": entries}, "spec": {"hard": {"services": "0", **hard}}}


def test_only_machines_with_a_virtual_node_count() -> None:
    found = quota.accepted([a_machine(1), a_machine(2)], answer(2, 3))
    assert found == {"cpu": 4000, "memory": 8 * GI, "ephemeral-storage": 50 * GI, "pods": 55}


@pytest.mark.parametrize("accepted", ["False", "Unknown"])
def test_an_offer_that_the_hub_does_not_take_adds_nothing(accepted: str) -> None:
    assert quota.accepted([a_machine(1)], answer(1, accepted=accepted)) == {}


def test_an_offer_that_the_hub_has_not_answered_adds_nothing() -> None:
    assert quota.accepted([a_machine(1)], OfferStatus(conditions=[])) == {}


def test_guests_may_request_the_sum_of_all_offers() -> None:
    offers = [quota.accepted([a_machine(1), a_machine(2)], answer(1, 2)), {"cpu": 500, "pods": 5}]
    assert quota.hard(offers, {}, ()) == {
        "requests.cpu": "8500m",
        "requests.memory": "16Gi",
        "requests.ephemeral-storage": "100Gi",
        "pods": "115",
    }


def test_what_runs_is_never_above_the_quota() -> None:
    running = quota.requested([a_pod(3000, memory=GI), a_pod(2000), a_pod(9000, finished=True)])
    assert running == {"cpu": 5000, "memory": GI, "pods": 2}
    found = quota.hard([{"cpu": 4000, "memory": 8 * GI, "pods": 1}], running, ())
    assert (found["requests.cpu"], found["requests.memory"], found["pods"]) == ("5", "8Gi", "2")


def test_without_an_offer_there_is_room_for_nothing() -> None:
    assert set(quota.hard([], {}, ()).values()) == {"0"}


def test_devices_that_are_not_offered_are_bound_to_nothing() -> None:
    present = ["cpu", "nvidia.com/gpu", "amd.com/gpu", "hugepages-2Mi", "attachable-volumes-aws-ebs"]
    found = quota.hard([{"nvidia.com/gpu": 2}], {}, present)
    assert found["requests.nvidia.com/gpu"] == "2"
    assert (found["requests.amd.com/gpu"], found["requests.hugepages-2Mi"]) == ("0", "0")
    assert not any("attachable" in name for name in found), "a quota cannot bound it"


def test_equal_amounts_are_kept_however_they_are_written() -> None:
    wanted = quota.hard([{"cpu": 2000, "memory": GI}], {}, ())
    same = {"requests.cpu": "2000m", "requests.memory": "1024Mi", "requests.ephemeral-storage": "0", "pods": 0}
    assert quota.is_kept(stored(same, *same), wanted)


@pytest.mark.parametrize("change", [{"pods": "1"}, {"requests.cpu": "nonsense"}])
def test_another_amount_is_not_kept(change: dict[str, str]) -> None:
    wanted = quota.hard([{"cpu": 2000}], {}, ())
    assert quota.is_kept(stored(wanted, *wanted), wanted)
    assert not quota.is_kept(stored({**wanted, **change}, *wanted), wanted)


def test_what_is_offered_no_more_has_to_go() -> None:
    wanted = quota.hard([], {}, ())
    before = {**wanted, "requests.nvidia.com/gpu": "1"}
    assert not quota.is_kept(stored(before, *before), wanted)


def test_what_the_owner_has_added_by_himself_is_left_to_him() -> None:
    wanted = quota.hard([], {}, ())
    assert quota.is_kept(stored({**wanted, "requests.storage": "5Gi"}, *wanted), wanted)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('pods "hf-1" is forbidden: exceeded quota: homefed-guests, requested: pods=1, used: pods=2', True),
        ('pods "hf-1" is forbidden: status unknown for quota: homefed-guests, resources: pods', True),
        ('pods "hf-1" is forbidden: failed quota: homefed-guests: must specify requests.cpu', False),
        ('pods "hf-1" is forbidden: violates PodSecurity "restricted:v1.30"', False),
    ],
)
def test_a_want_of_room_is_told_from_a_fault_of_the_pod(message: str, expected: bool) -> None:
    assert quota.is_refusal(message) is expected
