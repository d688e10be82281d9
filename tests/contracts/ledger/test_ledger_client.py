"""The client maps every answer to the error tree and believes no receipt that it has not verified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from homefed.api import dsse
from homefed.api.errors import (
    Forbidden,
    HomefedError,
    Incident,
    Invalid,
    NotFound,
    Refused,
    Transient,
    Unauthorised,
)
from homefed.core import tlog_proof
from homefed.core.signed_note import VerifierKey
from homefed.ledger_client import LedgerClient, Submission, batch
from homefed.ledger_client import client as client_module
from testbed.claims import POOL, Chain, SignedClaim, hub_key, public
from testbed.ledger import HUB_TOKEN, OTHER_TOKEN, Ledger

BALANCE = {"account": "fee:example/evening", "balance": "5", "balances": {"ucredit": "5"}}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def client(ledger: Ledger) -> AsyncIterator[LedgerClient]:
    async with LedgerClient(ledger.url, lambda: HUB_TOKEN, key=ledger.vkey) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.01)


async def send(client: LedgerClient, claim: SignedClaim) -> Any:
    for number, body in enumerate(claim.parts, 1):
        await client.put_part(claim.id, number, body)
    return await client.put_claim(claim.envelope)


async def test_a_claim_is_sent_receipted_and_read_back(client: LedgerClient) -> None:
    chain = Chain()
    assert await client.chain(POOL, chain.account) is None
    first, second = chain.next({"a": 500}, held=50, fee=20, dust=1), chain.next({"a": 7})
    receipt = await send(client, first)
    assert (receipt.claim_id, receipt.leaf_index) == (first.id, 0)
    assert tlog_proof.verify(receipt.text, first.envelope.canonical(), await client.ledger_key()).index == 0
    assert await send(client, first) == receipt
    await send(client, second)

    head = await client.chain(POOL, chain.account)
    assert head is not None
    assert (head.claim_id, head.sequence, head.digest) == (second.id, 2, second.digest)
    assert head.envelope == second.envelope
    claim = await client.claim(first.id)
    assert (claim.envelope, claim.receipt, claim.state) == (first.envelope, receipt, "posted")
    earlier = await client.chain(POOL, chain.account, 1)
    assert earlier is not None
    assert earlier.digest == first.digest
    assert await client.chain(POOL, chain.account, 3) is None
    assert (await client.part(first.id, 1)) == json.loads(first.parts[0])

    assert await client.balance(chain.account) == 436
    assert await client.balance("consumer:example/a") == -507
    assert await client.balance("consumer:example/nobody") == 0
    statement = await client.statement(chain.account, limit=1)
    assert (statement.due, statement.paid, statement.held, statement.dust) == ("436", "436", "50", "1")
    assert {entry.claim for entry in statement.entries} == {second.id}
    older = await client.statement(chain.account, before=statement.next)
    assert {entry.claim for entry in older.entries} == {first.id}
    accounts = await client.accounts("consumer:")
    assert [(account.account, account.balance) for account in accounts] == [("consumer:example/a", "-507")]
    totals = await client.totals()
    assert (totals.claims, totals.charged, totals.conserved) == (2, "507", True)


async def test_without_a_pinned_key_the_first_one_seen_is_kept(ledger: Ledger) -> None:
    async with LedgerClient(ledger.url, lambda: HUB_TOKEN) as client:
        await send(client, Chain().make())
        assert await client.ledger_key() == ledger.vkey


async def test_a_receipt_under_another_key_is_an_incident(ledger: Ledger) -> None:
    other = VerifierKey(ledger.vkey.name, public(hub_key(7)))
    async with LedgerClient(ledger.url, lambda: HUB_TOKEN, key=other) as client:
        with pytest.raises(Incident, match="receipt"):
            await send(client, Chain().make())


async def test_other_bytes_under_a_known_id_are_an_incident(client: LedgerClient) -> None:
    chain = Chain()
    await send(client, chain.make())
    with pytest.raises(Incident, match="other bytes"):
        await client.put_claim(chain.make(meterVersion="other").envelope)


async def test_a_wrong_claim_is_refused_with_the_reason(client: LedgerClient) -> None:
    with pytest.raises(Refused, match=r"claim\.sequence") as caught:
        await send(client, Chain().make(sequence=2))
    assert caught.value.reason == "ChainBroken"
    with pytest.raises(Invalid, match="no claim header"):
        await client.put_claim(dsse.sign([], dsse.CLAIM_TYPE, hub_key()))
    with pytest.raises(NotFound):
        await client.claim("0" * 64)


async def test_the_token_is_asked_for_each_time_and_its_rejection_is_told_apart(ledger: Ledger) -> None:
    tokens = iter(["unknown-token-0123456789", OTHER_TOKEN, HUB_TOKEN])
    claim = Chain().make()
    async with LedgerClient(ledger.url, lambda: next(tokens), attempts=3) as client:
        with pytest.raises(Unauthorised):
            await client.put_part(claim.id, 1, claim.parts[0])
        with pytest.raises(Forbidden):
            await client.put_part(claim.id, 1, claim.parts[0])
        await client.put_part(claim.id, 1, claim.parts[0])


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_busy_ledger_is_tried_again_and_then_given_up(status: int) -> None:
    seen = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        return web.Response(status=status, headers={"Retry-After": "7"}, text="busy")

    async with scripted(answer) as url, LedgerClient(url, attempts=3) as client:
        with pytest.raises(Transient) as caught:
            await client.totals()
    assert (seen, caught.value.retry_after) == (3, 7.0)


async def test_a_cut_connection_is_tried_again_and_can_succeed() -> None:
    seen = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        if seen < 3:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(BALANCE)

    async with scripted(answer) as url, LedgerClient(url) as client:
        assert await client.balance("a") == 5
    assert seen == 3


async def test_a_ledger_that_is_not_there_is_transient() -> None:
    async with LedgerClient("http://127.0.0.1:9", attempts=2) as client:
        with pytest.raises(Transient):
            await client.totals()


async def test_the_wait_is_never_shorter_than_the_ledger_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_WAIT", 30.0)
    times: list[float] = []

    async def answer(_: web.Request) -> web.Response:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 2:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.json_response(BALANCE)

    async with scripted(answer) as url, LedgerClient(url) as client:
        assert await client.balance("a") == 5
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"\xff", b'{"account": "a"}', b'{"account": "a", "balance": "1e3"}', b"[" * 99999],
)
async def test_nonsense_with_status_200_is_transient_and_never_a_balance(body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async with scripted(answer) as url, LedgerClient(url, attempts=1) as client:
        with pytest.raises(Transient):
            await client.balance("a")


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER", 1000)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b" " * 2000 + b"{}")

    async with scripted(answer) as url, LedgerClient(url, attempts=1) as client:
        with pytest.raises(Transient, match="more than"):
            await client.totals()


async def test_claims_go_in_batches_up_to_the_first_that_is_refused(client: LedgerClient) -> None:
    chain = Chain()
    claims = [chain.next({"a": number}, lines_per_part=1) for number in (1, 2)]
    wrong = chain.make({"a": 3}, sequence=7)
    submissions = [Submission(one.id, one.parts, one.envelope) for one in (*claims, wrong)]
    submitted = await client.submit(submissions)
    assert [receipt.leaf_index for receipt in submitted.receipts] == [0, 1]
    assert isinstance(submitted.trouble, Refused)
    assert submitted.trouble.reason == "ChainBroken"
    again = await client.submit(submissions[:2])
    assert (again.receipts, again.trouble) == (submitted.receipts, None)


async def test_a_claim_that_fills_more_than_one_batch_is_sent_in_several(
    client: LedgerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_BATCH_BYTES", 1500)
    claim = Chain().make({f"ns-{number}": 1 for number in range(9)}, lines_per_part=1)
    submission = Submission(claim.id, claim.parts, claim.envelope)
    assert len([*batch.batches([submission])]) > 3
    submitted = await client.submit([submission])
    assert (len(submitted.receipts), submitted.trouble) == (1, None)


async def test_other_parts_under_an_accepted_claim_are_an_incident(client: LedgerClient) -> None:
    claim, other = Chain().make({"a": 1}), Chain().make({"a": 2})
    await client.submit([Submission(claim.id, claim.parts, claim.envelope)])
    submitted = await client.submit([Submission(claim.id, other.parts, claim.envelope)])
    assert isinstance(submitted.trouble, Incident)
    assert submitted.trouble.reason == "PartConflict"


async def test_receipts_of_one_client_are_of_one_history(client: LedgerClient) -> None:
    chains = [Chain(home=f"home-{number}") for number in range(6)]
    await asyncio.gather(*(send(client, chain.next({"a": 1})) for chain in chains))
    head = await client.check()
    assert head.size == 6
    kept = chains[0].next({"a": 2})
    receipt = await send(client, kept)
    await client.confirm(receipt.text, kept.envelope)
    with pytest.raises(Incident, match="receipt"):
        await client.confirm(receipt.text, chains[1].make({"a": 5}).envelope)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthorised), (403, Forbidden), (404, NotFound), (409, Incident), (418, Refused), (302, Refused)],
)
async def test_other_answers_map_to_the_tree_without_a_retry(status: int, kind: type[HomefedError]) -> None:
    seen = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        return web.Response(
            status=status, headers={"Location": "/elsewhere"}, text='{"detail": "why", "reason": "Because"}'
        )

    async with scripted(answer) as url, LedgerClient(url) as client:
        with pytest.raises(kind, match="why") as caught:
            await client.totals()
    assert (seen, caught.value.reason) == (1, "Because")


async def test_a_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await LedgerClient("http://127.0.0.1:9").totals()
