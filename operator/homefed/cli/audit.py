"""`homefed audit`: is the ledger what it says it is? With nothing but its URL and public keys."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path
from typing import Any, Final

import click
import yaml

from homefed.api.canonical import parse as parse_json
from homefed.api.errors import HomefedError, Invalid
from homefed.api.meta import parse
from homefed.api.rate_card import RateCard
from homefed.api.scheduling_pool import SchedulingPoolSpec
from homefed.cli.ledger_options import (
    FILE,
    Access,
    access,
    decoded_key,
    ledger_options,
    progress_bar,
    text_of,
    write_whole,
)
from homefed.cli.output import json_option, show, table
from homefed.core.audit import EXIT, Report
from homefed.core.signed_note import VerifierKey, parse_vkey
from homefed.core.times import from_rfc3339, to_rfc3339
from homefed.core.witness import home_key
from homefed.ledger_client.auditing import Auditor, Scope

MAX_STATE: Final = 2**20
"""Bytes."""
SHOWN: Final = 20
"""Findings in the table."""
_UID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


@click.command()
@ledger_options
@click.option("--witness", "witnesses", multiple=True, help="Verifier key, a file with it, or HOME_UID:KEY; repeat.")
@click.option("--quorum", type=click.IntRange(0), default=None, help="Cosignatures wanted; default: of all witnesses.")
@click.option("--state", type=FILE, default=None, help="Keeps the checkpoint, to be compared at the next audit.")
@click.option("--receipts", default="256", show_default=True, help="How many to check, evenly spread, or all.")
@click.option("--lines", is_flag=True, help="Also the lines behind the claims; needs --token-file.")
@click.option(
    "--rate-card", "card_files", type=FILE, multiple=True, help="Of a pool, JSON or YAML; with --lines. Repeat."
)
@click.option("--lines-since", default="", help="Older claims may have lost their lines to retention (RFC 3339).")
@json_option
@click.pass_context
def audit(context: click.Context, /, output: str, state: Path | None, **options: Any) -> None:
    """Check a ledger from outside: signatures, tree, history, chains, balances, receipts.

    Exit status: 0 all of it holds; 1 there are findings; 2 something could not be checked.
    """
    try:
        told = access(**{name: options.pop(name) for name in ("url", "key", "hub_keys", "ca", "token_file", "jobs")})
        report = asyncio.run(_audited(told, _scope(told, state, **options)))
        if state is not None and report.holds:
            _keep(state, report)
    except (HomefedError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        context.exit(EXIT["unchecked"])
    show(report.dump(), output, _text)
    context.exit(EXIT[report.verdict])


async def _audited(told: Access, scope: Scope) -> Report:
    async with told.reader() as reader:
        return await Auditor(reader, scope, progress_bar("leaves")).run()


def _scope(
    told: Access,
    state: Path | None,
    *,
    witnesses: tuple[str, ...],
    quorum: int | None,
    receipts: str,
    lines: bool,
    lines_since: str,
    card_files: tuple[Path, ...],
) -> Scope:
    if lines and told.token_file is None:
        raise Invalid("--lines: lines are not public; give --token-file", reason="TokenMissing")
    if card_files and not lines:
        raise Invalid("--rate-card: prices stand in the lines; give --lines too", reason="InvalidOption")
    keys = [_witness(value) for value in witnesses]
    if quorum is not None and quorum > len(keys):
        raise Invalid(f"--quorum: {quorum} of {len(keys)} witnesses", reason="InvalidOption")
    return Scope(
        url=told.url,
        key=told.key,
        rules=told.rules,
        witnesses=keys,
        quorum=len(keys) if quorum is None else quorum,
        last=_kept(state, told.key.name) if state is not None else "",
        receipts=_count(receipts),
        lines=lines,
        lines_since=to_rfc3339(from_rfc3339(lines_since)) if lines_since else "",
        jobs=told.jobs,
        cards=[card for path in card_files for card in cards_of(path)],
    )


def cards_of(path: Path) -> list[RateCard]:
    """Of a SchedulingPool as `kubectl get -o yaml` shows it, or one card as in spec.rateCard. Errors: Invalid."""
    text = text_of("--rate-card", str(path))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid(f"--rate-card: {path} is neither JSON nor YAML", reason="InvalidFile") from error
    if not isinstance(value, dict):
        raise Invalid(f"--rate-card: {path} holds neither a SchedulingPool nor a rate card", reason="InvalidFile")
    if value.get("kind") == "SchedulingPool":
        spec = parse(SchedulingPoolSpec, value.get("spec"), where="spec")
        return [spec.rate_card, *spec.next_rate_cards]
    return [parse(RateCard, value, where="rateCard")]


def _witness(value: str) -> VerifierKey:
    """A verifier key, or a home's UID and public key as the ledger's ConfigMap of home keys has them."""
    home, colon, key = value.partition(":")
    if colon and _UID.fullmatch(home):
        return home_key(home, decoded_key("--witness", key))
    return parse_vkey(text_of("--witness", value))


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise Invalid(f"--receipts: {text!r} is neither a number nor all", reason="InvalidOption")
    return int(text)


def _kept(path: Path, origin: str) -> str:
    """The checkpoint of the audit before; empty before the first."""
    if not path.exists():
        return ""
    value = parse_json(path.read_bytes(), limit=MAX_STATE)
    if not isinstance(value, dict) or value.get("version") != 1 or not isinstance(value.get("checkpoint"), str):
        raise Invalid(f"--state: {path} was not written by homefed audit", reason="InvalidState")
    if value.get("origin") != origin:
        raise Invalid(f"--state: {path} is of {value.get('origin')}, not of {origin}", reason="InvalidState")
    return str(value["checkpoint"])


def _keep(path: Path, report: Report) -> None:
    value = {"version": 1, "origin": report.origin, "checkpoint": report.signed}
    write_whole(path, io.StringIO(json.dumps(value, indent=2) + "\n"))


def _text(report: dict[str, Any]) -> str:
    steps = [[step["name"], step["outcome"], step["detail"]] for step in report["steps"]]
    parts = [f"{report['url']}: {report['origin']}", table("", ["STEP", "OUTCOME", "WHAT"], steps)]
    if findings := report["findings"]:
        rows = [_cells(one) for one in findings[:SHOWN]]
        parts.append(table("", ["FINDING", "LEAF", "ID", "WHAT"], rows))
    return "\n\n".join([*parts, _verdict(report)])


def _cells(one: dict[str, Any]) -> list[Any]:
    return [one["code"], "" if one["leaf"] is None else str(one["leaf"]), one["id"][:12], one["message"]]


def _verdict(report: dict[str, Any]) -> str:
    if report["verdict"] == "clean":
        return f"CLEAN: the ledger is what it says, all {report['leaves']:,} leaves of it"
    if report["verdict"] == "unchecked":
        return "NOT CHECKED: nothing wrong was found, but not everything could be checked; see above"
    counted = ", ".join(f"{count} {code}" for code, count in sorted(report["counted"].items()))
    more = sum(report["counted"].values()) - SHOWN
    shown = f"; {more} more with -o json" if more > 0 else ""
    return f"FINDINGS: {counted}{shown}. Keep this answer: the signatures in it are evidence"
