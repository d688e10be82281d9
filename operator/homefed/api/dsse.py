"""DSSE envelopes (github.com/secure-systems-lab/dsse, protocol 1.0.2) with Ed25519: what a document is signed in.

An envelope travels as base64 text of its canonical JSON in custom resources and as JSON over HTTP.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nacl.bindings
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.exceptions import BadSignatureError

from homefed.api.canonical import canonical, parse, parse_canonical, quoted
from homefed.api.errors import Invalid

CLAIM_TYPE = "application/vnd.homefed.claim.v1+json"
RESOLUTION_TYPE = "application/vnd.homefed.resolution.v1+json"
FLOOR_TYPE = "application/vnd.homefed.floor.v1+json"
LINES_TYPE = "application/vnd.homefed.lines.v1+json"
REPORT_TYPE = "application/vnd.homefed.report.v1+json"
RECEIPT_TYPE = "application/vnd.homefed.receipt.v1+json"

SIGNATURE_SIZE = 64
MAX_ENVELOPE = 1_000_000
"""Bytes; a RewardClaim or UsageReport object must stay below etcd's 1.5 MiB."""


@dataclass(frozen=True)
class Envelope:
    """One signed document: `payload` are the canonical bytes, `keyid` names the key (see `fingerprint`)."""

    payload_type: str
    payload: bytes
    keyid: str
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "payloadType": self.payload_type,
            "payload": _b64(self.payload),
            "signatures": [{"keyid": self.keyid, "sig": _b64(self.signature)}],
        }

    def canonical(self) -> bytes:
        """The canonical bytes of `to_json()`: what a ledger keeps as a leaf."""
        kind, keyid = quoted(self.payload_type).encode(), quoted(self.keyid).encode()
        return b'{"payload":"%b","payloadType":%b,"signatures":[{"keyid":%b,"sig":"%b"}]}' % (
            base64.b64encode(self.payload),
            kind,
            keyid,
            base64.b64encode(self.signature),
        )

    def encode(self) -> str:
        """Base64 of the canonical JSON: the text of `spec.envelope`."""
        return _b64(self.canonical())


def fingerprint(public_key: bytes) -> str:
    """`SHA256:` and 64 hex digits over the raw 32-byte Ed25519 public key: the keyid, and what people compare."""
    return "SHA256:" + hashlib.sha256(public_key).hexdigest()


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """PAE of the DSSE protocol: the bytes that the signature is over."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(document: Any, payload_type: str, key: Ed25519PrivateKey) -> Envelope:
    """Sign the canonical bytes of a JSON document. Ed25519 is deterministic: equal documents give equal envelopes."""
    payload = canonical(document)
    signature = key.sign(pre_authentication(payload_type, payload))
    return Envelope(payload_type, payload, fingerprint(key.public_key().public_bytes_raw()), signature)


def verify(envelope: Envelope, payload_type: str, keys: Mapping[str, bytes]) -> Any:
    """The document of an envelope signed by one of `keys` (keyid → raw public key).

    Errors: Invalid with reason WrongType, UnknownKey, BadSignature, NotJSON or NotCanonical.
    """
    if envelope.payload_type != payload_type:
        raise Invalid(f"payloadType: {envelope.payload_type!r}, expected {payload_type!r}", reason="WrongType")
    raw = keys.get(envelope.keyid)
    if raw is None:
        raise Invalid(f"signatures.0.keyid: {envelope.keyid!r} is not registered", reason="UnknownKey")
    if not _signed(envelope, raw):
        raise Invalid(f"signatures.0.sig: does not verify with {envelope.keyid}", reason="BadSignature")
    return document_of(envelope)


def _signed(envelope: Envelope, public_key: bytes) -> bool:
    """libsodium takes half of OpenSSL's time (the dearest step of reading a claim), and lets other threads run."""
    if len(envelope.signature) != SIGNATURE_SIZE:
        return False
    try:
        message = pre_authentication(envelope.payload_type, envelope.payload)
        nacl.bindings.crypto_sign_open(envelope.signature + message, public_key)
    except (BadSignatureError, ValueError):
        return False
    return True


def document_of(envelope: Envelope) -> Any:
    """The canonical JSON document that was signed, whoever signed it. Errors: Invalid, NotJSON or NotCanonical."""
    try:
        return parse_canonical(envelope.payload, limit=MAX_ENVELOPE)
    except Invalid as error:
        raise Invalid(f"payload: {error.message}", reason=error.reason) from error


def from_json(value: Any) -> Envelope:
    """Read an envelope's JSON form; Invalid names the member that is wrong."""
    try:
        (signature,) = value["signatures"]
        return Envelope(
            _text(value["payloadType"]).decode(),
            _unb64(value["payload"]),
            _text(signature["keyid"]).decode(),
            _unb64(signature["sig"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _no_envelope(error) from error


def from_texts(payload: bytes, payload_type: bytes, keyid: bytes, sig: bytes) -> Envelope:
    """The envelope whose members have these texts, in ASCII; payload and sig in base64. Errors: Invalid."""
    try:
        return Envelope(
            payload_type.decode(),
            binascii.a2b_base64(payload, strict_mode=True),
            keyid.decode(),
            binascii.a2b_base64(sig, strict_mode=True),
        )
    except ValueError as error:  # binascii.Error is one
        raise _no_envelope(ValueError(f"not base64: {error}")) from error


def _no_envelope(error: Exception) -> Invalid:
    return Invalid(f"not a DSSE envelope with one signature: {error}", reason="NotAnEnvelope")


def decode(text: str) -> Envelope:
    """Read the base64 form of `spec.envelope`."""
    try:
        data = _unb64(text)
    except (TypeError, ValueError) as error:
        raise Invalid(f"envelope is not base64: {error}", reason="NotAnEnvelope") from error
    return from_json(parse(data, limit=2 * MAX_ENVELOPE))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _text(value: Any) -> bytes:
    """UTF-8 of a JSON string; lone surrogates have none."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of a string")
    return value.encode()


def _unb64(text: Any) -> bytes:
    try:
        return binascii.a2b_base64(_text(text), strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
