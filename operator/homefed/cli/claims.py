"""`homefed claims`: reward claims as the hub keeps them, and what stands in one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from homefed.api import dsse, names
from homefed.api.canonical import parse
from homefed.api.errors import Invalid
from homefed.cli.claim_files import MAX_FILE, mailbox_option, objects_of, part_of
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.correct import correct
from homefed.cli.explain import explain
from homefed.cli.output import credits, json_option, show, table
from homefed.cli.recompute import recompute_
from homefed.core import conditions, signed_note, standstill, tlog_proof
from homefed.core.ledger_reading import stored_header
from homefed.kube.client import KubeClient
from homefed.kube.resources import HOMES, REWARDCLAIMS

Row = dict[str, Any]


@click.group()
def claims() -> None:
    """Reward claims."""


@claims.command(name="list")
@click.option("--home", default=None, help="Of this home only.")
@mailbox_option
@cluster_options
@json_option
@asynchronous
async def list_(home: str | None, mailbox: str | None, kubeconfig: Path, context: str | None, output: str) -> None:
    """All claims that the hub still keeps (seven days after the receipt; the ledger keeps them for ever)."""
    async with client(kubeconfig, context) as kube:
        found = [_row(item) for item in await _headers(kube, mailbox)]
    rows = sorted(
        (row for row in found if home in (None, row["home"])), key=lambda row: (row["windowEnd"], row["home"])
    )
    show(rows, output, _text)


@claims.command(name="show")
@click.argument("claim")
@mailbox_option
@cluster_options
@json_option
@asynchronous
async def show_(claim: str, mailbox: str | None, kubeconfig: Path, context: str | None, output: str) -> None:
    """One claim with its lines; CLAIM is the beginning of its id."""
    async with client(kubeconfig, context) as kube:
        header, *parts = await objects_of(kube, claim, mailbox)
    documents = [part_of(item) for item in parts]
    answer = _row(header) | {
        "header": _payload(header),
        "lines": [line for document in documents for line in document["lines"]],
        "parts": documents,
        "envelope": dsse.decode(header["spec"]["envelope"]).to_json(),
        "receipt": (header.get("status") or {}).get("receipt"),
        "leafIndex": (header.get("status") or {}).get("leafIndex"),
    }
    show(answer, output, _shown)


@claims.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--key", "vkey", required=True, help="The ledger's verifier key; you were given it, do not ask now.")
@json_option
def verify(file: Path, vkey: str, output: str) -> None:
    """Check a receipt offline. FILE is what `homefed claims show CLAIM -o json` wrote."""
    document = parse(file.read_bytes(), limit=MAX_FILE)
    if not isinstance(document, dict) or not isinstance(document.get("receipt"), str):
        raise Invalid(f"{file}: no claim with a receipt, as `homefed claims show CLAIM -o json` writes it")
    envelope = dsse.from_json(document.get("envelope"))
    found = tlog_proof.verify(document["receipt"], envelope.canonical(), signed_note.parse_vkey(vkey))
    header = stored_header(envelope.canonical())
    answer = {
        "claim": header.id,
        "log": found.checkpoint.origin,
        "leafIndex": found.index,
        "treeSize": found.checkpoint.size,
        "chargedMicro": int(header.charged),
        "paidMicro": int(header.paid),
    }
    show(answer, output, _verified)


@claims.command()
@click.argument("home")
@click.option("--resend", is_flag=True, help="Send also what the ledger has receipted and lost (an older backup).")
@cluster_options
@json_option
@asynchronous
async def resume(home: str, resend: bool, kubeconfig: Path, context: str | None, output: str) -> None:
    """Let settlement of HOME go on after it has stopped; see the Home's condition Settled for why it did.

    The claims that are here are sent again as they are; ledgers give each claim one place, however often it is sent.
    """
    how = standstill.RESUME_RESEND if resend else standstill.RESUME_RETRY
    async with client(kubeconfig, context) as kube:
        await kube.patch(HOMES, home, {"metadata": {"annotations": {names.ANNOTATION_RESUME: how}}})
    text = f"the hub goes on with {home} at its next pass; see condition Settled of `kubectl describe home {home}`"
    show({"home": home, "resume": how}, output, lambda _: text)


claims.add_command(explain)
claims.add_command(correct)
claims.add_command(recompute_)


async def _headers(kube: KubeClient, mailbox: str | None) -> list[Row]:
    return [item for item in (await kube.list(REWARDCLAIMS, mailbox)).items if item["spec"]["part"] == "Header"]


def _verified(answer: Row) -> str:
    where = f"leaf {answer['leafIndex']} of {answer['treeSize']} in {answer['log']}"
    money = f"charged {credits(answer['chargedMicro'])}, paid {credits(answer['paidMicro'])}"
    return f"claim {answer['claim']}: {money}\nthe receipt holds: {where}"


def _row(item: Row) -> Row:
    spec, state = item["spec"], item.get("status") or {}
    ready = conditions.get(state.get("conditions"), "Ready") or {}
    return {
        "claim": spec["claimId"],
        "home": item["metadata"]["namespace"].removeprefix("homefed-home-"),
        "pool": spec["poolName"],
        "windowStart": spec["windowStart"],
        "windowEnd": spec["windowEnd"],
        "sequence": spec["sequence"],
        "chargedMicro": int(spec["charged"]),
        "paidMicro": int(spec["paid"]),
        "receipted": state.get("receiptedAt"),
        "state": ready.get("reason", "Pending"),
    }


def _payload(item: Row) -> Any:
    return json.loads(dsse.decode(item["spec"]["envelope"]).payload)


def _text(rows: list[Row]) -> str:
    if not rows:
        return "no claims yet: the first comes after a settlement window in which a guest ran"
    columns = ["CLAIM", "HOME", "POOL", "WINDOW-END", "SEQ", "CHARGED", "PAID", "STATE"]
    return table("", columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[Any]:
    money = [credits(row["chargedMicro"]), credits(row["paidMicro"])]
    return [row["claim"][:12], row["home"], row["pool"], row["windowEnd"], row["sequence"], *money, row["state"]]


def _shown(answer: Row) -> str:
    columns = ["GUEST", "RESOURCE", "BASIS", "UNIT", "REPORTED", "BOUND", "ACCEPTED", "RATE", "AMOUNT", "CODES"]
    window = f"({answer['windowStart']}, {answer['windowEnd']}]"
    head = f"claim {answer['claim']}\nhome {answer['home']}, pool {answer['pool']}, {window}"
    money = f"charged {credits(answer['chargedMicro'])}, paid {credits(answer['paidMicro'])}, {answer['state']}"
    return f"{head}\n{money}\n\n{table('', columns, [_line_cells(line) for line in answer['lines']])}"


def _line_cells(line: Row) -> list[str]:
    plain = [line[key] for key in ("guestPod", "resource", "basis", "unit", "reported", "bound", "accepted")]
    rate = f"{line['rate']['microCredits']}µ/{line['rate']['per']}"
    return [*plain, rate, credits(int(line["amount"])), " ".join(line["codes"])]
