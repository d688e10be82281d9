"""A home's owner asks what he has earned: with his own cluster's credential, from mailbox and ledger."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from settlement_world import HOME_KEY, UID, LedgerWorld, at, samples, settlement_world

import homefed
from homefed.agent import keys
from homefed.api import names
from homefed.core.times import to_rfc3339
from testbed.binaries import Binaries
from testbed.cluster import Cluster
from testbed.ledger import HUB_TOKEN, register_home
from testbed.metrics import prometheus

CRDS = Path(__file__).parents[2] / "crds"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def address(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(binaries, tmp_path_factory.mktemp("prometheus"), samples()) as url:
        yield url


@pytest.fixture(scope="module")
def hub_cluster(apiserver: Cluster) -> Cluster:
    apiserver.install_crds(CRDS)
    return apiserver


@pytest.fixture
async def world(hub_cluster: Cluster, address: str, tmp_path: Path) -> AsyncIterator[LedgerWorld]:
    async with settlement_world(hub_cluster, address, tmp_path) as made:
        yield made


def join(cluster: Cluster, world: LedgerWorld, release: str) -> None:
    """The home's Secrets, as the chart and the agent leave them; the mailbox's rights are those of the agent's role.

    Hub and home are one API server here: what matters is which credential is used for what."""
    agent = names.AGENT_SERVICE_ACCOUNT
    cluster.create_service_account(world.mailbox, agent)
    rule = {"apiGroups": ["homefed.io"], "resources": ["offers", "guestpods", "rewardclaims"], "verbs": ["get", "list"]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": agent, "namespace": world.mailbox}}
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": agent},
        "subjects": [{"kind": "ServiceAccount", "name": agent, "namespace": world.mailbox}],
    }
    token = cluster.token_for(world.mailbox, agent)
    values = {"home": world.name, "url": cluster.url, "ca": cluster.ca_path.read_text(), "token": token}
    own = keys.first(HOME_KEY, "salt")
    secrets = [
        _secret(f"{release}-join", {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}),
        _secret(f"{release}-agent", own),
    ]
    cluster.apply([role | {"kind": "Role", "rules": [rule]}, role | {"kind": "RoleBinding"} | binding, *secrets])


def _secret(name: str, data: Json) -> Json:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def run(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "homefed", *arguments),
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(homefed.__file__).parents[1])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def answered(*arguments: str) -> Json:
    status, out, err = await run(*arguments, "-o", "json")
    assert status == 0, err
    return dict(json.loads(out))


async def test_the_owner_sees_what_the_ledger_and_the_mailbox_say(
    world: LedgerWorld, hub_cluster: Cluster, tmp_path: Path
) -> None:
    """Two hours are receipted; the third is settled while the ledger is down."""
    settlement = world.settlement()
    for hour in (1, 2):
        await world.hour(hour, settlement)
    world.ledger.down = True
    await world.hour(3, settlement)
    join(hub_cluster, world, world.name)
    register_home(world.service.home_keys, world.home_uid, HOME_KEY)
    home = ["--kubeconfig", str(hub_cluster.kubeconfig), "--namespace", "default", "--release", world.name]
    now = ["--at", to_rfc3339(at(3, 100))]
    first, second, third = [claim["spec"] for claim in await world.claims()]
    receipted = int(first["paid"]) + int(second["paid"])

    seen = await answered("earnings", *home, *now)
    assert seen["source"] == "mailbox"
    assert seen["month"]["paidMicro"] == seen["today"]["paidMicro"] == receipted
    assert seen["pending"] == {
        "claims": 1,
        "earnedMicro": int(third["paid"]),
        "states": {"pending": 0, "unreceipted": 1},
    }
    assert [row["namespace"] for row in seen["byConsumer"]] == ["shop"]

    url = ["--url", world.service.url]
    told = await answered("earnings", *home, *now, *url, "--kwh", "2.5", "--tariff", "0.3")
    assert told["source"] == "ledger"
    for member in ("month", "today", "pending", "byResource", "byConsumer", "estimate", "heldMicro"):
        assert told[member] == seen[member], member
    assert told["dueMicro"] == receipted == await world.reader.balance(world.account)
    assert {row["resource"] for row in told["byResource"]} == {"cpu", "memory", "network-receive"}
    assert sum(row["earnedMicro"] for row in told["byResource"]) == told["month"]["earnedMicro"]
    assert told["net"]["netMicro"] == told["estimate"]["soFarMicro"] - 750_000
    assert told["estimate"]["micro"] > told["month"]["earnedMicro"]
    assert told["estimate"]["assumptions"]

    status, out, err = await run("earnings", *home, *now, *url)
    assert status == 0, err
    assert "pending:" in out
    assert "estimate of the month:" in out


async def test_the_organiser_sees_a_home_by_its_mailbox_and_a_submitters_token(
    world: LedgerWorld, hub_cluster: Cluster, tmp_path: Path
) -> None:
    await world.hour(1)
    (tmp_path / "token").write_text(HUB_TOKEN, encoding="utf-8")
    options = ["--kubeconfig", str(hub_cluster.kubeconfig), "--mailbox", world.mailbox, "--at", to_rfc3339(at(1, 100))]
    told = await answered("earnings", *options, "--url", world.service.url, "--token-file", str(tmp_path / "token"))
    (claim,) = await world.claims()
    assert told["month"]["paidMicro"] == int(claim["spec"]["paid"])
    explained = await answered("claims", "explain", claim["spec"]["claimId"][:12], *options[:4])
    assert explained["holds"]
    assert {line["guestPod"] for line in explained["lines"]} == {UID}


async def test_another_clusters_owner_is_told_what_is_missing(hub_cluster: Cluster) -> None:
    status, _, err = await run(
        "earnings", "--kubeconfig", str(hub_cluster.kubeconfig), "--namespace", "default", "--release", "nobody"
    )
    assert status == 1
    assert "Secret default/nobody-join is missing" in err
    assert "--mailbox" in err
