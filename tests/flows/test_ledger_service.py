"""The ledger as it is deployed: a process that is killed at any moment loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest

from homefed.api.errors import Forbidden, Transient, Unauthorised
from homefed.api.names import LEDGER_AUDIENCE
from homefed.kube.client import KubeClient
from homefed.ledger_client import LedgerClient, Receipt
from testbed.claims import POOL, Chain, SignedClaim
from testbed.cluster import Cluster
from testbed.ledger import HUB_TOKEN, LedgerProcess
from testbed.pki import Pki

HOMES = 8


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerProcess]:
    process = LedgerProcess(tmp_path)
    yield process
    process.close()


@asynccontextmanager
async def client_of(ledger: LedgerProcess, **options: object) -> AsyncIterator[LedgerClient]:
    async with LedgerClient(ledger.url, lambda: HUB_TOKEN, **options) as client:  # type: ignore[arg-type]
        yield client


async def settle(client: LedgerClient, claim: SignedClaim) -> Receipt:
    """Parts and header, as often as it takes."""
    while True:
        try:
            for number, body in enumerate(claim.parts, 1):
                await client.put_part(claim.id, number, body)
            return await client.put_claim(claim.envelope)
        except Transient:
            await asyncio.sleep(0.01)


class Home:
    """One chain of claims, and every receipt that was acknowledged for it."""

    def __init__(self, number: int) -> None:
        self.chain = Chain(home=f"home-{number}")
        self.random = random.Random(number)
        self.settled: list[tuple[SignedClaim, Receipt]] = []

    async def work(self, client: LedgerClient, done: Callable[[], bool]) -> None:
        while not done():
            costs = {f"ns-{self.random.randrange(4)}": self.random.randrange(1, 10**5) for _ in range(3)}
            claim = self.chain.make(costs, fee=7 if sum(costs.values()) > 7 else 0, lines_per_part=1)
            self.settled.append((claim, await settle(client, claim)))
            self.chain.advance(claim)


async def compare(client: LedgerClient, homes: list[Home]) -> None:
    """What the ledger says now against what was acknowledged."""
    expected: Counter[str] = Counter()
    indices: list[int] = []
    for home in homes:
        for claim, receipt in home.settled:
            stored = await client.claim(claim.id)
            assert (stored.envelope, stored.receipt) == (claim.envelope, receipt)
            indices.append(receipt.leaf_index)
            expected[home.chain.account] += int(claim.header["paid"])
            expected[f"fee:example/{POOL}"] += int(claim.header["fee"])
            for charge in claim.header["consumers"]:
                expected[charge["account"]] -= int(charge["charged"])
        head = await client.chain(POOL, home.chain.account)
        assert head is not None
        assert (head.sequence, head.digest) == (home.chain.sequence, home.chain.previous)
    assert sorted(indices) == list(range(len(indices)))
    assert {account.account: int(account.balance) for account in await client.accounts()} == dict(expected)
    totals = await client.totals()
    assert (totals.claims, totals.conserved) == (len(indices), True)


def check_file(database: Path) -> None:
    with closing(sqlite3.connect(database)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        derived = raw.execute("SELECT account_id, unit, balance FROM balances ORDER BY 1, 2").fetchall()
        rebuilt = "SELECT account_id, unit, sum(amount) FROM entries GROUP BY 1, 2 ORDER BY 1, 2"
        assert derived == raw.execute(rebuilt).fetchall()


async def test_sigterm_answers_what_was_taken_in_and_ends_with_0(ledger: LedgerProcess) -> None:
    homes = [Home(number) for number in range(HOMES)]
    await asyncio.to_thread(ledger.start)
    stopped = False
    async with client_of(ledger, attempts=1) as client:
        work = [asyncio.create_task(home.work(client, lambda: stopped)) for home in homes]
        await asyncio.sleep(0.5)
        ledger.process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(ledger.process.wait, 120.0) == 0
        check_file(ledger.database)
        await asyncio.to_thread(ledger.start)
        stopped = True
        await asyncio.gather(*work)
        await compare(client, homes)


async def test_a_disk_that_takes_no_more_ends_the_process_and_loses_nothing(ledger: LedgerProcess) -> None:
    home = Home(0)
    await asyncio.to_thread(ledger.start)
    async with client_of(ledger, attempts=1) as client:
        stopped = False
        await home.work(client, lambda: bool(home.settled))
        work = asyncio.create_task(home.work(client, lambda: stopped))
        journal = ledger.database.with_name(ledger.database.name + "-wal")
        limit = journal.stat().st_size + 100_000
        resource.prlimit(ledger.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        assert await asyncio.to_thread(ledger.process.wait, 120.0) > 0
        assert "the database failed" in ledger.process.tail()
        check_file(ledger.database)
        await asyncio.to_thread(ledger.start)
        stopped = True
        await work
        await compare(client, [home])


def test_a_second_process_on_the_same_database_refuses_to_start(ledger: LedgerProcess) -> None:
    ledger.start()
    second = subprocess.run(ledger.argv, env=ledger.env, capture_output=True, text=True, timeout=300, check=False)
    assert second.returncode != 0
    assert "in use by another ledger process" in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert ledger.process.alive


async def test_over_tls_the_ledger_is_believed_only_under_the_given_ca(tmp_path: Path) -> None:
    pki = Pki.create(tmp_path / "pki", "ledger", ["127.0.0.1"])
    other = Pki.create(tmp_path / "other", "other", ["127.0.0.1"])
    pair = pki.issue_server("ledger", "ledger", ["127.0.0.1"])
    ledger = LedgerProcess(tmp_path, "--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    try:
        await asyncio.to_thread(ledger.start)
        url = ledger.url.replace("http:", "https:")
        claim = Chain().make()
        async with LedgerClient(url, lambda: HUB_TOKEN, ca=pki.ca.cert) as client:
            assert (await settle(client, claim)).claim_id == claim.id
        for ca in (other.ca.cert, None):
            async with LedgerClient(url, lambda: HUB_TOKEN, ca=ca, attempts=1) as client:
                with pytest.raises(Transient, match=r"(?i)certificate"):
                    await client.put_claim(claim.envelope)
    finally:
        await asyncio.to_thread(ledger.close)


RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {namespace}-ledger}}
rules:
  - {{apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}}
  - {{apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}}
  - {{apiGroups: [""], resources: [namespaces], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {namespace}-ledger}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {namespace}-ledger}}
subjects: [{{kind: ServiceAccount, namespace: {namespace}, name: ledger}}]
"""


async def test_in_a_cluster_only_the_listed_account_with_a_token_for_the_ledger_submits(
    apiserver: Cluster, namespace: str, tmp_path: Path
) -> None:
    for name in ("ledger", "hub", "tenant"):
        apiserver.create_service_account(namespace, name)
    apiserver.apply(RIGHTS.format(namespace=namespace))
    kubeconfig = apiserver.kubeconfig_for(namespace, "ledger")
    hub = f"system:serviceaccount:{namespace}:hub"
    options = ("--auth", "kubernetes", "--kubeconfig", str(kubeconfig), "--submitter", hub)
    async with KubeClient.from_kubeconfig(apiserver.kubeconfig) as admin:
        right = await admin.token("hub", namespace, audiences=[LEDGER_AUDIENCE])
        other_audience = await admin.token("hub", namespace)
        other_account = await admin.token("tenant", namespace, audiences=[LEDGER_AUDIENCE])
    ledger = LedgerProcess(tmp_path, *options)
    claim = Chain().make()
    try:
        await asyncio.to_thread(ledger.start)
        for token, error in (
            (other_audience.token, Unauthorised),
            (other_account.token, Forbidden),
            ("x.y.z", Unauthorised),
        ):
            async with LedgerClient(ledger.url, lambda token=token: token) as client:  # type: ignore[misc]
                with pytest.raises(error):
                    await client.put_part(claim.id, 1, claim.parts[0])
        async with LedgerClient(ledger.url, lambda: right.token) as client:
            assert (await settle(client, claim)).claim_id == claim.id
    finally:
        await asyncio.to_thread(ledger.close)


CONSUMER_RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: statements, namespace: {namespace}}}
rules: [{{apiGroups: [homefed.io], resources: [consumerstatements], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: statements, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: statements}}
subjects: [{{kind: ServiceAccount, namespace: {namespace}, name: tenant}}]
"""


async def test_in_a_cluster_a_consumer_reads_the_statement_of_a_namespace_with_the_right_to_and_of_no_other(
    apiserver: Cluster, namespace: str, tmp_path: Path
) -> None:
    for name in ("ledger", "tenant", "stranger"):
        apiserver.create_service_account(namespace, name)
    apiserver.apply(RIGHTS.format(namespace=namespace))
    apiserver.apply(CONSUMER_RIGHTS.format(namespace=namespace))
    uid = apiserver.api.get(f"/api/v1/namespaces/{namespace}")["metadata"]["uid"]
    kubeconfig = str(apiserver.kubeconfig_for(namespace, "ledger"))
    async with KubeClient.from_kubeconfig(apiserver.kubeconfig) as admin:
        tokens = {
            name: (await admin.token(name, namespace, audiences=[LEDGER_AUDIENCE])).token
            for name in ("tenant", "stranger")
        }
    ledger = LedgerProcess(tmp_path, "--auth", "kubernetes", "--kubeconfig", kubeconfig)
    asked = (
        ("tenant", f"consumer:example/{uid}", namespace, 200),
        ("tenant", "consumer:example/another-uid", namespace, 403),
        ("tenant", f"consumer:example/{uid}", "kube-system", 403),
        ("tenant", f"consumer:example/{uid}", "nowhere", 403),
        ("stranger", f"consumer:example/{uid}", namespace, 403),
    )
    try:
        await asyncio.to_thread(ledger.start)
        async with aiohttp.ClientSession() as session:
            for name, account, where, expected in asked:
                url = f"{ledger.url}/v1/accounts/{account}/statement?namespace={where}"
                async with session.get(url, headers={"X-HomeFed-Authorization": f"Bearer {tokens[name]}"}) as answer:
                    assert answer.status == expected, await answer.text()
    finally:
        await asyncio.to_thread(ledger.close)
