"""The ledger believes the homes that the hub has pinned, and no others; at rest nothing is written."""

from __future__ import annotations

from typing import Any

import pytest
from hub_doubles import Cluster

from homefed.api.errors import Refused
from homefed.hub.config import Config
from homefed.hub.home_keys import HomeKeys

Json = dict[str, Any]


def home(uid: str, key: str | None) -> Json:
    return {"metadata": {"name": uid, "uid": uid}, "status": {"key": {"publicKey": key}} if key else {}}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster({"homefed-home-keys": {}})


def keys_of(cluster: Cluster, *homes: Json) -> HomeKeys:
    store = {("", one["metadata"]["name"]): one for one in homes}
    return HomeKeys(cluster, Config(federation_id="example"), store)


async def test_pinned_keys_are_published_by_the_uid_of_their_home(cluster: Cluster) -> None:
    await keys_of(cluster, home("u1", "a2V5MQ=="), home("u2", "a2V5Mg=="), home("u3", None)).reconcile("")
    assert cluster.config_maps["homefed-home-keys"] == {"u1": "a2V5MQ==", "u2": "a2V5Mg=="}


async def test_at_rest_nothing_is_written(cluster: Cluster) -> None:
    keys = keys_of(cluster, home("u1", "a2V5MQ=="))
    for _ in range(3):
        await keys.reconcile("")
    assert cluster.writes == 1


async def test_a_key_that_is_pinned_anew_takes_the_place_of_the_old_one_and_a_home_that_left_has_none(
    cluster: Cluster,
) -> None:
    await keys_of(cluster, home("u1", "a2V5MQ=="), home("u2", "a2V5Mg==")).reconcile("")
    await keys_of(cluster, home("u1", "bmV3")).reconcile("")
    assert cluster.config_maps["homefed-home-keys"] == {"u1": "bmV3"}


async def test_a_config_map_that_is_missing_is_told_with_the_remedy() -> None:
    with pytest.raises(Refused, match="upgrade the release"):
        await keys_of(Cluster({}), home("u1", "a2V5MQ==")).reconcile("")
