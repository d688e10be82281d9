"""Canonical JSON: the fast way writes what RFC 8785 says, and what two readers could read differently is not read."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import rfc8785
from hypothesis import assume, example, given
from hypothesis import strategies as st

from homefed.api import canonical, dsse
from homefed.api.claim_document import claim_id
from homefed.api.errors import Invalid

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
keys = st.text(max_size=4) | st.sampled_from(
    ["\U0001f600", "\ufb33", "\u20ac", "\r", "1", "\u0080", "ö", "a", "A", '"', "\\"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)


@given(values)
def test_the_bytes_are_those_of_the_reference(value: Any) -> None:
    assert canonical.canonical(value) == rfc8785.dumps(value)


@given(values)
def test_reading_canonical_bytes_and_writing_them_again_changes_nothing(value: Any) -> None:
    data = canonical.canonical(value)
    assume(not _beyond_exact_integers(value))
    assert canonical.canonical(canonical.parse(data, limit=10**6)) == data


def _beyond_exact_integers(value: Any) -> bool:
    """A float of 2^53 and more is written as an integer, which as such is not exact."""
    if isinstance(value, float):
        return abs(value) >= 2**53
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return any(map(_beyond_exact_integers, inner))


def test_keys_are_sorted_by_utf_16_and_not_by_code_points() -> None:
    assert canonical.canonical({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


def test_control_characters_are_written_in_the_shortest_way_and_del_as_it_is() -> None:
    written = canonical.canonical("".join(map(chr, range(0x20))) + '\x7f"\\/\u2028')
    assert written == (
        rb'"\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u0011\u0012\u0013\u0014'
        rb"\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f" + '\x7f\\"\\\\/\u2028"'.encode()
    )


@pytest.mark.parametrize(
    "value",
    [
        2**53,
        -(2**53),
        [2**63],
        {"a": {"b": 2**64}},
        float("nan"),
        float("inf"),
        {1: 2},
        {None: 1},
        "\ud800",
        {"\udfff": 1},
        b"x",
    ],
)
def test_what_json_cannot_carry_exactly_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(Invalid) as refused:
        canonical.canonical(value)
    assert refused.value.reason == "NotCanonical"


def test_nesting_without_end_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Invalid):
        canonical.canonical(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"[-1e999]",
        b"\xef\xbb\xbf{}",
        b"\xed\xa0\x80",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        b"{'a':1}",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
        b'"\x00"',
        b"[1,]",
        b"{} {}",
        b"",
        b"9" * 5000,
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        canonical.parse(data, limit=10_000)
    assert refused.value.reason == "NotJSON"


@given(st.binary(max_size=200) | st.text('{}[]":,0123456789.eE+-ntf \\u', max_size=40).map(str.encode))
def test_reading_any_bytes_gives_a_value_or_a_refusal(data: bytes) -> None:
    with suppress(Invalid):
        assert canonical.parse(data, limit=150) == json.loads(data)


json_text = st.text('{}[]":,0123456789.eE+-ntf \\u/\ufb33\U0001f600', max_size=30)


@given(values.map(rfc8785.dumps) | values.map(lambda value: json.dumps(value).encode()) | json_text.map(str.encode))
@example(b'{"a":1,"a":1}')
@example(b"9007199254740992")
@example(b"1E400")
@example(b"-0")
@example(b'"\\u0041"')
@example('{"\ufb33":1,"\U0001f600":2}'.encode())
@example('{"\U0001f600":2,"\ufb33":1}'.encode())
@example('"\ud800"'.encode("utf-8", "surrogatepass"))
def test_what_is_read_as_canonical_is_what_would_be_written(data: bytes) -> None:
    try:
        expected = canonical.parse(data, limit=10**6)
        same = canonical.canonical(expected) == data
    except Invalid:
        same = False
    if same:
        assert canonical.parse_canonical(data, limit=10**6) == expected
    else:
        with pytest.raises(Invalid):
            canonical.parse_canonical(data, limit=10**6)


def test_canonical_bytes_have_a_limit_too() -> None:
    with pytest.raises(Invalid) as refused:
        canonical.parse_canonical(b'"aaa"', limit=4)
    assert refused.value.reason == "TooLarge"


@given(st.tuples(*[st.text(max_size=8)] * 5), st.integers(0, 1000))
def test_a_claims_id_is_the_digest_of_its_key(texts: tuple[str, str, str, str, str], revision: int) -> None:
    federation, pool, account, start, end = texts
    key = {"federation": federation, "pool": pool, "account": account, "windowStart": start, "windowEnd": end}
    identity = claim_id(
        federation=federation, pool=pool, account=account, window_start=start, window_end=end, revision=revision
    )
    assert identity == canonical.digest(key | {"revision": revision})


@given(st.text(max_size=20), st.text(max_size=20), st.binary(max_size=50), st.binary(max_size=70))
def test_an_envelopes_own_bytes_are_the_canonical_ones(kind: str, keyid: str, payload: bytes, signature: bytes) -> None:
    envelope = dsse.Envelope(kind, payload, keyid, signature)
    assert envelope.canonical() == rfc8785.dumps(envelope.to_json())
    assert dsse.from_json(canonical.parse(envelope.canonical(), limit=1000)) == envelope
