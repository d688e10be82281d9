"""The ledger over HTTP: once for ever, the right status with the right field, and never a 5xx for what is sent."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.api.claim_document import MAX_PART
from homefed.api.ledger_documents import MAX_LEAF
from homefed.core import ledger_batch, tlog_proof
from homefed.core.ledger_batch import PART_SECONDS
from testbed.claims import POOL, ZERO_DIGEST, Chain, SignedClaim, hub_key, line, part, public
from testbed.ledger import Ledger


def problem(answer: tuple[int, bytes]) -> tuple[int, str, str | None]:
    """Status, reason and field of a problem document."""
    status, body = answer
    document = json.loads(body)
    assert document["status"] == status
    assert document["type"] == f"urn:homefed:problem:{document['reason']}"
    assert document["title"]
    assert document["detail"]
    return status, document["reason"], document.get("field")


async def claims_held(ledger: Ledger) -> int:
    status, body = await ledger.get("/v1/totals")
    document = json.loads(body)
    assert status == 200
    assert document["conserved"] is True
    return int(document["claims"])


async def test_a_claim_is_accepted_once_and_answered_with_the_same_receipt_for_ever(ledger: Ledger) -> None:
    claim = Chain().next()
    status, receipt = await ledger.submit(claim)
    assert status == 201
    document = json.loads(receipt)
    assert tlog_proof.verify(document.pop("receipt"), claim.body, ledger.vkey).index == 0
    assert document == {"id": claim.id, "leafIndex": 0, "transaction": 1, "time": "2026-01-01T00:00:00Z"}
    ledger.clock.now += 1000
    assert await ledger.submit(claim) == (200, receipt)
    spaced = json.dumps(claim.envelope.to_json(), indent=2).encode()
    assert await ledger.put(f"/v1/claims/{claim.id}", spaced) == (200, receipt)
    assert await claims_held(ledger) == 1


async def test_32_clients_with_one_id_get_one_claim_and_one_receipt(ledger: Ledger) -> None:
    claim = Chain().next()
    await ledger.put(f"/v1/claims/{claim.id}/lines/1", claim.parts[0])
    answers = await asyncio.gather(*(ledger.put(f"/v1/claims/{claim.id}", claim.body) for _ in range(32)))
    assert sorted(status for status, _ in answers) == [200] * 31 + [201]
    assert len({body for _, body in answers}) == 1
    assert await claims_held(ledger) == 1


async def test_other_bytes_under_a_known_id_are_a_conflict_whatever_they_say(ledger: Ledger) -> None:
    chain = Chain()
    other = chain.make({"ns-1": 999})
    claim = chain.next()
    _, receipt = await ledger.submit(claim)
    flipped = bytearray(claim.body)
    flipped[len(flipped) // 2] ^= 1
    foreign_key = dsse.sign(claim.header, dsse.CLAIM_TYPE, hub_key(2))
    for body in (other.body, bytes(flipped), b"", b"null", b"[" * 9999, canonical(foreign_key.to_json())):
        assert problem(await ledger.put(f"/v1/claims/{claim.id}", body)) == (409, "ClaimConflict", None)
    assert problem(await ledger.put(f"/v1/claims/{claim.id}/lines/1", other.parts[0]))[:2] == (409, "PartConflict")
    assert problem(await ledger.put(f"/v1/claims/{claim.id}/lines/2", part(claim.id, 2, [line("a", 1)])))[0] == 409
    assert (await ledger.put(f"/v1/claims/{claim.id}/lines/1", claim.parts[0]))[0] == 200
    assert await ledger.put(f"/v1/claims/{claim.id}", claim.body) == (200, receipt)


async def test_a_retry_is_answered_though_the_key_has_been_retired_since(ledger: Ledger) -> None:
    claim = Chain().next()
    _, receipt = await ledger.submit(claim)
    (ledger.hub_keys / "hub.pub").write_bytes(base64.b64encode(public(hub_key(2))))
    successor = Chain(home="home-2", key=hub_key(2)).next()
    assert (await ledger.submit(successor))[0] == 201
    assert await ledger.put(f"/v1/claims/{claim.id}", claim.body) == (200, receipt)
    retired = Chain(home="home-3").next()
    assert problem(await ledger.submit(retired)) == (422, "UnknownKey", "signatures.0.keyid")


async def test_a_key_that_is_published_later_is_found_without_a_restart(ledger: Ledger) -> None:
    claim = Chain(key=hub_key(3)).make()
    assert problem(await ledger.submit(claim))[1] == "UnknownKey"
    (ledger.hub_keys / "hub-3.pub").write_bytes(base64.b64encode(public(hub_key(3))) + b"\n")
    (ledger.hub_keys / "broken.pub").write_bytes(b"not a key")
    assert (await ledger.submit(claim))[0] == 201


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"sequence": 2}, "ChainBroken", "claim.sequence"),
        ({"previousDigest": ZERO_DIGEST}, "ChainBroken", "claim.previousDigest"),
        ({"charged": "-1"}, "InvalidField", "claim.charged"),
        ({"charged": "1e3"}, "InvalidField", "claim.charged"),
        ({"paid": str(2**63)}, "NotConserved", "claim.charged"),
        ({"released": "1"}, "NotHeld", "claim.released"),
        ({"parts": [ZERO_DIGEST]}, "PartDiffers", "claim.parts.0"),
        ({"hostname": "attic"}, "InvalidField", "claim.hostname"),
        ({"federation": "other"}, "WrongFederation", "claim.federation"),
    ],
)
async def test_a_wrong_header_is_a_422_that_names_the_field_and_writes_nothing(
    ledger: Ledger, changes: dict[str, Any], reason: str, field: str
) -> None:
    claim = Chain().make({"ns-1": 1000}, **changes)
    assert problem(await ledger.submit(claim)) == (422, reason, field)
    assert await claims_held(ledger) == 0
    right = Chain().make({"ns-1": 1000})
    assert (await ledger.submit(right))[0] == 201


async def test_a_header_before_its_parts_is_refused_and_accepted_once_they_are_there(ledger: Ledger) -> None:
    claim = Chain().make({"a": 1, "b": 2}, lines_per_part=1)
    assert problem(await ledger.put(f"/v1/claims/{claim.id}", claim.body)) == (422, "PartMissing", "claim.parts.0")
    await ledger.put(f"/v1/claims/{claim.id}/lines/1", claim.parts[0])
    assert problem(await ledger.put(f"/v1/claims/{claim.id}", claim.body)) == (422, "PartMissing", "claim.parts.1")
    assert (await ledger.submit(claim))[0] == 201


async def test_an_amount_of_2_to_the_53_and_more_is_exact_and_64_bits_are_never_exceeded(ledger: Ledger) -> None:
    chain = Chain()
    assert (await ledger.submit(chain.next({"a": 2**53 + 1})))[0] == 201
    for _ in range(3):
        assert (await ledger.submit(chain.next({"a": 2**60})))[0] == 201
    assert problem(await ledger.submit(chain.make({"a": 2**60})))[:2] == (422, "AmountRange")
    other = Chain(home="home-2")
    assert problem(await ledger.submit(other.make({"a": 2**60})))[:2] == (422, "BalanceRange")
    _, body = await ledger.get(f"/v1/accounts/{chain.account}/balance")
    assert json.loads(body)["balance"] == str(3 * 2**60 + 2**53 + 1)


async def test_parts_are_kept_24_hours_for_a_claim_that_may_come(ledger: Ledger) -> None:
    claim, other = Chain().make(), Chain(home="home-2").make()
    await ledger.put(f"/v1/claims/{claim.id}/lines/1", claim.parts[0])
    ledger.clock.now += PART_SECONDS + 1
    await ledger.put(f"/v1/claims/{other.id}/lines/1", other.parts[0])
    assert problem(await ledger.put(f"/v1/claims/{claim.id}", claim.body))[1] == "PartMissing"
    assert (await ledger.put(f"/v1/claims/{other.id}", other.body))[0] == 201


async def test_waiting_parts_are_bounded_and_the_sender_is_told_when_to_come_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_batch, "MAX_PENDING_PARTS", 1)
    claim, other = Chain().make(), Chain(home="home-2").make()
    assert (await ledger.put(f"/v1/claims/{claim.id}/lines/1", claim.parts[0]))[0] == 201
    assert problem(await ledger.put(f"/v1/claims/{other.id}/lines/1", other.parts[0]))[:2] == (429, "PartsFull")
    assert (await ledger.put(f"/v1/claims/{claim.id}/lines/1", claim.parts[0]))[0] == 200
    assert (await ledger.put(f"/v1/claims/{claim.id}", claim.body))[0] == 201
    assert (await ledger.put(f"/v1/claims/{other.id}/lines/1", other.parts[0]))[0] == 201


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/claims/{ZERO_DIGEST}",
        "/v1/claims/xyz",
        f"/v1/chains/{POOL}/contributor:example/home-1",
        "/v1/chains/%20/contributor:example/home-1",
        "/v1/accounts/nobody/balance",
        "/v1/accounts/consumer:example/a'b/statement",
        "/nowhere",
    ],
)
async def test_what_is_not_there_is_a_404_problem(ledger: Ledger, path: str) -> None:
    assert problem(await ledger.get(path))[0] == 404


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "before=1e9", "prefix=%27", "prefix=%00", "after=%F0%9F"])
async def test_a_wrong_query_is_a_422_that_names_it(ledger: Ledger, query: str) -> None:
    base = "/v1/accounts" if "before" not in query else "/v1/accounts/consumer:example/a/statement"
    assert problem(await ledger.get(f"{base}?{query}"))[::2] == (422, query.partition("=")[0])


async def test_bodies_are_bounded(ledger: Ledger) -> None:
    too_long = b"x" * (MAX_LEAF + 1)
    assert problem(await ledger.put(f"/v1/claims/{ZERO_DIGEST}", too_long))[0] == 413
    assert problem(await ledger.put(f"/v1/claims/{ZERO_DIGEST}/lines/1", b"x" * (MAX_PART + 1)))[0] == 413
    assert problem(await ledger.put(f"/v1/claims/{ZERO_DIGEST}/lines/101", b"{}"))[::2] == (422, "part")
    assert problem(await ledger.put("/v1/totals", b"{}"))[0] == 405


async def test_health_readiness_and_metrics(ledger: Ledger) -> None:
    await ledger.submit(Chain().make())
    assert (await ledger.get("/healthz"))[0] == 200
    assert (await ledger.get("/readyz"))[0] == 200
    text = (await ledger.get("/metrics"))[1].decode()
    assert 'homefed_ledger_accepted_total{kind="claim"} 1.0' in text
    assert 'homefed_ledger_requests_total{route="/v1/claims/{claim}",status="201"} 1.0' in text
    ledger.writer.stop()
    assert (await ledger.get("/healthz"))[0] == 200
    assert (await ledger.get("/readyz"))[0] == 503
    assert problem(await ledger.put(f"/v1/claims/{ZERO_DIGEST}", b"{}"))[:2] == (503, "Stopping")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["-1", "1e3", "NaN", str(2**63), "\ud800", "0" * 64]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def mutated(claim: SignedClaim) -> st.SearchStrategy[bytes]:
    """Bodies that are nearly right: a member of the header replaced by anything and signed again, or bytes changed."""

    def sign(change: tuple[str, Any]) -> bytes:
        document = json.dumps(claim.header | {change[0]: change[1]}).encode()
        key = hub_key()
        signature = key.sign(dsse.pre_authentication(dsse.CLAIM_TYPE, document))
        envelope = dsse.Envelope(dsse.CLAIM_TYPE, document, dsse.fingerprint(public(key)), signature)
        return json.dumps(envelope.to_json()).encode()

    def cut(at: tuple[int, int]) -> bytes:
        return claim.body[: at[0]] + bytes([at[1]]) + claim.body[at[0] + 1 :]

    members = st.sampled_from([*claim.header, "extra"])
    positions = st.tuples(st.integers(0, len(claim.body) - 1), st.integers(0, 255))
    return (
        st.tuples(members, json_values).map(sign)
        | positions.map(cut)
        | st.binary(max_size=300)
        | json_values.map(lambda value: json.dumps(value).encode())
    )


def mutated_part(body: bytes) -> st.SearchStrategy[bytes]:
    def change(where: tuple[str, Any]) -> bytes:
        document = json.loads(body)
        target = document["lines"][0] if where[0] in document["lines"][0] else document
        target[where[0]] = where[1]
        return json.dumps(document).encode()

    names = st.sampled_from([*json.loads(body), *json.loads(body)["lines"][0], "extra"])
    return st.tuples(names, json_values).map(change) | st.binary(max_size=300)


async def test_whatever_is_sent_the_answer_is_a_4xx_and_nothing_is_written(ledger: Ledger) -> None:
    claim = Chain().make()
    loop = asyncio.get_running_loop()

    def put(path: str, body: bytes) -> None:
        status, answer = asyncio.run_coroutine_threadsafe(ledger.put(path, body), loop).result(10)
        assert status in (413, 422), (status, answer)

    @settings(max_examples=300, deadline=None)
    @given(mutated(claim))
    def claims(body: bytes) -> None:
        if body != claim.body:
            put(f"/v1/claims/{claim.id}", body)

    @settings(max_examples=200, deadline=None)
    @given(mutated_part(claim.parts[0]))
    def parts(body: bytes) -> None:
        if body != claim.parts[0]:
            put(f"/v1/claims/{claim.id}/lines/1", body)

    await asyncio.to_thread(parts)
    await ledger.put(f"/v1/claims/{claim.id}/lines/1", claim.parts[0])
    await asyncio.to_thread(claims)
    assert await claims_held(ledger) == 0
    assert (await ledger.put(f"/v1/claims/{claim.id}", claim.body))[0] == 201
