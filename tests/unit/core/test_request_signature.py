"""A signed request is that one request, to that ledger, at that time; nothing else can be made of it."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homefed.api.errors import Unauthorised
from homefed.core.request_signature import WINDOW_SECONDS, Request, read, sign, verify
from testbed.claims import hub_key, keyring

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
REQUEST = Request("homefed.io/ledger/example", "GET", "/v1/accounts/contributor:example/h/statement?limit=5")
KEY, OTHER = hub_key(1), hub_key(2)


def refusal(header: str, request: Request = REQUEST, now: datetime = NOW) -> str:
    with pytest.raises(Unauthorised) as caught:
        verify(read(header), request, keyring(KEY), now)
    return caught.value.reason


def test_what_a_registered_key_signed_verifies_within_the_window() -> None:
    header = sign(REQUEST, KEY, NOW)
    for seconds in (-WINDOW_SECONDS, 0, WINDOW_SECONDS):
        verify(read(header), REQUEST, keyring(KEY), NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "change",
    [
        {"audience": "homefed.io/ledger/other"},
        {"method": "PUT"},
        {"target": "/v1/accounts/contributor:example/h/statement?limit=6"},
        {"target": "/v1/accounts/contributor:example/i/statement?limit=5"},
        {"body": b"x"},
    ],
)
def test_every_part_of_the_request_is_signed(change: dict[str, Any]) -> None:
    assert refusal(sign(REQUEST, KEY, NOW), replace(REQUEST, **change)) == "BadSignature"


def test_another_key_is_not_believed_even_under_a_registered_name() -> None:
    assert refusal(sign(REQUEST, OTHER, NOW)) == "UnknownKey"
    forged, genuine = read(sign(REQUEST, OTHER, NOW)), read(sign(REQUEST, KEY, NOW))
    sig = base64.b64encode(forged.sig).decode()
    assert refusal(f'keyid="{genuine.keyid}", created="{genuine.created}", sig="{sig}"') == "BadSignature"


@pytest.mark.parametrize("seconds", [-WINDOW_SECONDS - 1, WINDOW_SECONDS + 1])
def test_outside_of_the_window_it_has_expired(seconds: float) -> None:
    assert refusal(sign(REQUEST, KEY, NOW), now=NOW + timedelta(seconds=seconds)) == "SignatureExpired"


def test_the_time_is_signed() -> None:
    header = sign(REQUEST, KEY, NOW).replace("12:00:00.123456", "12:00:00.123457")
    assert refusal(header) == "BadSignature"


@pytest.mark.parametrize("created", ["2026-13-01T00:00:00.000000Z", "2026-01-01T25:00:00.000000Z"])
def test_a_time_that_is_none_is_malformed(created: str) -> None:
    header = sign(REQUEST, KEY, NOW).replace("2026-01-01T12:00:00.123456Z", created)
    assert refusal(header) == "MalformedSignature"


@given(st.text(max_size=500))
def test_any_other_text_is_malformed(text: str) -> None:
    with pytest.raises(Unauthorised) as caught:
        read(text)
    assert caught.value.reason == "MalformedSignature"


def test_one_signature_has_one_text() -> None:
    header = sign(REQUEST, KEY, NOW)
    last = header[-4]
    assert header.endswith('=="')
    changed = header[:-4] + chr(ord(last) + 1) + header[-3:]
    assert base64.b64decode(changed[-89:-1]) == base64.b64decode(header[-89:-1])
    assert refusal(changed) == "MalformedSignature"


@given(st.integers(0, 10**6), st.characters())
def test_a_header_with_one_character_changed_never_verifies(at: int, character: str) -> None:
    header = sign(REQUEST, KEY, NOW)
    at %= len(header)
    changed = header[:at] + character + header[at + 1 :]
    if changed != header:
        assert refusal(changed) in {"MalformedSignature", "UnknownKey", "BadSignature", "SignatureExpired"}
