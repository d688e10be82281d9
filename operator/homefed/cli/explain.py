"""`homefed claims explain`: each line of a claim with its formula, its inputs, and what would have raised it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.errors import Invalid
from homefed.cli.claim_files import ClaimFile, from_file, from_hub
from homefed.cli.cluster import asynchronous, client, cluster_options
from homefed.cli.ledger_options import FILE
from homefed.cli.output import credits, json_option, show
from homefed.core import explain as explaining
from homefed.core.rewards import observation

Row = dict[str, Any]


@click.command()
@click.argument("claim", default="")
@click.option(
    "--file", "path", type=FILE, default=None, help="A claim (`claims show -o json`) or a bundle, not the hub."
)
@click.option("--mailbox", default=None, help="Look into this mailbox only: all that a contributor can read.")
@click.option("--guest", default="", help="Lines of this guest pod only (beginning of its UID).")
@cluster_options
@json_option
@asynchronous
async def explain(
    claim: str,
    path: Path | None,
    mailbox: str | None,
    guest: str,
    kubeconfig: Path,
    context: str | None,
    output: str,
) -> None:
    """Why CLAIM (the beginning of its id) pays what it pays, line by line, and what would have raised it."""
    if (path is None) == (not claim):
        raise Invalid("CLAIM: name a claim of the hub, or give --file FILE; one of both", reason="InvalidOption")
    if path is not None:
        found = from_file(path)
    else:
        async with client(kubeconfig, context) as kube:
            found = await from_hub(kube, claim, mailbox)
    show(explained(found, guest), output, _text)


def explained(found: ClaimFile, guest: str = "") -> Row:
    header = found.header
    window = explaining.window_of(header)
    guests = {one.uid: one for one in map(observation, found.guests)}
    lines = [line for part in found.parts for line in part.lines if line.guest_pod.startswith(guest)]
    rows = [_line(line, header, explaining.explain_line(line, window, guests.get(line.guest_pod))) for line in lines]
    return {
        "claim": header.id,
        "pool": header.pool,
        "windowStart": header.window_start,
        "windowEnd": header.window_end,
        "chargedMicro": int(header.charged),
        "paidMicro": int(header.paid),
        **explaining.explain_header(header).dump(),
        "lines": rows,
    }


def _line(line: Line, header: ClaimHeader, found: explaining.Explained) -> Row:
    own = line.dump()
    return {name: own[name] for name in ("guestPod", "consumer", "resource", "basis", "unit")} | {
        "reported": line.reported,
        "bound": line.bound,
        "accepted": line.accepted,
        "acceptedBefore": line.accepted_before,
        "amountMicro": int(line.amount),
        "codes": line.codes,
        "reading": own.get("reading"),
        **found.dump(),
    }


def _text(answer: Mapping[str, Any]) -> str:
    span = f"({answer['windowStart']}, {answer['windowEnd']}]"
    head = [
        f"claim {answer['claim']}, pool {answer['pool']}, {span}",
        f"charged {credits(answer['chargedMicro'])}, paid {credits(answer['paidMicro'])}",
        *_steps(answer),
    ]
    blocks = ["\n".join(head)]
    for row in answer["lines"]:
        first = f"{row['guestPod']}  {row['resource']} {row['basis']}  {credits(row['amountMicro'])}"
        read = row["reading"]
        inputs = [
            f"  reported {row['reported']}, bound {row['bound']}, accepted before {row['acceptedBefore']} {row['unit']}"
        ]
        if read is not None:
            inputs.append(
                f"  reading {read['open']} → {read['close']}, {read['samples']} of {read['expected']} samples,"
                f" {read['gaps']} gaps, {read['resets']} resets"
            )
        blocks.append("\n".join([first, *inputs, *_steps(row)]))
    return "\n\n".join(blocks)


def _steps(row: Mapping[str, Any]) -> list[str]:
    lines = []
    for step in row["steps"]:
        verdict = "" if step["holds"] else "   THE DOCUMENT SAYS OTHERWISE"
        lines.append(f"  {step['result']} = {step['formula']} = {step['figures']} = {step['value']}{verdict}")
    for hint in row["hints"]:
        worth = f" (up to {credits(hint['worth'])})" if hint["worth"] else ""
        lines.append(f"  {hint['code']}: {hint['text']}{worth}")
    return lines
