"""The rotation statement: "my key is this one from now on", signed by the key that it replaces."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from homefed.api.meta import Document, Time, Uid

ROTATION_TYPE: Final = "application/vnd.homefed.key-rotation.v1+json"
MAX_STATEMENT: Final = 4096
"""Characters of the envelope in its base64 form."""

PublicKey = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""Raw Ed25519 public key, base64."""
Fingerprint = Annotated[str, Field(max_length=80, pattern=r"^SHA256:[0-9a-f]{64}$")]


class KeyRotation(Document):
    home_uid: Uid
    """Of the Home at the hub: a statement says nothing about another one."""
    replaces: Fingerprint
    """The key that signs this, and ends by it."""
    public_key: PublicKey
    """The key from now on."""
    signed_at: Time
    """Hub's time as the home knows it."""
