"""What a home's owner may look at, found with the credential of his own cluster: mailbox, hub, and the home's key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homefed.agent.identity import newest, read_join, token
from homefed.agent.keys import read_keys, text_of
from homefed.api import names
from homefed.api.errors import Invalid, NotFound, Refused
from homefed.cli.cluster import client
from homefed.kube.client import KubeClient
from homefed.kube.resources import SECRETS


@dataclass(frozen=True)
class Mailbox:
    """A mailbox, and the home's key where it is at hand."""

    hub: KubeClient
    name: str
    key: Ed25519PrivateKey | None = None


@asynccontextmanager
async def mailbox_of(
    kubeconfig: Path, context: str | None, mailbox: str | None, namespace: str, release: str
) -> AsyncIterator[Mailbox]:
    """`mailbox` None: the kubeconfig is of a home, whose Secrets say where its mailbox is; else it is the hub's."""
    if mailbox is not None:
        async with client(kubeconfig, context) as hub:
            yield Mailbox(hub, mailbox)
        return
    async with client(kubeconfig, context) as home:
        joined, own = [await _secret(home, namespace, f"{release}-{one}") for one in ("join", "agent")]
    join, keys = read_join(joined), read_keys(own)
    candidates = [token(one) for one in (join.token, text_of(own, "token")) if one]
    chosen = newest(candidates, set(), datetime.now(UTC))
    if chosen is None:
        raise Refused(
            f"the home's token has expired: ask the organiser for `homefed invite {join.home} --renew`",
            reason="TokenExpired",
        )
    async with KubeClient.from_token(join.url, join.ca, chosen.text) as hub:
        yield Mailbox(hub, names.mailbox(join.home), keys.private if keys is not None else None)


async def _secret(home: KubeClient, namespace: str, name: str) -> dict[str, object]:
    try:
        return await home.get(SECRETS, name, namespace)
    except NotFound as error:
        raise Invalid(
            f"Secret {namespace}/{name} is missing: this command is for a home's cluster (see --namespace and"
            " --release), or name the mailbox at the hub with --mailbox",
            reason="NotAHome",
        ) from error
