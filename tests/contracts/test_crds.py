"""A real API server takes every CRD and every example, and refuses what is wrong, naming the field."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.cluster import Cluster

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.yaml") if "homefed.io/v1alpha1" in path.read_text())


@pytest.fixture(scope="session")
def kinds(apiserver: Cluster) -> Cluster:
    apiserver.install_crds(ROOT / "crds")
    if "namespace/homefed" not in apiserver.kubectl("get", "namespaces", "-o", "name").split():
        apiserver.create_namespace("homefed")
        apiserver.create_namespace("shop")
    return apiserver


def example(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "examples" / name).read_text(encoding="utf-8")))


def apply(cluster: Cluster, obj: dict[str, Any]) -> str:
    return cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(obj)
    )


def refusal(cluster: Cluster, obj: dict[str, Any]) -> str:
    with pytest.raises(Exception, match=r"invalid|Invalid") as refused:
        apply(cluster, obj)
    return str(refused.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_every_example_of_our_kinds_is_accepted(kinds: Cluster, path: Path) -> None:
    assert "applied" in apply(kinds, yaml.safe_load(path.read_text(encoding="utf-8")))


WRONG: list[tuple[str, str, tuple[str | int, ...], Any, str]] = [
    ("share over 100 %", "contribution.yaml", ("spec", "resources", "cpu", "sharePercent"), 101, "sharePercent"),
    ("share of nothing", "contribution.yaml", ("spec", "resources", "cpu", "sharePercent"), 0, "sharePercent"),
    ("negative limit", "contribution.yaml", ("spec", "resources", "cpu", "limit"), "-1", "limit"),
    ("absurd limit", "contribution.yaml", ("spec", "resources", "cpu", "limit"), "9" * 40, "limit"),
    ("nonsense reserve", "contribution.yaml", ("spec", "resources", "memory", "reserve"), "lots", "reserve"),
    ("no pool", "contribution.yaml", ("spec", "poolName"), None, "poolName"),
    ("pool with capitals", "contribution.yaml", ("spec", "poolName"), "Garden", "poolName"),
    ("unknown state", "contribution.yaml", ("spec", "state"), "Asleep", "state"),
    (
        "virtual nodes selected",
        "contribution.yaml",
        ("spec", "nodeSelector"),
        {"type": "virtual-kubelet"},
        "nodeSelector",
    ),
    ("negative drain", "contribution.yaml", ("spec", "drainTimeoutSeconds"), -1, "drainTimeoutSeconds"),
    ("home with a long name", "home.yaml", ("metadata", "name"), "h" * 41, "metadata.name"),
    ("home with dots", "home.yaml", ("metadata", "name"), "oak.street", "metadata.name"),
    ("home with a bad fingerprint", "home.yaml", ("spec", "trustedFingerprint"), "abc", "trustedFingerprint"),
    ("window that does not divide a day", "pool.yaml", ("spec", "settlement", "windowSeconds"), 7000, "windowSeconds"),
    ("late before grace", "pool.yaml", ("spec", "settlement", "latenessSeconds"), 1, "latenessSeconds"),
    ("more than all held back", "pool.yaml", ("spec", "settlement", "heldBack"), [1_000_001], "heldBack"),
    ("held back for ever", "pool.yaml", ("spec", "settlement", "releaseAfterMonths"), 61, "releaseAfterMonths"),
    ("negative budget", "budget.yaml", ("spec", "limitMicroCredits"), -1, "limitMicroCredits"),
    ("budget of a week", "budget.yaml", ("spec", "period"), "Week", "period"),
    ("warning above the limit", "budget.yaml", ("spec", "warnPercent"), 101, "warnPercent"),
    ("fee over a half", "pool.yaml", ("spec", "settlement", "feePpm"), 500_001, "feePpm"),
    ("negative price", "pool.yaml", ("spec", "rateCard", "prices", 0, "microCredits"), -1, "microCredits"),
    ("cpu per GiB", "pool.yaml", ("spec", "rateCard", "prices", 0, "per"), "GiB", "per"),
    ("reserved network", "pool.yaml", ("spec", "rateCard", "prices", 5, "basis"), "reserved", "per"),
    (
        "band within a window",
        "pool-classes.yaml",
        ("spec", "rateCard", "timeOfDay", 0, "from"),
        "05:30",
        "timeOfDay.from",
    ),
    ("band of no time", "pool-classes.yaml", ("spec", "rateCard", "timeOfDay", 0, "from"), "24:00", "timeOfDay"),
    (
        "factor over ten",
        "pool-classes.yaml",
        ("spec", "rateCard", "timeOfDay", 0, "factorPpm"),
        10_000_001,
        "factorPpm",
    ),
    (
        "minimum above the price",
        "pool-classes.yaml",
        ("spec", "rateCard", "prices", 0, "minMicroCredits"),
        10**9,
        "minMicro",
    ),
    (
        "maximum below the price",
        "pool-classes.yaml",
        ("spec", "rateCard", "prices", 0, "maxMicroCredits"),
        0,
        "maxMicro",
    ),
    (
        "class without a standard price",
        "pool-classes.yaml",
        ("spec", "rateCard", "prices", 3, "class"),
        "fast",
        "standard",
    ),
    ("asks more than the card", "contribution-priced.yaml", ("spec", "price", "percentOfCard"), 101, "percentOfCard"),
    ("asks less than nothing", "contribution-priced.yaml", ("spec", "price", "percentOfCard"), -1, "percentOfCard"),
    (
        "floor below nothing",
        "contribution-priced.yaml",
        ("spec", "price", "floors", 0, "microCredits"),
        -1,
        "microCredits",
    ),
    ("class with capitals", "contribution-priced.yaml", ("spec", "class"), "Fast", "class"),
    ("pool with a long name", "pool.yaml", ("metadata", "name"), "p" * 41, "metadata.name"),
    ("no rate card", "pool.yaml", ("spec", "rateCard"), None, "rateCard"),
]


@pytest.mark.parametrize(("name", "path", "value", "field"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_is_wrong_is_refused_and_the_field_is_named(
    kinds: Cluster, name: str, path: tuple[str | int, ...], value: Any, field: str
) -> None:
    wrong = copy.deepcopy(example(name))
    *parents, last = path
    place: Any = wrong
    for step in parents:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    assert field in refusal(kinds, wrong)


def test_a_misspelt_field_is_named(kinds: Cluster) -> None:
    wrong = example("contribution.yaml")
    wrong["spec"]["nodeSelektor"] = {}
    with pytest.raises(Exception, match="nodeSelektor"):
        apply(kinds, wrong)


def test_two_prices_of_one_resource_and_basis_are_refused(kinds: Cluster) -> None:
    wrong = example("pool.yaml")
    wrong["spec"]["rateCard"]["prices"].append(wrong["spec"]["rateCard"]["prices"][0])
    with pytest.raises(Exception, match=r"prices|duplicate"):
        apply(kinds, wrong)


def test_a_contribution_cannot_change_its_pool(kinds: Cluster) -> None:
    kinds.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(example("contribution.yaml")))
    moved = example("contribution.yaml")
    moved["spec"]["poolName"] = "meadow"
    assert "poolName is immutable" in refusal(kinds, moved)


def test_defaults_are_filled_in_where_they_are_left_out(kinds: Cluster) -> None:
    short = {
        "apiVersion": "homefed.io/v1alpha1",
        "kind": "Contribution",
        "metadata": {"name": "short", "namespace": "homefed"},
        "spec": {"poolName": "garden"},
    }
    text = kinds.kubectl("create", "--dry-run=server", "-o", "yaml", "-f", "-", stdin=yaml.safe_dump(short))
    spec = yaml.safe_load(text)["spec"]
    assert spec["state"] == "Active"
    assert spec["egress"] == "DNS"
    assert spec["access"] == {"logs": True, "exec": False, "portForward": False}


def claim(**changes: Any) -> dict[str, Any]:
    spec = {
        "claimId": "a" * 64, "part": "Header", "poolName": "garden", "sequence": 1, "envelope": "e30=",
        "windowStart": "2026-01-01T00:00:00Z", "windowEnd": "2026-01-01T01:00:00Z",
    }  # fmt: skip
    metadata = {"name": "claim", "namespace": "homefed"}
    return {"apiVersion": "homefed.io/v1alpha1", "kind": "RewardClaim", "metadata": metadata, "spec": spec | changes}


def test_a_claim_cannot_be_changed(kinds: Cluster) -> None:
    kinds.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(claim()))
    assert "a claim is immutable" in refusal(kinds, claim(charged="1"))


def guest(**changes: Any) -> dict[str, Any]:
    spec = {
        "podUid": "11111111-2222-3333-4444-555555555555", "podName": "p", "podNamespace": "shop", "namespaceUid": "u",
        "poolName": "garden", "nodeName": "hf-a-00000000", "machineId": "0" * 64, "offerName": "o",
        "pod": {"spec": {"containers": [{"name": "c", "image": "i"}], "anything": {"deep": [1]}}},
        "podDigest": "0" * 64, "requests": {"cpu": "1"}, "observed": {"boundAt": "2026-01-01T00:00:00Z"},
    }  # fmt: skip
    metadata = {"name": "11111111-2222-3333-4444-555555555555", "namespace": "homefed"}
    return {"apiVersion": "homefed.io/v1alpha1", "kind": "GuestPod", "metadata": metadata, "spec": spec | changes}


def test_a_guest_keeps_the_pod_it_was_given_whole(kinds: Cluster) -> None:
    kinds.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(guest()))
    stored = yaml.safe_load(
        kinds.kubectl("get", "guestpods", "-n", "homefed", guest()["metadata"]["name"], "-o", "yaml")
    )
    assert stored["spec"]["pod"] == guest()["spec"]["pod"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"podDigest": "1" * 64}, "immutable"),
        ({"nodeName": "hf-b-00000000"}, "nodeName is immutable"),
        ({"podUid": "other"}, "podUid"),
        ({"terms": {"class": "fast"}}, "terms are immutable"),
        ({"terms": {"pricePpm": 0}}, "terms are immutable"),
    ],
)
def test_what_a_guest_runs_and_where_is_fixed(kinds: Cluster, change: dict[str, Any], message: str) -> None:
    kinds.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(guest()))
    assert message in refusal(kinds, guest(**change))


def test_a_stop_cannot_be_taken_back(kinds: Cluster) -> None:
    obj = guest()
    obj["metadata"]["name"] = obj["spec"]["podUid"] = "99999999-2222-3333-4444-555555555555"
    kinds.kubectl(
        "apply", "-f", "-", stdin=yaml.safe_dump(obj | {"spec": obj["spec"] | {"stop": {"gracePeriodSeconds": 1}}})
    )
    with pytest.raises(Exception, match="a stop cannot be taken back"):
        kinds.kubectl(
            "patch",
            "guestpod",
            "-n",
            "homefed",
            obj["metadata"]["name"],
            "--type=merge",
            "-p",
            '{"spec":{"stop":null}}',
        )


def test_a_resource_without_a_price_cannot_get_one_later(kinds: Cluster) -> None:
    kinds.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(example("pool.yaml")))
    dearer = example("pool.yaml")
    dearer["spec"]["rateCard"]["prices"][0]["microCredits"] *= 2
    assert "another card is another version" in refusal(kinds, dearer)
    dearer["spec"]["rateCard"]["version"] = "dearer"
    assert "applied" in apply(kinds, dearer)
    dearer["spec"]["rateCard"]["prices"].append(
        {"resource": "ephemeral-storage", "basis": "used", "microCredits": 1, "per": "GiB-hour"}
    )
    assert "what had no price cannot get one later" in refusal(kinds, dearer)


def with_next(**changes: Any) -> dict[str, Any]:
    """The example with an announced card; `changes` are of that card."""
    pool = example("pool-classes.yaml")
    pool["spec"]["nextRateCards"][0] |= changes
    return pool


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validFrom": "2020-01-01T00:00:00Z"}, "later than rateCard's"),
        ({"version": "2026-11"}, "a version of its own"),
        ({"timeOfDay": [{"from": "00:30", "factorPpm": 1}]}, "nextRateCards.timeOfDay.from"),
        ({"prices": example("pool.yaml")["spec"]["rateCard"]["prices"][1:]}, "price the same resources and bases"),
    ],
)
def test_an_announced_card_that_does_not_fit_is_refused(kinds: Cluster, change: dict[str, Any], message: str) -> None:
    assert message in refusal(kinds, with_next(**change))


def test_an_announced_card_stays_as_it_is_and_can_be_taken_away(kinds: Cluster) -> None:
    pool = with_next()
    pool["metadata"]["name"] = "announcing"
    kinds.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pool))
    pool["spec"]["nextRateCards"][0]["validFrom"] = "2031-01-01T00:00:00Z"
    assert "an announced card stays as it is" in refusal(kinds, pool)
    del pool["spec"]["nextRateCards"]
    assert "applied" in apply(kinds, pool)
