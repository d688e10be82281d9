"""Requests signed by a home's key: the header `X-HomeFed-Signature`, made and checked.

    X-HomeFed-Signature: keyid="SHA256:…", created="2026-01-31T10:00:00.000001Z", sig="<base64>"

Ed25519 over the canonical JSON of {audience, method, target, created, body}: `audience` is the ledger's log origin, so
that a request signed for one ledger says nothing to another; `target` is path and query exactly as the ledger receives
them; `body` is the SHA-256 of the body. `created` counts microseconds, so that two requests never look the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from homefed.api.canonical import canonical
from homefed.api.dsse import fingerprint
from homefed.api.errors import Invalid, Unauthorised
from homefed.core.times import from_rfc3339

HEADER: Final = "X-HomeFed-Signature"
TYPE: Final = "application/vnd.homefed.request.v1"
WINDOW_SECONDS: Final = 300.0
"""How far `created` may be from the ledger's clock, either way."""
MAX_HEADER: Final = 400
"""Characters; a longer header is no signature."""

_HEADER = re.compile(
    r'keyid="(SHA256:[0-9a-f]{64})", created="(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)", sig="([A-Za-z0-9+/]{86}==)"'
)


@dataclass(frozen=True)
class Request:
    """What is signed of a request."""

    audience: str
    """The log origin: homefed.io/ledger/<federation>."""
    method: str
    target: str
    """Path and query, e.g. /v1/claims/…/lines/1?limit=5, not decoded."""
    body: bytes = b""

    def signed_bytes(self, created: str) -> bytes:
        """Type and canonical JSON, with a line between them: no signed document of another kind begins so."""
        document = {
            "audience": self.audience,
            "method": self.method,
            "target": self.target,
            "created": created,
            "body": hashlib.sha256(self.body).hexdigest(),
        }
        return TYPE.encode() + b"\n" + canonical(document)


@dataclass(frozen=True)
class Signature:
    """One header, read; nothing in it is believed yet."""

    keyid: str
    created: str
    sig: bytes


def sign(request: Request, key: Ed25519PrivateKey, now: datetime) -> str:
    """The header's value. `now` is aware; signed to the microsecond."""
    created = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    sig = base64.b64encode(key.sign(request.signed_bytes(created))).decode()
    return f'keyid="{fingerprint(key.public_key().public_bytes_raw())}", created="{created}", sig="{sig}"'


def read(header: str) -> Signature:
    """Errors: Unauthorised where the text is not such a header."""
    match = _HEADER.fullmatch(header) if len(header) <= MAX_HEADER else None
    if match is None:
        raise Unauthorised(f'{HEADER} is not keyid="…", created="…", sig="…"', reason="MalformedSignature")
    sig = base64.b64decode(match[3])
    if base64.b64encode(sig).decode() != match[3]:  # unused bits that differ would make one signature many texts
        raise Unauthorised(f"{HEADER}: sig is not canonical base64", reason="MalformedSignature")
    return Signature(match[1], match[2], sig)


def verify(signature: Signature, request: Request, keys: Mapping[str, bytes], now: datetime) -> None:
    """Whether the key `signature.keyid` of `keys` (keyid → raw public key) has signed this very request, just now.

    Errors: Unauthorised with reason UnknownKey, SignatureExpired or BadSignature. That a request comes a second time
    within the window is for the caller to notice.
    """
    raw = keys.get(signature.keyid)
    if raw is None:
        raise Unauthorised(f"the key {signature.keyid} belongs to no home", reason="UnknownKey")
    if abs((now - _instant(signature.created)).total_seconds()) > WINDOW_SECONDS:
        raise Unauthorised(
            f"the request was signed at {signature.created}, more than {WINDOW_SECONDS:.0f} s from the ledger's clock",
            reason="SignatureExpired",
        )
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature.sig, request.signed_bytes(signature.created))
    except (InvalidSignature, ValueError) as error:
        raise Unauthorised(
            f"the signature by {signature.keyid} is not of this request: method, path with query, and body are signed",
            reason="BadSignature",
        ) from error


def _instant(created: str) -> datetime:
    try:
        return from_rfc3339(created)
    except Invalid as error:
        raise Unauthorised(f"{created} is no time", reason="MalformedSignature") from error
