"""`homefed uninstall`: what the chart's pre-delete hook runs; the other side may be unreachable, time is bounded."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from homefed.agent.uninstall import leave_home
from homefed.cli.cluster import asynchronous
from homefed.cli.logs import configure_logging
from homefed.hub.uninstall import leave_hub
from homefed.kube.client import KubeClient
from homefed.kube.uninstall import Deadline, stop_processes

logger = logging.getLogger(__name__)


@click.command(hidden=True)
@click.option("--role", type=click.Choice(["hub", "home", "both"]), required=True)
@click.option("--namespace", required=True, help="Of the release.")
@click.option("--instance", required=True, help="Name of the Helm release.")
@click.option("--timeout", "seconds", default=280, show_default=True, type=click.IntRange(10, 3600))
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Default: the pod's own."
)
@asynchronous
async def uninstall(role: str, namespace: str, instance: str, seconds: int, kubeconfig: Path | None) -> None:
    """Take guests down in order, and strip our finalizers (run by the chart's pre-delete hook)."""
    configure_logging("info", json=True)
    deadline = Deadline(seconds)
    kube = KubeClient.from_kubeconfig(kubeconfig) if kubeconfig else KubeClient.from_incluster()
    async with kube:
        await stop_processes(kube, namespace, instance, deadline)
        if role in ("home", "both"):
            await leave_home(kube, namespace, deadline)
        if role in ("hub", "both"):
            await leave_hub(kube, deadline)
