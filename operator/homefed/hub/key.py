"""The hub's signing key: made once, in a Secret that the chart leaves empty; its public half for those who verify."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.api import names
from homefed.api.errors import Incident, NotFound, Refused
from homefed.hub.config import Config
from homefed.kube.client import KubeClient
from homefed.kube.resources import CONFIGMAPS, SECRETS
from homefed.kube.transport import Json

PRIVATE: Final = "ed25519"
"""Key of the Secret's data: the 32 bytes of the raw private key."""
PUBLIC: Final = "hub.pub"
"""Key of the ConfigMap's data: the raw public key, base64."""


async def hub_key(client: KubeClient, config: Config) -> Ed25519PrivateKey:
    """The key of this hub, made at the first start and never replaced.

    Refused where the Secret is missing (the chart makes it, empty) or holds something else; Incident where the
    published public key is another's: claims signed by the old one would not verify any more.
    """
    key = await _private(client, config)
    await _publish(client, config, base64.b64encode(key.public_key().public_bytes_raw()).decode())
    return key


async def _private(client: KubeClient, config: Config) -> Ed25519PrivateKey:
    where = f"Secret {config.namespace}/{config.key_secret}"
    try:
        secret = await client.get(SECRETS, config.key_secret, config.namespace)
    except NotFound as error:
        raise Refused(f"{where} is missing: the chart makes it, empty", reason="NoKeySecret") from error
    stored = (secret.get("data") or {}).get(PRIVATE)
    if stored:
        return _read(stored, where)
    key = Ed25519PrivateKey.generate()
    data = {PRIVATE: base64.b64encode(key.private_bytes_raw()).decode()}
    # With the version that was read: of two that fill it at once, one gets Conflict and starts again.
    version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
    await client.patch(SECRETS, config.key_secret, {"metadata": version, "data": data}, config.namespace)
    return key


def _read(stored: str, where: str) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(stored, validate=True))
    except (ValueError, binascii.Error) as error:
        raise Refused(f"{where}: {PRIVATE} is not a raw Ed25519 key of 32 bytes", reason="MalformedKey") from error


async def _publish(client: KubeClient, config: Config, public: str) -> None:
    name, namespace = config.key_config_map, config.namespace
    try:
        found: Json = await client.get(CONFIGMAPS, name, namespace)
    except NotFound:
        found = {}
    published = (found.get("data") or {}).get(PUBLIC)
    if published == public:
        return
    if published:
        raise Incident(
            f"ConfigMap {namespace}/{name} holds another public key than Secret {config.key_secret}: restore"
            f" the Secret, or delete the ConfigMap's {PUBLIC} if the key was replaced on purpose",
            reason="KeyReplaced",
        )
    body = {"metadata": {"name": name, "namespace": namespace}, "data": {PUBLIC: public}}
    await client.apply(CONFIGMAPS, body, field_manager=names.HUB_MANAGER, force=True)
