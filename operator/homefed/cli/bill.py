"""`homefed bill`: what a namespace owes for a month, line by line from the other side of what homes earned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from homefed.api.errors import Incident, Invalid
from homefed.api.names import consumer_account
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.earnings import by_resource
from homefed.cli.ledger_reading import federation_of, moment, open_reader, reading_options, told
from homefed.cli.output import credits, json_option, show, table
from homefed.core import earnings as core
from homefed.core.windows import text as time_text
from homefed.kube.resources import NAMESPACES
from homefed.ledger_client.log_reader import LogReader
from homefed.ledger_client.postings import Statement, read_postings

Json = dict[str, Any]


@click.command()
@click.argument("namespace")
@reading_options
@click.option("--namespace-uid", default=None, help="In place of asking the hub's API server for it.")
@cluster_options
@json_option
@asynchronous
async def bill(
    namespace: str,
    url: str | None,
    ca: Path | None,
    token_file: Path | None,
    at: str,
    namespace_uid: str | None,
    kubeconfig: Path,
    context: str | None,
    output: str,
) -> None:
    """What NAMESPACE owes for this month (UTC): by resource, by home, and where it went.

    For one who may `get consumerstatements.homefed.io` in it, with a token for the ledger:
    `kubectl -n NAMESPACE create token NAME --audience homefed-ledger > FILE`.
    """
    if url is None:
        raise Invalid("--url: of the ledger; its lines are the bill", reason="InvalidOption")
    now = moment(at)
    uid = namespace_uid or await _uid(kubeconfig, context, namespace)
    async with open_reader(url, ca, token_file) as reader:
        found, account = await _read(reader, namespace, uid, now)
    show(_answer(namespace, account, found, now), output, _text)


async def _uid(kubeconfig: Path, context: str | None, namespace: str) -> str:
    async with client(kubeconfig, context) as kube:
        return str((await kube.get(NAMESPACES, namespace))["metadata"]["uid"])


async def _read(reader: LogReader, namespace: str, uid: str, now: int) -> tuple[Statement, str]:
    account = consumer_account(await federation_of(reader), uid)
    since = core.month(now).since
    return await read_postings(reader, account, since, namespace=namespace, progress=told), account


def _answer(namespace: str, account: str, found: Statement, now: int) -> Json:
    month = core.month(now)
    postings = [one for one in found.postings if one.window.start <= now]
    rows = core.by_line(postings, month)
    whole = core.by_consumer(postings, month).get(core.Delivered(consumer=account), core.Row())
    of_lines = sum(row.charged for row in rows.values())
    if not found.without_lines and of_lines != whole.charged:
        raise Incident(
            f"the lines of {account} come to {of_lines} µcredit, the claims charge {whole.charged}",
            reason="LinesDiffer",
        )
    pending = sum(
        one.sign * core.share_of(one, account).charged
        for one in postings
        if one.state in core.WAITING and month.holds(one)
    )
    notes = [f"{found.without_lines} claims have no lines any more: not in the tables"] if found.without_lines else []
    return {
        "namespace": namespace,
        "account": account,
        "at": time_text(now),
        "monthSince": time_text(month.since),
        **{name: value for name, value in whole.dump().items() if name not in ("units", "earnedMicro")},
        "linesMicro": of_lines,
        "pendingMicro": pending,
        "owedMicro": found.due,
        "byResource": [
            {"resource": key.resource, "basis": key.basis, "unit": key.unit, **row.dump()}
            for key, row in sorted(core.summed(rows, "resource", "basis", "unit").items())
        ],
        "byHome": [{"home": key.home, **row.dump()} for key, row in sorted(core.summed(rows, "home").items())],
        "notes": notes,
    }


def _text(answer: Mapping[str, Any]) -> str:
    went = " + ".join(f"{name} {credits(answer[f'{name}Micro'])}" for name in ("paid", "held", "fee", "dust"))
    lines = [
        f"namespace {answer['namespace']} ({answer['account']}), from {answer['monthSince']} to {answer['at']}",
        f"charged {credits(answer['chargedMicro'])} = {went}",
        f"pending {credits(answer['pendingMicro'])}; owed, of all months: {credits(answer['owedMicro'])}",
        "",
        by_resource(answer["byResource"], "CHARGED"),
        "",
    ]
    if answer["byHome"]:
        cells = [
            [row["home"], *(credits(row[f"{name}Micro"]) for name in ("charged", "paid", "held", "fee", "dust"))]
            for row in answer["byHome"]
        ]
        lines.append(table("by home, this month", ["HOME", "CHARGED", "PAID", "HELD", "FEE", "DUST"], cells))
    return "\n".join([*lines, *answer["notes"]])
