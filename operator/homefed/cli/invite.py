"""`homefed invite NAME`: writes the Home, waits for its mailbox, and makes the values file a home is installed with."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any, Final

import click
import yaml

from homefed.api import names
from homefed.api.errors import Invalid, NotFound, Refused, Transient
from homefed.cli.cluster import Endpoint, asynchronous, client, cluster_options, endpoint
from homefed.cli.output import json_option, progress, show
from homefed.core import conditions, membership
from homefed.kube.client import KubeClient
from homefed.kube.resources import HOMES

JOIN_TOKEN_SECONDS: Final = 7 * 24 * 3600
CLI_MANAGER: Final = "homefed-cli"


@click.command()
@click.argument("name")
@click.option(
    "--pool", "pools", multiple=True, help="Pool that the home may join; repeat for more; default: every pool."
)
@click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), help="Values file; default NAME-values.yaml."
)
@click.option(
    "--hub-url", default=None, help="The hub's API server as the home reaches it; default: your kubeconfig's."
)
@click.option("--renew", is_flag=True, help="A new token for a home that exists; its key and guests are kept.")
@click.option("--force", is_flag=True, help="Overwrite the values file.")
@click.option("--timeout", "wait_seconds", default=60, show_default=True, help="Seconds to wait for the hub operator.")
@cluster_options
@json_option
@asynchronous
async def invite(
    name: str,
    pools: tuple[str, ...],
    path: Path | None,
    hub_url: str | None,
    renew: bool,
    force: bool,
    wait_seconds: int,
    kubeconfig: Path,
    context: str | None,
    output: str,
) -> None:
    """Invite a home: make its mailbox on the hub and the values file to install the home with.

    The file holds a token (7 days) that joins as this home: hand it over as you would a password.
    """
    if not re.match(names.NAME_PATTERN, name):
        raise Invalid(f"NAME {name!r}: a home's name is a DNS label of at most 40 characters, e.g. oak-street-7")
    path = path or Path(f"{name}-values.yaml")
    if path.exists() and not force:
        raise Invalid(f"{path} exists: choose another --file, or overwrite it with --force", reason="FileExists")
    hub = endpoint(kubeconfig, context)
    hub = Endpoint(hub_url or hub.url, hub.ca)
    async with client(kubeconfig, context) as kube:
        await _write_home(kube, name, pools, renew)
        mailbox = await _mailbox(kube, name, wait_seconds)
        token = await kube.token(names.AGENT_SERVICE_ACCOUNT, mailbox, seconds=JOIN_TOKEN_SECONDS)
    write_private(path, values(name, hub, token.token))
    command = f"helm install homefed ./helm/homefed --namespace homefed --create-namespace --values {path}"
    if renew:
        command = command.replace("helm install", "helm upgrade").replace(" --create-namespace", "")
    answer = {"home": name, "mailbox": mailbox, "valuesFile": str(path), "expires": token.expires_at.isoformat()}
    show(answer | {"command": command}, output, _explain)


def values(name: str, hub: Endpoint, token: str) -> dict[str, Any]:
    """The chart values that join a home."""
    return {"role": "home", "home": {"join": {"home": name, "url": hub.url, "ca": hub.ca, "token": token}}}


def write_private(path: Path, content: dict[str, Any]) -> None:
    """YAML that only its owner can read, from the first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(content, file, sort_keys=False)


def _explain(answer: dict[str, str]) -> str:
    return (
        f"Home {answer['home']} is invited; {answer['valuesFile']} (mode 0600) holds its token, valid until"
        f" {answer['expires']}.\n"
        f"Give the file to its owner, who runs, on the home's cluster:\n\n  {answer['command']}\n"
    )


async def _write_home(kube: KubeClient, name: str, pools: tuple[str, ...], renew: bool) -> None:
    try:
        await kube.get(HOMES, name)
    except NotFound:
        if renew:
            raise Invalid(f"there is no home {name!r} to renew; leave out --renew to invite it") from None
    else:
        if not renew:
            raise Invalid(f"home {name!r} is invited already; for a new token use --renew", reason="HomeExists")
        return
    spec = {"accepted": True} | ({"pools": [*pools]} if pools else {})
    home = {"metadata": {"name": name}, "spec": spec}
    await kube.apply(HOMES, home, field_manager=CLI_MANAGER)
    progress(f"home {name} written; waiting for its mailbox …")


async def _mailbox(kube: KubeClient, name: str, wait_seconds: int) -> str:
    """The mailbox's name, once the hub operator says that it is complete."""
    for _ in range(max(1, wait_seconds * 2)):
        status = (await kube.get(HOMES, name)).get("status") or {}
        ready = conditions.get(status.get("conditions"), membership.MAILBOX)
        if ready and ready.get("status") == "True":
            return str(status.get("mailbox") or names.mailbox(name))
        if ready and ready.get("reason") == "NamespaceTaken":
            raise Refused(str(ready.get("message")), reason="NamespaceTaken")
        await asyncio.sleep(0.5)
    raise Transient(
        f"the mailbox of home {name!r} is not ready after {wait_seconds} s: does the hub operator run?"
        f" See `kubectl describe home {name}`",
        reason="MailboxNotReady",
    )
