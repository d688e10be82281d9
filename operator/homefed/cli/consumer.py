"""`homefed consumer`: which namespaces may use a pool. Done with the organiser's own rights, not the operator's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from homefed.api import names
from homefed.api.errors import Invalid, NotFound
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.invite import CLI_MANAGER
from homefed.cli.output import json_option, show, table
from homefed.kube.client import KubeClient
from homefed.kube.resources import LIMITRANGES, NAMESPACES, ROLEBINDINGS, SCHEDULINGPOOLS, Resource

DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
BINDING: Final = names.CONSUMER_ROLE
LIMIT_RANGE: Final = "homefed-default-requests"
DEFAULT_REQUESTS: Final = {"cpu": "100m", "memory": "128Mi", "ephemeral-storage": "256Mi"}


@click.group()
def consumer() -> None:
    """Namespaces that may use a pool."""


@consumer.command()
@click.argument("namespace")
@click.option("--pool", default=None, help="Default: the only pool there is.")
@click.option("--no-limit-range", is_flag=True, help="Leave out the LimitRange with default requests.")
@click.option(
    "--hub-service-account", default=None, help="NAMESPACE/NAME of the hub operator; default: found by its labels."
)
@cluster_options
@json_option
@asynchronous
async def enable(
    namespace: str,
    pool: str | None,
    no_limit_range: bool,
    hub_service_account: str | None,
    kubeconfig: Path,
    context: str | None,
    output: str,
) -> None:
    """Let the pods of NAMESPACE use a pool."""
    async with client(kubeconfig, context) as kube:
        pool = await _pool(kube, pool)
        await _require_namespace(kube, namespace)
        operator = _split(hub_service_account) if hub_service_account else await _operator(kube)
        await kube.apply(ROLEBINDINGS, _binding(namespace, operator), field_manager=CLI_MANAGER)
        if not no_limit_range:
            await kube.apply(LIMITRANGES, _limit_range(namespace), field_manager=CLI_MANAGER)
        label = {"metadata": {"labels": {names.enabled_label(pool): "enabled"}}}
        await kube.patch(NAMESPACES, namespace, label)
    answer = {"namespace": namespace, "pool": pool, "defaultRequests": None if no_limit_range else DEFAULT_REQUESTS}
    show(answer, output, _explain)


def _explain(answer: dict[str, Any]) -> str:
    text = f"Namespace {answer['namespace']} may use pool {answer['pool']}: pods say"
    text += f" `runtimeClassName: {names.runtime_class(answer['pool'])}`."
    if answer["defaultRequests"]:
        requests = ", ".join(f"{key} {value}" for key, value in answer["defaultRequests"].items())
        text += f"\nLimitRange {LIMIT_RANGE} gives containers without requests: {requests}. It holds for ALL pods there"
        text += " (leave it out with --no-limit-range)."
    return text


@consumer.command()
@click.argument("namespace")
@click.option("--pool", default=None, help="Default: the only pool there is.")
@cluster_options
@json_option
@asynchronous
async def disable(namespace: str, pool: str | None, kubeconfig: Path, context: str | None, output: str) -> None:
    """Take the pool from NAMESPACE: no new pods; what runs goes on."""
    async with client(kubeconfig, context) as kube:
        pool = await _pool(kube, pool)
        label = {"metadata": {"labels": {names.enabled_label(pool): None}}}
        left = await kube.patch(NAMESPACES, namespace, label)
        if not _pools_of(left):
            await kube.delete(ROLEBINDINGS, BINDING, namespace)
            await kube.delete(LIMITRANGES, LIMIT_RANGE, namespace)
    show(
        {"namespace": namespace, "pool": pool},
        output,
        lambda a: f"Namespace {a['namespace']}: no new pods in {a['pool']}.",
    )


@consumer.command(name="list")
@cluster_options
@json_option
@asynchronous
async def list_(kubeconfig: Path, context: str | None, output: str) -> None:
    """The enabled namespaces."""
    async with client(kubeconfig, context) as kube:
        namespaces = (await kube.list(NAMESPACES)).items
    rows = [{"namespace": n["metadata"]["name"], "pools": _pools_of(n)} for n in namespaces if _pools_of(n)]
    show(
        rows,
        output,
        lambda found: table("", ["NAMESPACE", "POOLS"], [[r["namespace"], ", ".join(r["pools"])] for r in found]),
    )


def _pools_of(namespace: dict[str, Any]) -> list[str]:
    labels = namespace["metadata"].get("labels") or {}
    prefix = names.LABEL_ENABLED_PREFIX
    return sorted(
        key.removeprefix(prefix) for key, value in labels.items() if key.startswith(prefix) and value == "enabled"
    )


async def _pool(kube: KubeClient, pool: str | None) -> str:
    found = [item["metadata"]["name"] for item in (await kube.list(SCHEDULINGPOOLS)).items]
    if pool is None and len(found) == 1:
        return str(found[0])
    if pool is None:
        raise Invalid(
            f"--pool is needed: there are {len(found)} pools ({', '.join(found) or 'apply a SchedulingPool first'})"
        )
    if pool not in found:
        raise Invalid(
            f"--pool {pool!r}: there is no such SchedulingPool ({', '.join(found) or 'none at all'})",
            reason="UnknownPool",
        )
    return pool


async def _require_namespace(kube: KubeClient, namespace: str) -> None:
    if namespace.startswith((names.MAILBOX_PREFIX, "kube-")):
        raise Invalid(f"NAMESPACE {namespace!r} is not a consumer's")
    try:
        await kube.get(NAMESPACES, namespace)
    except NotFound:
        raise Invalid(f"NAMESPACE {namespace!r}: there is none; `kubectl create namespace {namespace}` first") from None


async def _operator(kube: KubeClient) -> tuple[str, str]:
    """Namespace and name of the hub operator's ServiceAccount."""
    selector = "app.kubernetes.io/name=homefed,app.kubernetes.io/component=hub"
    found = (await kube.list(DEPLOYMENTS, label_selector=selector)).items
    if len(found) != 1:
        raise Invalid(
            f"{len(found)} hub operators found by label {selector}; name its account with --hub-service-account"
        )
    return found[0]["metadata"]["namespace"], found[0]["spec"]["template"]["spec"]["serviceAccountName"]


def _split(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (slash and namespace and name):
        raise Invalid(f"--hub-service-account {text!r}: write NAMESPACE/NAME")
    return namespace, name


def _binding(namespace: str, operator: tuple[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": BINDING, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.CONSUMER_ROLE},
        "subjects": [{"kind": "ServiceAccount", "namespace": operator[0], "name": operator[1]}],
    }


def _limit_range(namespace: str) -> dict[str, Any]:
    """Only `defaultRequest`: `default`, `max` or `min` would set limits on every pod of the namespace."""
    return {
        "metadata": {"name": LIMIT_RANGE, "namespace": namespace},
        "spec": {"limits": [{"type": "Container", "defaultRequest": DEFAULT_REQUESTS}]},
    }
