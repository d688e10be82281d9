"""Canonical JSON (RFC 8785) and digests of it: the bytes that are signed, hashed and compared.

Python's own encoder writes the same bytes many times faster for values without floats whose keys are ASCII (their order
is then the same in UTF-16 and in code points): that is what HomeFed's documents are. Everything else, and everything
that has no canonical form, is left to the rfc8785 library.
"""

from __future__ import annotations

import hashlib
import json
import json.encoder
from typing import Any, Final, NoReturn

import rfc8785

from homefed.api.errors import Invalid

MAX_INTEGER: Final = 2**53 - 1
"""Of either sign: beyond it JSON's numbers are not exact."""

_ENCODE: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value; Invalid when it holds something that JSON cannot."""
    try:
        return _ENCODE(value).encode() if _plain(value) else rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise Invalid(f"not canonical JSON: {error}", reason="NotCanonical") from error


def _plain(value: object) -> bool:
    """Whether Python's encoder, with sorted keys and without spaces, writes what RFC 8785 says."""
    if type(value) is str or value is None or type(value) is bool:
        return True
    if type(value) is int:
        return -MAX_INTEGER <= value <= MAX_INTEGER
    if type(value) is dict:
        for key, member in value.items():
            if type(key) is not str or not key.isascii():
                return False
            if type(member) is not str and not _plain(member):  # most members are text: no call for each
                return False
        return True
    if type(value) is list:
        return all(type(member) is str or _plain(member) for member in value)
    return False


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def parse(data: bytes, *, limit: int) -> Any:
    """Strict JSON: UTF-8, at most `limit` bytes, no duplicate keys, no NaN and no infinite number. Errors: Invalid."""
    if len(data) > limit:
        raise Invalid(f"document of {len(data)} bytes is longer than {limit}", reason="TooLarge")
    try:
        return _DECODE(data.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not JSON: {error}", reason="NotJSON") from error


def parse_canonical(data: bytes, *, limit: int) -> Any:
    """The value of bytes that are its canonical form. Errors: Invalid; a key twice, too, is NotCanonical."""
    if len(data) > limit:
        raise Invalid(f"document of {len(data)} bytes is longer than {limit}", reason="TooLarge")
    try:
        value = _DECODE_PLAIN(data.decode())
        again = _ENCODE(value).encode() if data.isascii() else canonical(value)
    except _NotPlain:
        value = parse(data, limit=limit)
        again = canonical(value)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"not JSON: {error}", reason="NotJSON") from error
    if again != data:
        raise Invalid("not in canonical form (RFC 8785)", reason="NotCanonical")
    return value


def quoted(text: str) -> str:
    """A string as it is written in canonical JSON."""
    return json.encoder.encode_basestring(text)


class _NotPlain(Exception):
    """The document has a number that Python's encoder does not write as RFC 8785 says."""


def _exact(text: str) -> int:
    number = int(text)
    if not -MAX_INTEGER <= number <= MAX_INTEGER:
        raise _NotPlain
    return number


def _not_plain(_: str) -> NoReturn:
    raise _NotPlain


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names one key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is not a number that JSON can carry")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


# ASCII bytes that Python's encoder writes again have ASCII keys only, hence the right order; one that is there twice is
# lost on the way, and shows.
_DECODE_PLAIN: Final = json.JSONDecoder(parse_float=_not_plain, parse_constant=_not_plain, parse_int=_exact).decode
_DECODE: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite).decode
