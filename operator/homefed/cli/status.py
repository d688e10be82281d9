"""`homefed status`: what is there, on a hub and at home, in one look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from homefed.api.errors import HomefedError, NotFound, Transient
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.output import json_option, show, table
from homefed.core import conditions
from homefed.kube.client import KubeClient
from homefed.kube.resources import CONTRIBUTIONS, GUESTPODS, HOMES, SCHEDULINGPOOLS, Resource

Row = dict[str, Any]


@click.command()
@cluster_options
@json_option
@asynchronous
async def status(kubeconfig: Path, context: str | None, output: str) -> None:
    """Pools, homes and guests of a hub; contributions of a home."""
    async with client(kubeconfig, context) as kube:
        found = {
            "pools": await _rows(kube, SCHEDULINGPOOLS, _pool),
            "homes": await _rows(kube, HOMES, _home),
            "guests": await _rows(kube, GUESTPODS, _guest),
            "contributions": await _rows(kube, CONTRIBUTIONS, _contribution),
        }
    show({kind: rows for kind, rows in found.items() if rows is not None}, output, _text)


async def _rows(kube: KubeClient, resource: Resource, row: Callable[[Row], Row]) -> list[Row] | None:
    """None where the kind is not installed in this cluster."""
    try:
        return [row(item) for item in (await kube.list(resource)).items]
    except (NotFound, Transient) as error:
        if not await _is_served(kube, resource):
            return None
        raise error


async def _is_served(kube: KubeClient, resource: Resource) -> bool:
    try:
        served = await kube.request("GET", f"/apis/{resource.group}/{resource.version}")
    except HomefedError:
        return False
    return any(entry.get("name") == resource.plural for entry in served.get("resources", []))


def _common(item: Row) -> Row:
    ready = conditions.get((item.get("status") or {}).get("conditions"), "Ready") or {}
    text = f"{ready.get('reason', '')}: {ready.get('message', '')}" if ready.get("status") != "True" and ready else ""
    return {"name": item["metadata"]["name"], "ready": ready.get("status", "Unknown"), "why": text}


def _pool(item: Row) -> Row:
    state = item.get("status") or {}
    capacity = state.get("capacity") or {}
    return _common(item) | {
        "homes": state.get("homes", 0),
        "machines": f"{state.get('readyMachines', 0)}/{state.get('machines', 0)}",
        "cpu": capacity.get("cpu", "0"),
        "memory": capacity.get("memory", "0"),
    }


def _home(item: Row) -> Row:
    state = item.get("status") or {}
    fingerprint = (state.get("key") or {}).get("fingerprint", "")
    return _common(item) | {
        "machines": state.get("machines", 0),
        "guests": state.get("guests", 0),
        "fingerprint": fingerprint,
    }


def _guest(item: Row) -> Row:
    spec, state = item["spec"], item.get("status") or {}
    return _common(item) | {
        "pod": f"{spec['podNamespace']}/{spec['podName']}",
        "node": spec["nodeName"],
        "phase": state.get("phase", "Pending"),
        "why": state.get("message", ""),
    }


def _contribution(item: Row) -> Row:
    state = item.get("status") or {}
    offered = state.get("offered") or {}
    return _common(item) | {
        "pool": item["spec"]["poolName"],
        "state": item["spec"].get("state", "Active"),
        "machines": state.get("machines", 0),
        "cpu": offered.get("cpu", "0"),
        "memory": offered.get("memory", "0"),
        "guests": state.get("guests", 0),
        "fingerprint": state.get("keyFingerprint", ""),
    }


def _text(found: dict[str, list[Row]]) -> str:
    if not found:
        return "HomeFed is not installed in this cluster: no kind of homefed.io is served."
    return "\n\n".join(_table(kind, rows) for kind, rows in found.items())


def _table(kind: str, rows: list[Row]) -> str:
    if not rows:
        return f"{kind}: none"
    columns = [column for column in rows[0] if column != "why"] + ["why"]
    return table(kind, [column.upper() for column in columns], [[row[column] for column in columns] for row in rows])
