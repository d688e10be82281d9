"""Untrusted bytes: what is read is signed, canonical and agrees with itself; all else is refused, and by its field."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import dsse
from homefed.api.canonical import canonical, parse
from homefed.api.claim_document import MAX_HEADER, MAX_PART
from homefed.api.errors import Invalid
from homefed.api.ledger_documents import MAX_LEAF
from homefed.api.rate_card import Per
from homefed.core import ledger_reading
from homefed.core.ledger import MICRO_CREDIT, UNITS_OF, line_amount
from homefed.core.ledger_reading import CheckedClaim, Kind, Submission, envelope_of, read_header, read_part
from homefed.core.merkle import leaf_hash
from testbed.claims import (
    FEDERATION,
    ZERO_DIGEST,
    Chain,
    SignedClaim,
    SignedDocument,
    floor,
    hub_key,
    keyring,
    line,
    part,
    public,
    resolution,
)
from testbed.memory_ledger import reading


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Reason, and the field that the message begins with."""
    with pytest.raises(Invalid) as caught:
        call()
    return caught.value.reason, caught.value.message.partition(":")[0]


def refused(document: SignedClaim | SignedDocument) -> tuple[str, str]:
    kind: Any = document.kind
    content = reading(kind, document.id, document.body).content
    assert isinstance(content, Invalid), content
    return content.reason, content.message.partition(":")[0]


def test_a_claim_is_read_with_what_it_moves_and_the_bytes_that_become_its_leaf() -> None:
    claim = Chain().make({"a": 5})
    read = reading("claim", claim.id, b" " + claim.body + b"\n")
    assert isinstance(read.content, CheckedClaim)
    assert (read.envelope, read.leaf_hash, read.digest) == (claim.body, leaf_hash(claim.body), claim.digest)
    assert read.content.header.dump() == claim.header
    assert (read.content.sums.charged, len(read.content.transfers)) == (5, 4)


def test_what_was_read_travels_between_processes() -> None:
    claim = Chain().make()
    for read in (reading("claim", claim.id, claim.body), reading("claim", ZERO_DIGEST, claim.body)):
        again: Submission = pickle.loads(pickle.dumps(read))  # noqa: S301 - our own bytes
        assert (again.kind, again.id, again.envelope) == (read.kind, read.id, read.envelope)
        assert str(again.content) == str(read.content)
        assert getattr(again.content, "reason", "") == getattr(read.content, "reason", "")


def test_an_invalid_document_keeps_its_bytes_so_that_its_id_can_be_looked_up_first() -> None:
    claim = Chain(key=hub_key(2)).make()
    read = reading("claim", claim.id, claim.body)
    assert isinstance(read.content, Invalid)
    assert (read.id, read.envelope, read.leaf_hash) == (claim.id, claim.body, leaf_hash(claim.body))


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"federation": "other"}, "WrongFederation", "claim.federation"),
        ({"version": 2}, "InvalidField", "claim.version"),
        ({"id": ZERO_DIGEST}, "WrongId", "claim.id"),
        ({"revision": 1}, "WrongId", "claim.id"),
        ({"revision": -1}, "InvalidField", "claim.revision"),
        ({"pool": "Evening"}, "InvalidField", "claim.pool"),
        ({"windowStart": "2026-01-01T00:00:00+00:00"}, "InvalidTime", "claim.windowStart"),
        ({"windowStart": "yesterday"}, "InvalidTime", "claim.windowStart"),
        ({"windowEnd": "2026-02-30T00:00:00Z"}, "InvalidTime", "claim.windowEnd"),
        ({"windowEnd": "2026-01-01T00:00:00Z"}, "EmptyWindow", "claim.windowEnd"),
        ({"account": "held:example/home-1"}, "WrongId", "claim.id"),
        ({"sequence": 0}, "InvalidField", "claim.sequence"),
        ({"sequence": True}, "InvalidField", "claim.sequence"),
        ({"previousDigest": "A" * 64}, "InvalidField", "claim.previousDigest"),
        ({"phase": "disputed"}, "InvalidField", "claim.phase"),
        ({"phase": "pending", "released": "1"}, "NotReleasable", "claim.released"),
        ({"reverses": "x"}, "InvalidField", "claim.reverses"),
        ({"reverses": ZERO_DIGEST}, "WrongRevision", "claim.reverses"),
        ({"reverses": ZERO_DIGEST, "phase": "pending"}, "WrongPhase", "claim.phase"),
        ({"charged": "1001"}, "NotConserved", "claim.charged"),
        ({"paid": "999"}, "NotConserved", "claim.charged"),
        ({"charged": str(2**60 + 1)}, "AmountRange", "claim.charged"),
        ({"charged": str(2**63)}, "AmountRange", "claim.charged"),
        ({"released": str(2**63)}, "AmountRange", "claim.released"),
        ({"cumulativePaid": str(2**63)}, "AmountRange", "claim.charged"),
        ({"podName": "web-0"}, "InvalidField", "claim.podName"),
        ({"parts": [ZERO_DIGEST] * 101}, "InvalidField", "claim.parts"),
        ({"meterVersion": None}, "InvalidField", "claim.meterVersion"),
    ],
)
def test_a_header_that_disagrees_with_itself_is_refused_by_field(
    changes: dict[str, Any], reason: str, field: str
) -> None:
    assert refused(Chain().make({"ns-1": 1000}, **changes)) == (reason, field)


def charge(
    name: str = "consumer:example/ns-1", charged: str = "1000", usage: list[Any] | None = None
) -> dict[str, Any]:
    return {"account": name, "charged": charged, "usage": usage or []}


def used(amount: str, basis: str = "reserved", unit: str = "ucore.s") -> dict[str, str]:
    return {"basis": basis, "unit": unit, "amount": amount}


@pytest.mark.parametrize(
    ("consumers", "reason", "field"),
    [
        ([], "NotConserved", "claim.charged"),
        ([charge(charged="999")], "NotConserved", "claim.charged"),
        ([charge("consumer:other/ns-1")], "WrongAccount", "claim.consumers.0.account"),
        ([charge("held:example/ns-1")], "WrongAccount", "claim.consumers.0.account"),
        ([charge("consumer:example/ns/1")], "InvalidField", "claim.consumers.0.account"),
        ([charge(charged="500")] * 2, "NotSorted", "claim.consumers"),
        ([charge("consumer:example/b", "500"), charge("consumer:example/a", "500")], "NotSorted", "claim.consumers"),
        ([charge(f"consumer:example/{n:03}", "4") for n in range(251)], "InvalidField", "claim.consumers"),
        ([charge(usage=[used("0")])], "EmptyUsage", "claim.consumers.0.usage"),
        ([charge(usage=[used("-1")])], "InvalidField", "claim.consumers.0.usage.0.amount"),
        ([charge(usage=[used("1"), used("1")])], "NotSorted", "claim.consumers.0.usage"),
        ([charge(usage=[used("1", "used"), used("1")])], "NotSorted", "claim.consumers.0.usage"),
        (
            [charge(usage=[used("1"), used("1", unit="KiB.s"), used("1", unit="byte")])],
            "NotSorted",
            "claim.consumers.0.usage",
        ),
        ([charge(usage=[used("1", unit="ucredit")])], "InvalidField", "claim.consumers.0.usage.0.unit"),
        ([charge(usage=[used("1", "given")])], "InvalidField", "claim.consumers.0.usage.0.basis"),
        ([charge(usage=[used(str(2**60 + 1))])], "AmountRange", "claim.consumers.0.usage"),
        (
            [charge("consumer:example/a", "0", [used(str(2**60))]), charge("consumer:example/b", usage=[used("1")])],
            "AmountRange",
            "claim.consumers.1.usage",
        ),
    ],
)
def test_consumers_that_do_not_fit_are_refused_by_field(consumers: list[Any], reason: str, field: str) -> None:
    assert refused(Chain().make({"ns-1": 1000}, consumers=consumers)) == (reason, field)


@pytest.mark.parametrize(
    "amount", ["-1", "1e3", "NaN", "01", "1.0", "", " 1", "1\n", "+1", "٣", "9" * 40, 1000, None, True, 1.5, ["1"], {}]
)
@pytest.mark.parametrize("field", ["charged", "paid", "held", "released", "fee", "dust", "cumulativePaid"])
def test_an_amount_is_a_natural_number_in_decimal_text_and_nothing_else(amount: object, field: str) -> None:
    chain = Chain()
    assert refused(chain.sign(chain.make().header | {field: amount})) == ("InvalidField", f"claim.{field}")


@pytest.mark.parametrize("amount", [0, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**60])
def test_amounts_up_to_2_to_the_60_are_exact(amount: int) -> None:
    claim = Chain().make({"a": amount})
    content = reading("claim", claim.id, claim.body).content
    assert isinstance(content, CheckedClaim), content
    moved = [transfer.amount for transfer in content.transfers if transfer.unit == MICRO_CREDIT]
    assert sorted(moved) == ([-amount, amount] if amount else [])
    assert read_part(claim.parts[0], claim.id, 1).amounts.get("consumer:example/a", {}).get(MICRO_CREDIT, 0) == amount


@pytest.mark.parametrize(
    ("document", "reason", "field"),
    [
        (resolution(ZERO_DIGEST, "post", federation="other"), "WrongFederation", "resolution.federation"),
        (resolution(ZERO_DIGEST, "post", claim="1" * 64), "WrongId", "resolution.id"),
        (resolution(ZERO_DIGEST, "post", outcome="maybe"), "InvalidField", "resolution.outcome"),
        (resolution(ZERO_DIGEST, "post", why="x"), "InvalidField", "resolution.why"),
        (resolution(ZERO_DIGEST, "post", key=hub_key(7)), "UnknownKey", "signatures.0.keyid"),
        (floor("a", -1, federation="other"), "WrongFederation", "floor.federation"),
        (floor("a", -1, account="consumer:example/b"), "WrongId", "floor.id"),
        (floor("a", -1, account="consumer:other/a"), "WrongAccount", "floor.account"),
        (floor("a", -1, account="contributor:example/a"), "WrongAccount", "floor.account"),
        (floor("a", 1), "InvalidField", "floor.floor"),
        (floor("a", -1, floor="-0"), "InvalidField", "floor.floor"),
        (floor("a", -1, floor="-1e3"), "InvalidField", "floor.floor"),
        (floor("a", -(2**62) - 1), "AmountRange", "floor.floor"),
        (floor("a", -(2**70)), "InvalidField", "floor.floor"),
        (floor("a", -1, sequence=0), "InvalidField", "floor.sequence"),
    ],
)
def test_a_resolution_or_a_floor_that_disagrees_with_itself_is_refused(
    document: SignedDocument, reason: str, field: str
) -> None:
    assert refused(document) == (reason, field)


@pytest.mark.parametrize("kind", ["claim", "resolution", "floor"])
def test_a_document_is_kept_under_its_own_id_and_kind_only(kind: Kind) -> None:
    documents: dict[str, SignedClaim | SignedDocument] = {}
    documents |= {"claim": Chain().make(), "resolution": resolution(ZERO_DIGEST, "void"), "floor": floor("a", None)}
    for name, document in documents.items():
        as_sent = reading(kind, document.id, document.body).content
        if name == kind:
            assert not isinstance(as_sent, Invalid)
            moved = reading(kind, "f" * 64, document.body).content
            assert isinstance(moved, Invalid)
            assert (moved.reason, moved.message.partition(":")[0]) == ("WrongId", f"{kind}.id")
        else:
            assert isinstance(as_sent, Invalid)
            assert (as_sent.reason, as_sent.message.partition(":")[0]) == ("WrongType", "payloadType")


def padded(length: int) -> bytes:
    """A good claim's body with spaces up to `length` bytes."""
    return Chain().make().body.ljust(length)


def test_a_body_of_65_535_bytes_is_read_and_one_of_65_536_is_not() -> None:
    assert len(padded(MAX_LEAF)) == 65_535
    claim = Chain().make()
    assert isinstance(reading("claim", claim.id, padded(MAX_LEAF)).content, CheckedClaim)
    assert refusal(lambda: envelope_of(padded(MAX_LEAF + 1)))[0] == "TooLarge"


def test_the_largest_header_makes_a_leaf_that_an_entry_bundle_can_hold() -> None:
    header = Chain().make().header
    room = MAX_HEADER - len(canonical(header))
    largest = Chain().sign(header | {"evidenceDigest": "e" * room})
    assert len(largest.envelope.payload) == MAX_HEADER
    assert len(largest.body) <= MAX_LEAF
    assert refusal(lambda: read_header(largest.envelope, keyring(hub_key()))) == (
        "InvalidField",
        "claim.evidenceDigest",
    )
    over = Chain().sign(header | {"evidenceDigest": "e" * (room + 1)})
    assert refusal(lambda: read_header(over.envelope, keyring(hub_key()))) == ("TooLarge", "payload")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b'{"payload":1}',
        b'{"payloadType":"a","payload":"","signatures":[]}',
        b'{"payloadType":"a","payload":"","signatures":[{"keyid":"","sig":"","cert":""}]}',
        b'{"payloadType":"a","payload":"","signatures":[{"keyid":"","sig":""}],"x":1}',
        b'{"payloadType":"a","payload":"","payload":"","signatures":[{"keyid":"","sig":""}]}',
        b'{"payloadType":"a","payload":NaN,"signatures":[{"keyid":"","sig":""}]}',
        b'{"payloadType":"a","payload":"\\ud800","signatures":[{"keyid":"","sig":""}]}',
        b'{"payloadType":"a","payload":"","signatures":"ab"}',
        b'{"payloadType":1,"payload":"","signatures":[{"keyid":"","sig":""}]}',
        b'{"payloadType":"a","payload":"","signatures":[{"keyid":1,"sig":""}]}',
        b'{"payloadType":"a","payload":"e30","signatures":[{"keyid":"","sig":""}]}',
        b'{"payloadType":"a","payload":"e30=\\n","signatures":[{"keyid":"","sig":""}]}',
        b'{"payloadType":"\\ud800","payload":"","signatures":[{"keyid":"","sig":""}]}',
        b"[" * 60_000,
        b"\xff\xfe",
    ],
)
def test_a_body_that_is_no_envelope_is_refused(body: bytes) -> None:
    read = reading("claim", ZERO_DIGEST, body)
    assert isinstance(read.content, Invalid)
    assert read.content.reason in ("NotAnEnvelope", "NotJSON")
    assert (read.envelope, read.leaf_hash, read.digest) == (b"", b"", "")


def signed_bytes(payload: bytes) -> SignedClaim:
    key = hub_key()
    signature = key.sign(dsse.pre_authentication(dsse.CLAIM_TYPE, payload))
    return SignedClaim(
        Chain().make().header, (), dsse.Envelope(dsse.CLAIM_TYPE, payload, dsse.fingerprint(public(key)), signature)
    )


def test_a_signed_payload_is_canonical_json_without_doubles() -> None:
    payload = Chain().make().envelope.payload
    assert refused(signed_bytes(payload[:-1] + b',"version":1}')) == ("NotCanonical", "payload")
    assert refused(signed_bytes(payload.replace(b'"revision":0', b'"revision":0.0'))) == ("NotCanonical", "payload")
    assert refused(signed_bytes(payload.replace(b'"revision":0', b'"revision":-0'))) == ("NotCanonical", "payload")
    assert refused(signed_bytes(payload.replace(b'"revision":0', b'"revision":NaN'))) == ("NotJSON", "payload")
    assert refused(signed_bytes(payload.replace(b":", b": "))) == ("NotCanonical", "payload")
    assert refused(signed_bytes(payload.replace(b"test", b"\\u0074est"))) == ("NotCanonical", "payload")
    assert refused(signed_bytes(b"[]")) == ("InvalidField", "claim.")
    assert refused(signed_bytes(b"\xff")) == ("NotJSON", "payload")


def test_every_changed_byte_of_the_payload_breaks_the_signature() -> None:
    claim = Chain().make()
    payload = claim.envelope.payload
    for at in range(0, len(payload), 7):
        touched = replace(claim.envelope, payload=payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :])
        assert refused(replace(claim, envelope=touched)) == ("BadSignature", "signatures.0.sig")


def test_only_a_registered_key_and_a_whole_signature_are_accepted() -> None:
    assert refused(Chain(key=hub_key(2)).make()) == ("UnknownKey", "signatures.0.keyid")
    claim = Chain().make()
    for signature in (b"", claim.envelope.signature[:-1], claim.envelope.signature + b"\0", bytes(64)):
        envelope = replace(claim.envelope, signature=signature)
        assert refused(replace(claim, envelope=envelope)) == ("BadSignature", "signatures.0.sig")


def test_a_revoked_keys_refusal_is_passed_on() -> None:
    def keys(_: str) -> dict[str, bytes]:
        raise Invalid("signatures.0.keyid: was revoked", reason="KeyRevoked")

    claim = Chain().make()
    read = ledger_reading.read_submission("claim", claim.id, claim.body, federation=FEDERATION, keys=keys)
    assert isinstance(read.content, Invalid)
    assert (read.content.reason, read.leaf_hash) == ("KeyRevoked", leaf_hash(claim.body))


def test_a_stored_header_is_read_back_from_its_leaf() -> None:
    claim = Chain().make()
    assert ledger_reading.stored_header(claim.body).dump() == claim.header


@given(st.integers(0, 10**30), st.integers(0, 10**15), st.sampled_from(list(UNITS_OF)))
def test_a_line_costs_the_floor_of_units_times_rate(accepted: int, rate: int, per: Per) -> None:
    amount = line_amount(accepted, rate, per)
    size = UNITS_OF[per][1]
    assert amount * size <= accepted * rate < (amount + 1) * size


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"amount": "11"}, "WrongAmount", "lines.lines.0.amount"),
        ({"amount": "9"}, "WrongAmount", "lines.lines.0.amount"),
        ({"accepted": "36000000001"}, "OverCapacity", "lines.lines.0.accepted"),
        ({"accepted": "-1"}, "InvalidField", "lines.lines.0.accepted"),
        ({"unit": "KiB.s"}, "WrongUnit", "lines.lines.0.unit"),
        ({"consumer": "contributor:example/x"}, "WrongAccount", "lines.lines.0.consumer"),
        ({"rate": {"microCredits": 1, "per": "fortnight"}}, "InvalidField", "lines.lines.0.rate.per"),
        ({"rate": {"microCredits": -1, "per": "core-hour"}}, "InvalidField", "lines.lines.0.rate.microCredits"),
        ({"amount": "-1"}, "InvalidField", "lines.lines.0.amount"),
        ({"podName": "web-0"}, "InvalidField", "lines.lines.0.podName"),
        (
            {
                "bound": str(2**61),
                "accepted": str(2**61),
                "amount": "0",
                "rate": {"microCredits": 0, "per": "core-hour"},
            },
            "AmountRange",
            "lines.lines.0.accepted",
        ),
    ],
)
def test_a_line_that_does_not_add_up_is_refused(changes: dict[str, Any], reason: str, field: str) -> None:
    body = part(ZERO_DIGEST, 1, [line("a", 10, **changes)])
    assert refusal(lambda: read_part(body, ZERO_DIGEST, 1)) == (reason, field)


def test_a_part_says_what_each_consumer_owes_and_used() -> None:
    free = {"rate": {"microCredits": 0, "per": "core-hour"}, "amount": "0", "basis": "used"}
    body = part(ZERO_DIGEST, 1, [line("a", 10), line("a", 2), line("b", 3, **free), line("c", 0)])
    summary = read_part(body, ZERO_DIGEST, 1)
    assert summary.amounts == {
        "consumer:example/a": {"ucredit": 12, "reserved:ucore.s": 12 * 3600 * 10**6},
        "consumer:example/b": {"used:ucore.s": 3 * 3600 * 10**6},
    }
    assert (summary.lines, summary.size) == (4, len(body))


def test_a_part_belongs_to_one_claim_and_one_number_and_is_not_empty() -> None:
    body = part(ZERO_DIGEST, 1, [line("a", 10)])
    assert refusal(lambda: read_part(body, "1" * 64, 1)) == ("WrongClaim", "lines.claim")
    assert refusal(lambda: read_part(body, ZERO_DIGEST, 2)) == ("WrongPart", "lines.part")
    assert refusal(lambda: read_part(part(ZERO_DIGEST, 1, []), ZERO_DIGEST, 1)) == ("EmptyPart", "lines.lines")
    assert refusal(lambda: read_part(part(ZERO_DIGEST, 101, [line("a", 1)]), ZERO_DIGEST, 101)) == (
        "InvalidField",
        "lines.part",
    )
    assert refusal(lambda: read_part(body + b" ", ZERO_DIGEST, 1)) == ("NotCanonical", "lines")
    assert refusal(lambda: read_part(body.ljust(MAX_PART + 1), ZERO_DIGEST, 1))[0] == "TooLarge"
    thousand_and_one = part(ZERO_DIGEST, 1, [line("a", 1)] * 1001)
    assert refusal(lambda: read_part(thousand_and_one, ZERO_DIGEST, 1)) == ("InvalidField", "lines.lines")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
CLAIM = Chain().make()
PART = CLAIM.parts[0]


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_any_body_is_read_or_refused_and_nothing_else_happens(body: bytes) -> None:
    for kind in ledger_reading.PAYLOAD_TYPES:
        assert isinstance(reading(kind, ZERO_DIGEST, body).content, Invalid)
    assert refusal(lambda: read_part(body, ZERO_DIGEST, 1))


@given(st.sampled_from(sorted(CLAIM.header)), json_values)
def test_any_value_in_any_member_of_a_signed_header_is_read_or_refused(member: str, value: Any) -> None:
    payload = json.dumps(CLAIM.header | {member: value}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        document = signed_bytes(payload.encode())
    except UnicodeEncodeError:
        return
    content = reading("claim", CLAIM.id, document.body).content
    assert isinstance(content, Invalid | CheckedClaim)
    if isinstance(content, CheckedClaim):
        assert content.header.dump()[member] == value


@given(st.integers(0, len(PART) - 1), st.binary(min_size=0, max_size=3))
def test_a_touched_part_is_refused_or_has_another_digest(at: int, instead: bytes) -> None:
    body = PART[:at] + instead + PART[at + 1 :]
    try:
        summary = read_part(body, CLAIM.id, 1)
    except Invalid:
        return
    assert (summary.digest == read_part(PART, CLAIM.id, 1).digest) == (body == PART)


@given(st.integers(0, len(CLAIM.body) - 1), st.binary(min_size=0, max_size=3))
def test_a_touched_body_is_refused_or_is_the_same_leaf(at: int, instead: bytes) -> None:
    read = reading("claim", CLAIM.id, CLAIM.body[:at] + instead + CLAIM.body[at + 1 :])
    assert isinstance(read.content, Invalid) or read.envelope == CLAIM.body


def test_a_leaf_is_canonical_however_its_base64_was_written() -> None:
    value = parse(CLAIM.body, limit=MAX_LEAF)
    sig = value["signatures"][0]["sig"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value["signatures"][0]["sig"] = sig[:-3] + alphabet[alphabet.index(sig[-3]) | 1] + "=="
    assert base64.b64decode(value["signatures"][0]["sig"]) == CLAIM.envelope.signature
    assert reading("claim", CLAIM.id, canonical(value)).envelope == CLAIM.body


@given(at=st.integers(0, 2000), byte=st.binary(min_size=1, max_size=1), cut=st.booleans())
def test_canonical_bytes_are_read_as_the_same_json_with_spaces_is(at: int, byte: bytes, cut: bool) -> None:
    """One changed byte, or one left out: the short way of reading says what the long way says."""
    body = Chain().make().body
    at %= len(body)
    changed = body[:at] + (b"" if cut else byte) + body[at + 1 :]

    def read(one: bytes) -> dsse.Envelope | str:
        try:
            return envelope_of(one)
        except Invalid as error:
            return error.reason

    assert read(changed) == read(b" " + changed)
