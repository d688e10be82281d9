"""The home's key, its salt, and a key that is to follow it, as Secret `<release>-agent` holds them.

ed25519           the key that signs               key-rotation    statement for the newest key, signed by the one
ed25519-next      the key that the hub is                          before it; goes on being offered
                  asked to believe                 former-keys     public halves of keys before it, the newest first
salt              of machine ids                   rotation-served the request that was served last
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import dsse, names
from homefed.api.errors import Invalid
from homefed.core import key_rotation

PRIVATE: Final = "ed25519"
NEXT: Final = "ed25519-next"
SALT: Final = "salt"
STATEMENT: Final = "key-rotation"
FORMER: Final = "former-keys"
SERVED: Final = "rotation-served"
MAX_FORMER: Final = 4

Json = dict[str, Any]


@dataclass(frozen=True)
class Keys:
    """What the home has made for itself and never gives away."""

    private: Ed25519PrivateKey = field(repr=False)
    salt: str = field(repr=False)
    next: Ed25519PrivateKey | None = field(default=None, repr=False)
    statement: str | None = None
    """For `declared`, where it replaces another key."""
    former: tuple[bytes, ...] = ()
    """Raw public keys whose reports are ours too."""
    served: str = ""
    asked: str = ""
    """The owner's newest request for another key (names.ANNOTATION_ROTATE_KEY)."""

    @property
    def declared(self) -> str:
        """Raw Ed25519 public key, base64: the one that the hub is to believe."""
        return _b64(_public(self.next or self.private))

    @property
    def fingerprint(self) -> str:
        """Of the key that signs."""
        return dsse.fingerprint(_public(self.private))

    @property
    def own(self) -> dict[str, bytes]:
        """keyid → raw public key of all keys with which this home has signed lately."""
        return {dsse.fingerprint(raw): raw for raw in (*self.former, _public(self.private))}

    @property
    def progress(self) -> key_rotation.Progress:
        following = dsse.fingerprint(_public(self.next)) if self.next is not None else None
        return key_rotation.Progress(self.fingerprint, following, self.asked not in ("", self.served))


def text_of(secret: Json, key: str) -> str:
    """A text value of a Secret, "" where there is none; Invalid, naming the key, where it is not text."""
    name = f"{secret['metadata']['name']}.{key}"
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "", validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError, TypeError) as error:
        raise Invalid(f"Secret {name}: not text", reason="InvalidJoin") from error


def read_keys(secret: Json) -> Keys | None:
    """Keys and salt; None where the Secret is still empty. Invalid where there is a key that cannot be read: it is not
    replaced, as the hub has pinned it."""
    data = secret.get("data") or {}
    if PRIVATE not in data and SALT not in data:
        return None
    try:
        return Keys(
            private=_private(data[PRIVATE]),
            salt=text_of(secret, SALT) or _missing(SALT),
            next=_private(data[NEXT]) if data.get(NEXT) else None,
            statement=text_of(secret, STATEMENT) or None,
            former=tuple(base64.b64decode(line, validate=True) for line in text_of(secret, FORMER).split()),
            served=text_of(secret, SERVED),
            asked=(secret["metadata"].get("annotations") or {}).get(names.ANNOTATION_ROTATE_KEY, ""),
        )
    except (KeyError, ValueError, TypeError, Invalid) as error:
        name = secret["metadata"]["name"]
        raise Invalid(
            f"Secret {name}: ed25519 or salt is damaged; restore it from a backup, or delete both and ask the organiser"
            " to trust the new key",
            reason="InvalidKey",
        ) from error


def first(private: Ed25519PrivateKey, salt: str) -> dict[str, str]:
    """The Secret's data of a home's first key."""
    return {PRIVATE: _b64(private.private_bytes_raw()), SALT: _b64(salt.encode())}


def begun(keys: Keys, following: Ed25519PrivateKey, home_uid: str, now: datetime) -> dict[str, str | None]:
    """Changes of the data that begin a rotation to `following`; `now` is the hub's time."""
    statement = key_rotation.statement(keys.private, home_uid, _b64(_public(following)), now)
    return {
        NEXT: _b64(following.private_bytes_raw()),
        STATEMENT: _b64(statement.encode()),
        SERVED: _b64(keys.asked.encode()),
    }


def finished(keys: Keys) -> dict[str, str | None]:
    """Changes of the data that end a rotation: the next key is the key, in one write."""
    if keys.next is None:
        raise Invalid("no key is on its way", reason="InvalidKey")
    former = [_public(keys.private), *keys.former][:MAX_FORMER]
    return {
        PRIVATE: _b64(keys.next.private_bytes_raw()),
        NEXT: None,
        FORMER: _b64("\n".join(map(_b64, former)).encode()),
    }


def _private(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _missing(key: str) -> str:
    raise ValueError(f"{key} is missing")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
