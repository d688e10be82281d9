"""Chart and agent write the guests' ResourceQuota, each its own part, and no upgrade takes the other's away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chart_values import values_of

from homefed.api import names
from homefed.core import quota
from testbed.api import APPLY, Api, ApiError
from testbed.binaries import Binaries
from testbed.cluster import APISERVER_ONLY, Cluster
from testbed.installation import Release

QUOTAS = f"/api/v1/namespaces/{names.GUESTS_NAMESPACE}/resourcequotas"
QUOTA = f"{QUOTAS}/{names.GUESTS_QUOTA}"
OFFERED = quota.hard(
    [{"cpu": 8000, "memory": 2**34, "pods": 110, "nvidia.com/gpu": 1}],
    {},
    ["cpu", "hugepages-1Gi", "hugepages-2Mi", "example.com/fpga", "attachable-volumes-csi-x"],  # as kubelets list them
)


@pytest.fixture(scope="module")
def release(binaries: Binaries, testbed_folder: Path) -> Iterator[Release]:
    """Role home, by Helm 3."""
    cluster = Cluster("quota", testbed_folder / "quota", binaries, components=APISERVER_ONLY)
    try:
        yield Release(cluster.start(), values_of("home"), version=3).install()
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def agent(release: Release) -> Api:
    cluster = release.cluster
    token = cluster.token_for("homefed", "homefed-agent")
    return Api(cluster.host, cluster.spec.ports.apiserver, cluster.ca_path, token=token)


def apply(agent: Api, hard: dict[str, str], path: str = QUOTA) -> dict[str, Any]:
    """As the agent does, with its own token and under its own name."""
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": hard}}
    query = f"?fieldManager={names.AGENT_MANAGER}&force=true"
    applied: dict[str, Any] = agent.request("PATCH", path + query, body, content_type=APPLY)
    return dict(applied["spec"]["hard"])


def hard(release: Release) -> dict[str, str]:
    return dict(release.cluster.api.get(QUOTA)["spec"]["hard"])


def test_the_agent_adds_its_part_to_the_charts(release: Release, agent: Api) -> None:
    charts = hard(release)
    assert charts["services"] == "0"
    assert not OFFERED.keys() & charts.keys()
    assert apply(agent, OFFERED) == charts | OFFERED


@pytest.mark.parametrize("helm", [[3], [4, "--server-side=true", "--force-conflicts"], [4]], ids=str)
def test_no_upgrade_takes_the_agents_part_away(release: Release, agent: Api, helm: list[Any]) -> None:
    version, *arguments = helm
    before = apply(agent, OFFERED)
    level = "info" if release.values.get("logLevel") == "debug" else "debug"
    upgraded = replace(release, version=version)
    upgraded.upgrade({"logLevel": level}, *arguments)
    release.values = upgraded.values
    assert hard(release) == before


def test_what_is_offered_no_more_goes_with_the_agents_next_word(release: Release, agent: Api) -> None:
    apply(agent, OFFERED)
    left = {name: amount for name, amount in OFFERED.items() if "gpu" not in name}
    assert apply(agent, left)["services"] == "0"
    assert "requests.nvidia.com/gpu" not in hard(release)


def test_the_agent_can_write_no_other_quota(agent: Api) -> None:
    for refused in (f"{QUOTAS}/other", f"/api/v1/namespaces/homefed/resourcequotas/{names.GUESTS_QUOTA}"):
        with pytest.raises(ApiError) as caught:
            apply(agent, OFFERED, refused)
        assert caught.value.status == 403
    with pytest.raises(ApiError) as caught:
        agent.request("DELETE", QUOTA)
    assert caught.value.status == 403
