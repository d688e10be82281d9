"""`homefed rotate-key`: at home, with the owner's own credential. The agent does the rest; no secret is touched."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from homefed.api import names
from homefed.api.errors import Invalid, NotFound
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.output import json_option, show
from homefed.core.times import to_rfc3339
from homefed.kube.resources import SECRETS


@click.command(name="rotate-key")
@click.option("--namespace", default="homefed", show_default=True, help="Of the home's release.")
@click.option("--release", default="homefed", show_default=True, help="Name of the home's release.")
@cluster_options
@json_option
@asynchronous
async def rotate_key(namespace: str, release: str, kubeconfig: Path, context: str | None, output: str) -> None:
    """Ask the agent of this home for a new key; the old one signs that the new one follows it."""
    name, asked = f"{release}-agent", to_rfc3339(datetime.now(UTC))
    async with client(kubeconfig, context) as kube:
        try:
            secret = await kube.get(SECRETS, name, namespace)
        except NotFound as error:
            message = f"Secret {namespace}/{name} is missing: this command is for a home's cluster; see --namespace"
            raise Invalid(f"{message} and --release", reason="NotAHome") from error
        metadata = {
            "resourceVersion": secret["metadata"]["resourceVersion"],
            "annotations": {names.ANNOTATION_ROTATE_KEY: asked},
        }
        await kube.patch(SECRETS, name, {"metadata": metadata}, namespace)
    show({"namespace": namespace, "secret": name, "asked": asked}, output, lambda _: _TEXT)


_TEXT = (
    "A new key was asked for. Within two minutes the agent makes it and the hub goes over to it:\n"
    "  kubectl get contributions -A -o jsonpath='{.items[*].status.keyFingerprint}'\n"
    "Reports that the old key has signed count for two more days."
)
