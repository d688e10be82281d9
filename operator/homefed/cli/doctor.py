"""`homefed doctor meter`: what must change in a home's Prometheus so that its meter reads right.

Where Prometheus can be reached: in the agent's pod, which knows the address by its environment,

    kubectl -n homefed exec deploy/homefed-agent -- python3 -m homefed doctor meter

or anywhere with `--prometheus-url`, for instance through `kubectl port-forward`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from homefed.api import names
from homefed.api.errors import HomefedError, Invalid
from homefed.cli.cluster import asynchronous, default_kubeconfig
from homefed.cli.output import json_option, show, table
from homefed.cli.processes import FILE, prometheus_options
from homefed.core.meter_advice import Advice, Change
from homefed.core.meter_doctor import examine
from homefed.core.meter_facts import Guest, Node
from homefed.core.times import from_rfc3339
from homefed.kube.client import KubeClient
from homefed.kube.resources import NODES, PODS

Row = dict[str, Any]

_SECRET = "prometheus.existingSecret"  # noqa: S105 - a value's name
_REMEDIES = {
    "PrometheusDown": Change("chart", "prometheus.url", "an address that answers from here"),
    "UntrustedCertificate": Change("chart", f"{_SECRET}, key ca.crt", "the authority of its certificate"),
    "ClientCertificateRefused": Change("chart", f"{_SECRET}, keys tls.crt and tls.key", "a pair that it accepts"),
    "QueryRefused": Change("chart", f"prometheus.url, {_SECRET}", "its API, and credentials that may query"),
    "MalformedAnswer": Change("chart", "prometheus.url", "the address of a Prometheus, with its path prefix"),
    "PartialAnswer": Change("Thanos or VictoriaMetrics", "stores", "all of them up"),
}
"""What to change where Prometheus cannot be asked at all."""


@click.group()
def doctor() -> None:
    """Finds what is set wrong, and says what to change."""


@doctor.command()
@prometheus_options
@click.option("--guests-namespace", default=names.GUESTS_NAMESPACE, show_default=True)
@click.option("--kubeconfig", type=FILE, default=None, help="The home's. Default: in a pod its own rights, else yours.")
@click.option("--context", default=None, help="Context of the kubeconfig; default: its current one.")
@json_option
@click.pass_context
def meter(ctx: click.Context, /, output: str, **options: Any) -> None:
    """Examine the Prometheus that this home's meter reads. Exit code 1: something must change."""
    found = _examined(**options)
    show(found, output, _text)
    if not found["ok"]:
        ctx.exit(1)


@asynchronous
async def _examined(
    prometheus_url: str,
    prometheus_auth_dir: Path | None,
    prometheus_timeout_seconds: int,
    scrape_interval_seconds: int,
    guests_namespace: str,
    kubeconfig: Path | None,
    context: str | None,
) -> Row:
    from homefed.metering.access import PrometheusConfig
    from homefed.metering.connection import Connection
    from homefed.metering.doctor import gather, version

    if not prometheus_url:
        raise Invalid(
            "no address of a Prometheus: give --prometheus-url, or run this in the agent's pod", reason="NoPrometheus"
        )
    config = PrometheusConfig.from_folder(
        prometheus_url,
        prometheus_auth_dir,
        namespace=guests_namespace,
        timeout_seconds=prometheus_timeout_seconds,
    )
    nodes, guests, cluster = await _cluster(kubeconfig, context, guests_namespace)
    connection = Connection(config)
    told = ""
    try:
        told = await version(connection)
        facts = await gather(
            connection,
            interval_seconds=scrape_interval_seconds,
            namespace=guests_namespace,
            nodes=nodes,
            guests=guests,
        )
        advice = examine(facts)
    except HomefedError as error:
        remedy = _REMEDIES.get(error.reason)
        advice = [Advice(error.reason, prometheus_url, error.message, (remedy,) if remedy else ())]
    finally:
        connection.close()
    return _answer(prometheus_url, told, [*advice, *cluster])


async def _cluster(
    kubeconfig: Path | None, context: str | None, namespace: str
) -> tuple[list[Node] | None, list[Guest] | None, list[Advice]]:
    """Machines and guests as the home's API server has them; what it does not tell is said, and stops nothing."""
    kube = _client(kubeconfig, context)
    if kube is None:
        text = "no kubeconfig and no pod's rights; not looked at: machines that are not scraped, guests without samples"
        return None, None, [Advice("ClusterNotTold", "Kubernetes", text, must=False)]
    try:
        async with kube:
            nodes = [_node(one) for one in (await kube.list(NODES)).items]
            pods = (await kube.list(PODS, namespace)).items
    except HomefedError as error:
        return None, None, [Advice("ClusterNotTold", "Kubernetes", error.message, must=False)]
    return nodes, list(_guests(pods)), []


def _client(kubeconfig: Path | None, context: str | None) -> KubeClient | None:
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return KubeClient.from_incluster()
    path = kubeconfig or default_kubeconfig()
    return KubeClient.from_kubeconfig(path, context) if kubeconfig is not None or path.is_file() else None


def _node(node: Row) -> Node:
    labels = node["metadata"].get("labels") or {}
    return Node(node["metadata"]["name"], labels.get(names.LABEL_VIRTUAL) == names.VIRTUAL_NODE_TYPE)


def _guests(pods: Iterable[Row]) -> Iterable[Guest]:
    for pod in pods:
        name, state = pod["metadata"]["name"], pod.get("status") or {}
        if name.startswith(names.NODE_PREFIX) and state.get("phase") == "Running":
            with suppress(KeyError, ValueError):  # without a start it is not judged yet
                since = from_rfc3339(state["startTime"])
                yield Guest(name, pod["spec"].get("nodeName", ""), round(since.timestamp() * 1000))


def _answer(url: str, told: str, advice: list[Advice]) -> Row:
    return {
        "prometheus": url,
        "version": told,
        "ok": not any(one.must for one in advice),
        "advice": [asdict(one) for one in advice],
    }


def _text(found: Row) -> str:
    version = f", version {found['version']}" if found["version"] else ""
    verdict = "nothing must change" if found["ok"] else "the meter reads wrong until this is changed"
    head = f"{found['prometheus']}{version}: {verdict}"
    rows = [
        ["change" if one["must"] else "note", one["code"], one["subject"], one["found"], _changes(one["changes"])]
        for one in found["advice"]
    ]
    return f"{head}\n\n{table('', ['', 'CODE', 'WHERE', 'FOUND', 'SET'], rows)}" if rows else head


def _changes(changes: list[Row]) -> str:
    return "\n".join(f"{one['where']}: {one['field']} = {one['to']}" for one in changes)
