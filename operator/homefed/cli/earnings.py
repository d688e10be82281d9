"""`homefed earnings`: what a home has earned, what is on its way, and what the month comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import click

from homefed.api.errors import Invalid
from homefed.cli.as_home import Mailbox, mailbox_of
from homefed.cli.claim_files import mailbox_option
from homefed.cli.cluster import asynchronous, cluster_options
from homefed.cli.ledger_reading import moment, open_reader, reading_options, told
from homefed.cli.mailbox_postings import Box, look
from homefed.cli.output import credits, json_option, show, table
from homefed.core import earnings as core
from homefed.core.earnings import Delivered, Posting, Row
from homefed.core.windows import text as time_text
from homefed.ledger_client.postings import MAX_CLAIMS, Statement, read_postings

Json = dict[str, Any]
MAX_SIGNED: Final = 1500
"""Claims that are read with lines: the ledger takes 2000 signed requests of a home in ten minutes."""
SEVEN_DAYS: Final = "the mailbox has the claims of the last seven days only: --url of the ledger shows the whole month"


@click.command()
@reading_options
@mailbox_option
@click.option("--namespace", default="homefed", show_default=True, help="Of the home's release.")
@click.option("--release", default="homefed", show_default=True, help="Name of the home's release.")
@click.option("--kwh", default=None, help="What the machines have taken this month so far.")
@click.option("--tariff", default=None, help="Price of a kWh, in credits.")
@cluster_options
@json_option
@asynchronous
async def earnings(
    url: str | None,
    ca: Path | None,
    token_file: Path | None,
    at: str,
    mailbox: str | None,
    namespace: str,
    release: str,
    kwh: str | None,
    tariff: str | None,
    kubeconfig: Path,
    context: str | None,
    output: str,
) -> None:
    """What this home has earned: today, this month (UTC), pending, held; and an estimate of the whole month.

    With the kubeconfig of a home: its agent's Secrets give the way to its mailbox, and the key that signs requests to
    the ledger (--url). With that of the hub: name the --mailbox, and give the --token-file of a submitter for --url.
    """
    energy, now = _energy(kwh, tariff), moment(at)
    async with mailbox_of(kubeconfig, context, mailbox, namespace, release) as found:
        box = await look(found)
    statement = await _statement(box, found, url, ca, token_file, now) if url is not None else None
    show(_answer(box, statement, now, energy), output, _text)


async def _statement(
    box: Box, found: Mailbox, url: str, ca: Path | None, token_file: Path | None, now: int
) -> Statement:
    since = min(core.month(now).since, now - core.BASIS_SECONDS)
    async with open_reader(url, ca, token_file, found.key, box.federation) as reader:
        most = MAX_SIGNED if token_file is None else MAX_CLAIMS
        return await read_postings(reader, box.account, since, most_lines=most, progress=told)


def _answer(box: Box, statement: Statement | None, now: int, energy: tuple[int, int] | None) -> Json:
    postings = box.postings
    if statement is not None:
        known = {one.header.id for one in statement.postings}
        late = [one for one in box.postings if one.state == "unreceipted" and one.header.id not in known]
        postings = [*statement.postings, *late]
    postings = [one for one in postings if one.window.start <= now]
    month, rows = core.month(now), core.by_line(postings, core.month(now))
    guess = core.estimate(postings, now)
    pending = core.total(postings, core.Period(0, now + 1), core.WAITING)
    answer: Json = {
        "account": box.account,
        "source": "mailbox" if statement is None else "ledger",
        "at": time_text(now),
        "monthSince": time_text(month.since),
        "today": core.total(postings, core.day(now)).dump(),
        "month": core.total(postings, month).dump(),
        "pending": {"claims": pending.claims, "earnedMicro": pending.earned, "states": _states(postings)},
        "heldMicro": box.held if statement is None else statement.held,
        "dueMicro": None if statement is None else statement.due,
        "byResource": _rows(core.summed(rows, "resource", "basis", "unit"), ("resource", "basis", "unit")),
        "byConsumer": _rows(core.by_consumer(postings, month), ("consumer",), box.spaces),
        "estimate": {
            "micro": guess.micro,
            "soFarMicro": guess.so_far,
            "perHourMicro": guess.per_hour,
            "assumptions": [*guess.assumptions],
        },
        "net": None if energy is None else core.net(*energy, guess, now).dump(),
        "notes": [SEVEN_DAYS] if statement is None else [],
    }
    if statement is not None and statement.without_lines:
        answer["notes"].append(
            f"{statement.without_lines} claims have no lines any more: not in the table of resources"
        )
    return answer


def _states(postings: Sequence[Posting]) -> dict[str, int]:
    return {state: sum(one.state == state for one in postings) for state in core.WAITING}


def _rows(rows: Mapping[Delivered, Row], members: Sequence[str], names_: Mapping[str, str] | None = None) -> list[Json]:
    found = []
    for key, row in sorted(rows.items()):
        own = {member: getattr(key, member) for member in members}
        if names_ is not None:
            own["namespace"] = names_.get(key.consumer.rpartition("/")[2], "")
        found.append(own | row.dump())
    return found


def _energy(kwh: str | None, tariff: str | None) -> tuple[int, int] | None:
    """Thousandths of a kWh, and µcredit for one."""
    if kwh is None and tariff is None:
        return None
    if kwh is None or tariff is None:
        raise Invalid("--kwh and --tariff: a net needs both", reason="InvalidOption")
    return _scaled("--kwh", kwh, 1000), _scaled("--tariff", tariff, 1_000_000)


def _scaled(option: str, value: str, scale: int) -> int:
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise Invalid(f"{option}: {value[:40]!r} is no number, such as 12.5", reason="InvalidOption") from error
    if not (number.is_finite() and 0 <= number < 10**9):
        raise Invalid(f"{option}: {value[:40]!r} must be from 0 to 10^9", reason="InvalidOption")
    return int(number * scale)


def _text(answer: Mapping[str, Any]) -> str:
    sums = [_sums_row(name, answer[name]) for name in ("today", "month")]
    columns = ["", "CLAIMS", "CHARGED", "PAID", "HELD", "FEE", "RELEASED"]
    pending = answer["pending"]
    lines = [
        f"{answer['account']}, at {answer['at']}, from the {answer['source']}",
        table("", columns, sums),
        f"pending: {credits(pending['earnedMicro'])} in {pending['claims']} claims"
        f" ({', '.join(f'{count} {state}' for state, count in pending['states'].items())})",
        f"held back: {credits(answer['heldMicro'])}",
    ]
    if answer["dueMicro"] is not None:
        lines.append(f"due to you, of all months: {credits(answer['dueMicro'])}")
    lines += ["", by_resource(answer["byResource"], "EARNED"), "", _by_consumer(answer["byConsumer"])]
    lines += ["", *_estimate(answer["estimate"]), *_net(answer["net"]), *answer["notes"]]
    return "\n".join(lines)


def _sums_row(name: str, sums: Mapping[str, int]) -> list[Any]:
    return [
        name,
        sums["claims"],
        *(credits(sums[f"{pot}Micro"]) for pot in ("charged", "paid", "held", "fee", "released")),
    ]


def by_resource(rows: Sequence[Mapping[str, Any]], what: str) -> str:
    """Table; `what` EARNED or CHARGED."""
    if not rows:
        return "by resource: nothing yet"
    member = f"{what.lower()}Micro"
    cells = [[row["resource"], row["basis"], row["units"], row["unit"], credits(row[member])] for row in rows]
    return table("by resource, this month", ["RESOURCE", "BASIS", "UNITS", "UNIT", what], cells)


def _by_consumer(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "by consumer: nothing yet"
    cells = [[row["namespace"] or "?", row["consumer"], credits(row["earnedMicro"])] for row in rows]
    return table("by consumer, this month", ["NAMESPACE", "ACCOUNT", "EARNED"], cells)


def _estimate(guess: Mapping[str, Any]) -> list[str]:
    if guess["micro"] is None:
        return ["estimate of the month: none,", *(f"  {one}" for one in guess["assumptions"])]
    said = f"estimate of the month: {credits(guess['micro'])} ({credits(guess['perHourMicro'])} per hour), if"
    return [said, *(f"  - {one}" for one in guess["assumptions"])]


def _net(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    lines = [f"energy: {credits(found['costMicro'])}; net so far: {credits(found['netMicro'])}"]
    if found["estimatedNetMicro"] is not None:
        lines.append(
            f"energy of the month: {credits(found['estimatedCostMicro'])}; net:"
            f" {credits(found['estimatedNetMicro'])}, if"
        )
    return [*lines, *(f"  - {one}" for one in found["assumptions"])]
