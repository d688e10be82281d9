"""Canonical JSON, envelopes, identities: what is signed is what is read."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from homefed.api import canonical, dsse, names
from homefed.api.claim_document import claim_id
from homefed.api.errors import Invalid

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {dsse.fingerprint(PUBLIC): PUBLIC}

documents = st.dictionaries(
    st.text(max_size=8), st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8) | st.booleans()
)


@given(documents)
def test_an_envelope_gives_back_what_was_signed(document: dict[str, Any]) -> None:
    text = dsse.sign(document, dsse.CLAIM_TYPE, KEY).encode()
    assert dsse.verify(dsse.decode(text), dsse.CLAIM_TYPE, KEYS) == document


@given(documents)
def test_equal_documents_are_signed_in_equal_bytes(document: dict[str, Any]) -> None:
    shuffled = dict(reversed(document.items()))
    assert dsse.sign(document, dsse.CLAIM_TYPE, KEY) == dsse.sign(shuffled, dsse.CLAIM_TYPE, KEY)


def test_one_changed_byte_is_noticed() -> None:
    envelope = dsse.sign({"amount": "1"}, dsse.CLAIM_TYPE, KEY)
    forged = dsse.Envelope(envelope.payload_type, b'{"amount":"9"}', envelope.keyid, envelope.signature)
    with pytest.raises(Invalid) as refusal:
        dsse.verify(forged, dsse.CLAIM_TYPE, KEYS)
    assert refusal.value.reason == "BadSignature"


def test_an_envelope_of_another_type_is_not_accepted() -> None:
    envelope = dsse.sign({"amount": "1"}, dsse.REPORT_TYPE, KEY)
    with pytest.raises(Invalid) as refusal:
        dsse.verify(envelope, dsse.CLAIM_TYPE, KEYS)
    assert refusal.value.reason == "WrongType"


def test_an_unknown_key_is_named() -> None:
    envelope = dsse.sign({}, dsse.CLAIM_TYPE, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(Invalid, match="SHA256:"):
        dsse.verify(envelope, dsse.CLAIM_TYPE, KEYS)


def test_a_signed_but_not_canonical_payload_is_refused() -> None:
    payload = b'{"b":1, "a":2}'
    signature = KEY.sign(dsse.pre_authentication(dsse.CLAIM_TYPE, payload))
    envelope = dsse.Envelope(dsse.CLAIM_TYPE, payload, dsse.fingerprint(PUBLIC), signature)
    with pytest.raises(Invalid) as refusal:
        dsse.verify(envelope, dsse.CLAIM_TYPE, KEYS)
    assert refusal.value.reason == "NotCanonical"


@pytest.mark.parametrize(
    "text",
    ["", "%%%", base64.b64encode(b"[]").decode(), base64.b64encode(b"{}").decode(), base64.b64encode(b"{").decode()],
)
def test_what_is_no_envelope_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        dsse.decode(text)


@pytest.mark.parametrize("signatures", [[], [1], [{}], [{"keyid": "a", "sig": "!"}], [{}, {}], "x", None])
def test_signatures_that_are_none_are_refused(signatures: Any) -> None:
    value = {"payloadType": dsse.CLAIM_TYPE, "payload": "e30=", "signatures": signatures}
    with pytest.raises(Invalid):
        dsse.from_json(json.loads(json.dumps(value)))


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":Infinity}', b"\xff", b"[" * 100_000])
def test_json_that_two_readers_could_read_differently_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid):
        canonical.parse(text, limit=1_000_000)


def test_a_long_document_is_refused_before_it_is_read() -> None:
    with pytest.raises(Invalid, match="longer than 10"):
        canonical.parse(b" " * 11, limit=10)


def test_the_claim_id_depends_on_every_part_of_its_key() -> None:
    key = {"federation": "f", "pool": "p", "account": "a", "window_start": "s", "window_end": "e", "revision": 0}
    ids = {claim_id(**key)} | {claim_id(**(key | {name: 7 if name == "revision" else "other"})) for name in key}  # type: ignore[arg-type]
    assert len(ids) == len(key) + 1


def test_a_home_invited_anew_has_other_nodes_and_other_accounts() -> None:
    assert names.virtual_node("oak", "uid-1", "m") != names.virtual_node("oak", "uid-2", "m")
    assert names.contributor_account("f", "uid-1") != names.contributor_account("f", "uid-2")


def test_the_longest_names_fit_kubernetes_limits() -> None:
    home = "h" * 40
    assert len(names.virtual_node(home, "u" * 36, "0" * 64)) <= 63
    assert len(names.mailbox(home)) <= 63
    assert len(names.copy_name("u" * 36, "ConfigMap", "n" * 253)) <= 63
