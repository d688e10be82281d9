"""`homefed budget`: how much the namespaces of consumers may be charged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import click

from homefed.api import names
from homefed.api.errors import Invalid, NotFound
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.output import credits, json_option, show, table
from homefed.kube.client import KubeClient
from homefed.kube.resources import CONSUMERBUDGETS, NAMESPACES

Row = dict[str, Any]
FIELD_MANAGER: Final = "homefed-cli"
DEFAULT_NAME: Final = {"Month": "monthly", "Total": "total"}
_CREDITS = re.compile(r"(\d{1,9})(?:\.(\d{1,6}))?")


@click.group()
def budget() -> None:
    """Budgets of consumers' namespaces."""


@budget.command(name="list")
@cluster_options
@json_option
@asynchronous
async def list_(kubeconfig: Path, context: str | None, output: str) -> None:
    """All budgets, with what is spent, under way and left."""
    async with client(kubeconfig, context) as kube:
        rows = [_row(item) for item in (await kube.list(CONSUMERBUDGETS)).items]
    show(sorted(rows, key=lambda row: (row["namespace"], row["name"])), output, _text)


@budget.command(name="show")
@click.argument("namespace")
@cluster_options
@json_option
@asynchronous
async def show_(namespace: str, kubeconfig: Path, context: str | None, output: str) -> None:
    """The budgets of one NAMESPACE and what they say."""
    async with client(kubeconfig, context) as kube:
        await _check_namespace(kube, namespace)
        rows = [_row(item) for item in (await kube.list(CONSUMERBUDGETS, namespace)).items]
    show(rows, output, lambda found: _text(found) if found else f"namespace {namespace} has no budget")


@budget.command(name="set")
@click.argument("namespace")
@click.option("--limit", required=True, help="Credits per period, with at most six decimals; 0 lets nothing new begin.")
@click.option("--period", type=click.Choice(["Month", "Total"]), default="Month", show_default=True)
@click.option("--warn", type=click.IntRange(1, 100), default=80, show_default=True, help="Per cent of the limit.")
@click.option("--name", default=None, help="Of the ConsumerBudget.  [default: monthly or total]")
@cluster_options
@json_option
@asynchronous
async def set_(
    namespace: str,
    limit: str,
    period: str,
    warn: int,
    name: str | None,
    kubeconfig: Path,
    context: str | None,
    output: str,
) -> None:
    """Give NAMESPACE a budget, or change the one that it has. What runs is not touched."""
    metadata = {"name": name or DEFAULT_NAME[period], "namespace": namespace}
    spec = {"limitMicroCredits": micro(limit), "period": period, "warnPercent": warn}
    async with client(kubeconfig, context) as kube:
        await _check_namespace(kube, namespace)
        body = {"metadata": metadata, "spec": spec}
        found = await kube.apply(CONSUMERBUDGETS, body, field_manager=FIELD_MANAGER, force=True)
    show(_row(found), output, _is_set)


def micro(limit: str) -> int:
    """µcredit of `--limit`, exactly."""
    match = _CREDITS.fullmatch(limit)
    if match is None:
        raise Invalid(f"--limit {limit!r}: write credits such as 25 or 0.5, with at most six decimals")
    return int(match[1]) * 1_000_000 + int((match[2] or "").ljust(6, "0"))


async def _check_namespace(kube: KubeClient, namespace: str) -> None:
    if namespace.startswith((names.MAILBOX_PREFIX, "kube-")):
        raise Invalid(f"NAMESPACE {namespace!r} is not a consumer's")
    try:
        await kube.get(NAMESPACES, namespace)
    except NotFound:
        raise Invalid(f"NAMESPACE {namespace!r}: there is none; see `homefed budget list`") from None


def _row(item: dict[str, Any]) -> Row:
    spec, status = item["spec"], item.get("status") or {}
    conditions = [c for c in status.get("conditions") or () if c["status"] == "True"]
    return {
        "namespace": item["metadata"]["namespace"],
        "name": item["metadata"]["name"],
        "period": spec.get("period", "Month"),
        "periodStart": status.get("periodStart"),
        "limitMicro": spec["limitMicroCredits"],
        "warnPercent": spec.get("warnPercent", 80),
        "spentMicro": _amount(status, "spent"),
        "estimatedMicro": _amount(status, "estimated"),
        "remainingMicro": _amount(status, "remaining"),
        "exhausted": bool(status.get("exhausted")),
        "says": [f"{c['type']}: {c['message']}" for c in conditions],
    }


def _amount(status: dict[str, Any], name: str) -> int | None:
    """None before the hub has looked at the budget."""
    return int(status[name]) if name in status else None


def _text(rows: list[Row]) -> str:
    columns = ("Namespace", "Budget", "Period", "Limit", "Spent", "Under way", "Left", "")
    cells = [
        (
            row["namespace"],
            row["name"],
            row["period"],
            credits(row["limitMicro"]),
            *(_credits(row[key]) for key in ("spentMicro", "estimatedMicro", "remainingMicro")),
            "exhausted" if row["exhausted"] else "low" if row["says"] else "",
        )
        for row in rows
    ]
    lines = [f"{row['namespace']}/{row['name']}: {said}" for row in rows for said in row["says"]]
    return "\n".join([table("Budgets, in credits", columns, cells), *lines])


def _credits(amount: int | None) -> str:
    return "not known yet" if amount is None else credits(amount)


def _is_set(row: Row) -> str:
    return (
        f"{row['namespace']}/{row['name']}: {credits(row['limitMicro'])} credits"
        f" {'a month' if row['period'] == 'Month' else 'in total'}, a warning at {row['warnPercent']} %.\n"
        f"`homefed budget show {row['namespace']}` shows what is spent."
    )
