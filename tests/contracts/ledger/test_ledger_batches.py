"""Batches over HTTP: one answer per item, as if it had been sent alone, whatever stands beside it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homefed.core import tlog_proof
from homefed.ledger import intake
from homefed.ledger.routes import MAX_BATCH
from testbed.claims import ZERO_DIGEST, Chain, SignedClaim, SignedDocument, floor, resolution
from testbed.ledger import HUB_TOKEN, Ledger

Item = dict[str, Any]
TOKEN = {"Authorization": f"Bearer {HUB_TOKEN}"}


def leaf(document: SignedClaim | SignedDocument) -> Item:
    return {"kind": document.kind, "id": document.id, "envelope": document.envelope.to_json()}


def parts(claim: SignedClaim) -> list[Item]:
    return [
        {"kind": "part", "claim": claim.id, "part": number, "document": json.loads(body)}
        for number, body in enumerate(claim.parts, 1)
    ]


async def post(ledger: Ledger, *items: Item) -> list[Item]:
    status, body = await ledger.send("POST", "/v1/batch", json.dumps({"items": items}).encode(), **TOKEN)
    assert status == 200, body
    return list(json.loads(body)["items"])


def statuses(answers: list[Item]) -> list[int]:
    return [answer["status"] for answer in answers]


async def test_a_whole_chain_with_its_parts_goes_in_one_request(ledger: Ledger) -> None:
    chain = Chain()
    claims = [chain.next({"a": amount, "b": 1}, lines_per_part=1) for amount in (5, 6, 7)]
    answers = await post(ledger, *(item for claim in claims for item in [*parts(claim), leaf(claim)]))
    assert statuses(answers) == [201] * 9
    given = [answer for answer in answers if "receipt" in answer]
    for number, (claim, answer) in enumerate(zip(claims, given, strict=True)):
        assert tlog_proof.verify(answer["receipt"], claim.body, ledger.vkey).index == number
        alone = json.loads((await ledger.put(f"/v1/claims/{claim.id}", claim.body))[1])
        assert answer == alone | {"status": 201}


async def test_each_item_is_answered_by_itself(ledger: Ledger) -> None:
    chain = Chain()
    first = chain.next({"a": 5})
    broken = chain.make({"a": 5}, sequence=7)
    lonely = Chain(home="home-2").make({"a": 1})
    other = Chain().make({"a": 999})
    answers = await post(
        ledger,
        *parts(first),
        leaf(first),
        leaf(first),
        *parts(broken),
        leaf(broken),
        leaf(lonely),
        leaf(other),
        leaf(resolution(first.id, "post")),
        leaf(floor("a", -100)),
    )
    assert statuses(answers) == [201, 201, 200, 201, 422, 422, 409, 422, 201]
    reasons = [answer.get("reason") for answer in answers]
    assert reasons == [None, None, None, None, "ChainBroken", "PartMissing", "ClaimConflict", "NotPending", None]
    assert answers[4]["field"] == "claim.sequence"
    assert answers[1] == answers[2] | {"status": 201}
    assert json.loads((await ledger.get("/v1/totals"))[1])["size"] == 2


async def test_32_clients_with_one_batch_write_it_once(ledger: Ledger) -> None:
    claim = Chain().next({"a": 5})
    answers = await asyncio.gather(*(post(ledger, *parts(claim), leaf(claim)) for _ in range(32)))
    assert sorted(answer[1]["status"] for answer in answers) == [200] * 31 + [201]
    assert len({answer[1]["receipt"] for answer in answers}) == 1
    assert json.loads((await ledger.get("/v1/totals"))[1])["size"] == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 422, None),
        (b"[]", 422, None),
        (b'{"items": []}', 422, "batch.items"),
        (b'{"items": [{"kind": "coin"}]}', 422, "batch.items.0"),
        (b'{"items": [{"kind": "claim", "id": "x", "envelope": {}}]}', 422, "batch.items.0.claim.id"),
        (json.dumps({"items": [{"kind": "floor", "id": ZERO_DIGEST, "envelope": {}}] * 257}).encode(), 422, None),
        (b" " * (MAX_BATCH + 1), 413, None),
    ],
)
async def test_what_is_no_batch_is_refused_as_a_whole(
    ledger: Ledger, body: bytes, status: int, field: str | None
) -> None:
    answered, content = await ledger.send("POST", "/v1/batch", body, **TOKEN)
    assert answered == status
    assert field is None or json.loads(content)["field"] == field


async def test_a_full_queue_tells_when_to_come_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.intake, "_most", 1)
    claim = Chain().next({"a": 5})
    body = json.dumps({"items": [*parts(claim), leaf(claim)]}).encode()
    async with ledger.session.post(f"{ledger.url}/v1/batch", data=body, headers=TOKEN) as answer:
        assert (answer.status, int(answer.headers["Retry-After"])) == (429, max(1, int(intake.RETRY_SECONDS)))
        assert (await answer.json(content_type=None))["reason"] == "QueueFull"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "1e3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
items = st.fixed_dictionaries(
    {"kind": st.sampled_from(["claim", "resolution", "floor", "part", "x"])},
    optional={
        "id": st.sampled_from([ZERO_DIGEST, "x"]) | json_values,
        "claim": st.just(ZERO_DIGEST) | json_values,
        "part": st.integers(0, 1001) | json_values,
        "envelope": st.dictionaries(st.sampled_from(["payload", "payloadType", "signatures"]), json_values)
        | json_values,
        "document": st.dictionaries(st.sampled_from(["claim", "part", "salt", "lines"]), json_values) | json_values,
    },
)


async def test_whatever_is_in_a_batch_nothing_is_a_5xx_and_nothing_is_written(ledger: Ledger) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None)
    @given(st.lists(items, max_size=4) | json_values)
    def post_any(value: Any) -> None:
        body = json.dumps({"items": value}).encode()
        sent = asyncio.run_coroutine_threadsafe(ledger.send("POST", "/v1/batch", body, **TOKEN), loop)
        status, answer = sent.result(20)
        assert status in (200, 413, 422), answer
        if status == 200:
            assert all(400 <= item["status"] < 500 for item in json.loads(answer)["items"]), answer

    await asyncio.to_thread(post_any)
    assert json.loads((await ledger.get("/v1/totals"))[1])["size"] == 0
