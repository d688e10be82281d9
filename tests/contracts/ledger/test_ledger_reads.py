"""What the ledger answers to people and programs: documents as they were signed, statements that add up, proofs."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from homefed.api import dsse
from homefed.api.canonical import canonical
from homefed.core import checkpoint as checkpoints
from homefed.core import tlog_proof
from homefed.core.ledger_reading import read_header
from homefed.core.merkle import check_consistency, check_inclusion, leaf_hash
from testbed.claims import POOL, ZERO_DIGEST, Chain, SignedClaim, SignedDocument, floor, hub_key, keyring, resolution
from testbed.ledger import HUB_TOKEN, Ledger

CONSUMER = "consumer:example/a"


async def read(ledger: Ledger, path: str, token: str | None = None) -> dict[str, Any]:
    status, body = await ledger.get(path, token)
    assert status == 200, body
    return dict(json.loads(body))


async def accept(ledger: Ledger, document: SignedClaim | SignedDocument) -> dict[str, Any]:
    """Submit it; the answer, which must be 201."""
    if isinstance(document, SignedClaim):
        status, body = await ledger.submit(document)
    else:
        status, body = await ledger.put(f"/v1/{document.kind}s/{document.id}", document.body)
    assert status == 201, body
    return dict(json.loads(body))


async def statement(ledger: Ledger, account: str, query: str = "") -> dict[str, Any]:
    return await read(ledger, f"/v1/accounts/{account}/statement{query}", HUB_TOKEN)


async def test_anybody_reads_a_claim_as_it_was_signed_with_its_receipt(ledger: Ledger) -> None:
    chain = Chain()
    first = chain.next({"a": 500, "b": 300}, held=80, fee=20, dust=1)
    second = chain.next({"a": 50})
    for number, claim in enumerate((first, second)):
        given = await accept(ledger, claim)
        document = await read(ledger, f"/v1/claims/{claim.id}")
        assert canonical(document.pop("envelope")) == claim.body
        assert document == given | {"kind": "claim", "digest": claim.digest, "state": "posted"}
        assert tlog_proof.verify(document["receipt"], claim.body, ledger.vkey).index == number


async def test_a_restored_hub_finds_the_newest_claim_and_any_place_of_a_chain(ledger: Ledger) -> None:
    chain = Chain()
    claims = [chain.next({"a": amount}) for amount in (1, 2, 3)]
    for claim in claims:
        await accept(ledger, claim)
    path = f"/v1/chains/{POOL}/{chain.account}"
    newest = await read(ledger, path)
    assert (newest["claim"], newest["sequence"], newest["digest"]) == (claims[2].id, 3, claims[2].digest)
    assert newest["cumulativePaid"] == "6"
    assert read_header(dsse.from_json(newest["envelope"]), keyring(hub_key())).id == claims[2].id
    second = await read(ledger, f"{path}?sequence=2")
    assert (second["claim"], second["sequence"], second["cumulativePaid"]) == (claims[1].id, 2, "3")
    assert (await ledger.get(f"{path}?sequence=4"))[0] == 404
    assert (await ledger.get(f"{path}?sequence=0"))[0] == 422


async def test_balances_and_totals_are_public_and_agree(ledger: Ledger) -> None:
    chain = Chain()
    await accept(ledger, chain.next({"a": 500, "b": 300}, held=80, fee=20, dust=1))
    await accept(ledger, chain.next({"a": 50}))
    page = await read(ledger, "/v1/accounts?prefix=consumer:&limit=1")
    usage = str(-550 * 3600 * 10**6)
    listed = {"account": CONSUMER, "balance": "-550", "balances": {"reserved:ucore.s": usage, "ucredit": "-550"}}
    assert page == {"size": 2, "accounts": [listed], "next": CONSUMER}
    assert (await read(ledger, f"/v1/accounts?prefix=consumer:&after={CONSUMER}"))["next"] is None
    assert await read(ledger, f"/v1/accounts/{CONSUMER.replace('/', '%2F')}/balance") == listed
    nobody = "consumer:example/nobody"
    assert await read(ledger, f"/v1/accounts/{nobody}/balance") == {"account": nobody, "balance": "0", "balances": {}}
    totals = await read(ledger, "/v1/totals")
    assert totals.pop("units")["reserved:ucore.s"]["contributor"] == str(850 * 3600 * 10**6)
    assert totals == {
        "size": 2,
        "claims": 2,
        "charged": "850",
        "sums": {"charged": "850", "paid": "749", "held": "80", "released": "0", "fee": "20", "dust": "1"},
        "accounts": {"consumer": "-850", "contributor": "749", "dust": "1", "fee": "20", "held": "80"},
        "supply": "850",
        "conserved": True,
    }


async def test_a_statement_adds_up_and_goes_on_page_by_page(ledger: Ledger) -> None:
    chain = Chain()
    first = chain.next({"a": 500, "b": 300}, held=80, fee=20, dust=1)
    second = chain.next({"a": 50})
    for claim in (first, second):
        await accept(ledger, claim)
    page = await statement(ledger, chain.account, "?limit=1")
    money = {key: page[key] for key in ("balance", "due", "charged", "paid", "held", "released", "dust", "pending")}
    assert money == {
        "balance": "749",
        "due": "749",
        "charged": "850",
        "paid": "749",
        "held": "80",
        "released": "0",
        "dust": "1",
        "pending": "0",
    }
    assert page["usage"] == {"reserved:ucore.s": str(850 * 3600 * 10**6)}
    assert {(entry["unit"], entry["claim"]) for entry in page["entries"]} == {
        ("ucredit", second.id),
        ("reserved:ucore.s", second.id),
    }
    rest = await statement(ledger, chain.account, f"?limit=1&before={page['next']}")
    assert {entry["claim"] for entry in rest["entries"]} == {first.id}
    assert (rest["entries"][0]["pool"], rest["entries"][0]["windowStart"]) == (POOL, first.header["windowStart"])
    own = await statement(ledger, CONSUMER)
    assert (own["balance"], own["due"], own["charged"], own["next"]) == ("-550", "550", "550", None)
    assert own["usage"] == {"reserved:ucore.s": str(550 * 3600 * 10**6)}


@pytest.mark.parametrize(("outcome", "state", "due"), [("post", "posted", "70"), ("void", "void", "0")])
async def test_a_disputed_claim_is_pending_until_it_is_resolved_once(
    ledger: Ledger, outcome: Any, state: str, due: str
) -> None:
    chain = Chain()
    claim = chain.next({"a": 70}, phase="pending")
    await accept(ledger, claim)
    before = await statement(ledger, CONSUMER)
    assert (before["due"], before["pending"]) == ("0", "70")
    assert (await read(ledger, f"/v1/claims/{claim.id}"))["state"] == "pending"
    decided = resolution(claim.id, outcome)
    given = await accept(ledger, decided)
    assert tlog_proof.verify(given["receipt"], decided.body, ledger.vkey).index == 1
    after = await statement(ledger, CONSUMER)
    assert (after["due"], after["pending"]) == (due, "0")
    assert (await read(ledger, f"/v1/claims/{claim.id}"))["state"] == state
    assert (await read(ledger, f"/v1/resolutions/{decided.id}"))["kind"] == "resolution"
    other = resolution(claim.id, "void" if outcome == "post" else "post")
    status, body = await ledger.put(f"/v1/resolutions/{other.id}", other.body)
    assert (status, json.loads(body)["reason"]) == (409, "ResolutionConflict")
    assert (await ledger.put(f"/v1/resolutions/{decided.id}", decided.body))[0] == 200


async def test_a_reversal_takes_a_claim_back_and_both_stay(ledger: Ledger) -> None:
    chain = Chain()
    claim = chain.next({"a": 70})
    await accept(ledger, claim)
    await accept(ledger, chain.advance(chain.reversal(claim)))
    assert (await read(ledger, f"/v1/claims/{claim.id}"))["state"] == "reversed"
    own = await statement(ledger, CONSUMER)
    assert (own["due"], own["usage"]) == ("0", {"reserved:ucore.s": "0"})
    assert len(own["entries"]) == 4


async def test_a_floor_stops_what_would_go_below_it(ledger: Ledger) -> None:
    await accept(ledger, floor("a", -100))
    chain = Chain()
    await accept(ledger, chain.next({"a": 70}))
    claim = chain.make({"a": 40})
    status, body = await ledger.submit(claim)
    document = json.loads(body)
    assert (status, document["reason"], document["field"]) == (422, "BelowFloor", "claim.consumers.0.charged")
    await accept(ledger, floor("a", None, 2))
    await accept(ledger, claim)


async def test_an_id_of_one_kind_is_not_found_as_another(ledger: Ledger) -> None:
    limit = floor("a", -100)
    await accept(ledger, limit)
    assert (await read(ledger, f"/v1/floors/{limit.id}"))["leafIndex"] == 0
    assert (await ledger.get(f"/v1/claims/{limit.id}"))[0] == 404
    assert (await ledger.get(f"/v1/resolutions/{limit.id}"))[0] == 404


async def test_proofs_verify_against_the_checkpoints_that_are_served(ledger: Ledger) -> None:
    chain, heads, bodies = Chain(), [], []
    for amount in range(1, 6):
        claim = chain.next({"a": amount})
        await accept(ledger, claim)
        bodies.append(claim.body)
        heads.append(checkpoints.verify((await ledger.get("/checkpoint"))[1].decode(), ledger.vkey))
    newest = heads[-1]
    for index, body in enumerate(bodies):
        proof = await read(ledger, f"/v1/proofs/inclusion?leaf={index}")
        hashes = [base64.b64decode(text) for text in proof["hashes"]]
        assert (proof["leafIndex"], proof["treeSize"]) == (index, newest.size)
        check_inclusion(leaf_hash(body), index, newest.size, hashes, newest.root)
    for older in heads:
        proof = await read(ledger, f"/v1/proofs/consistency?first={older.size}&second={newest.size}")
        hashes = [base64.b64decode(text) for text in proof["hashes"]]
        check_consistency(older.size, older.root, newest.size, newest.root, hashes)


@pytest.mark.parametrize(
    "query",
    [
        "inclusion",
        "inclusion?leaf=1",
        "inclusion?leaf=0&size=2",
        "inclusion?leaf=-1",
        "inclusion?leaf=99999999999999999999",
        "consistency?second=1",
        "consistency?first=0",
        "consistency?first=2&second=1",
        "consistency?first=1&second=2",
    ],
)
async def test_a_proof_of_what_is_not_there_is_a_422_that_names_the_parameter(ledger: Ledger, query: str) -> None:
    await accept(ledger, Chain().make())
    status, body = await ledger.get(f"/v1/proofs/{query}")
    assert (status, json.loads(body)["reason"]) == (422, "InvalidQuery")
    assert json.loads(body)["field"] in ("leaf", "size", "first", "second")


async def test_the_key_is_the_one_that_checkpoints_verify_with(ledger: Ledger) -> None:
    key = await read(ledger, "/v1/key")
    assert key["verifier"] == ledger.vkey.text()
    assert key["origin"] == "homefed.io/ledger/example"
    assert dsse.fingerprint(base64.b64decode(key["publicKey"])) == key["keyid"]


@pytest.mark.parametrize("kind", ["claims", "resolutions", "floors"])
async def test_a_document_that_is_not_held_is_a_404(ledger: Ledger, kind: str) -> None:
    assert (await ledger.get(f"/v1/{kind}/{ZERO_DIGEST}"))[0] == 404
