"""`homefed export`: the ledger for an accountant, or one contributor's pay-stub; verified before it is written."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Final

import click

from homefed.api.errors import Invalid
from homefed.cli.ledger_options import FILE, Access, access, ledger_options, progress_bar, write_whole
from homefed.cli.output import progress
from homefed.core.accounting import Beancount, Hledger, Writer
from homefed.core.times import from_rfc3339
from homefed.ledger_client.auditing import Scope
from homefed.ledger_client.exporting import export_books, export_pay_stub

WRITERS: Final[dict[str, type[Hledger] | type[Beancount]]] = {"hledger": Hledger, "beancount": Beancount}
IN_MEMORY: Final = 2**24


@click.command()
@click.option(
    "--format",
    "format_",
    type=click.Choice([*WRITERS, "csv"]),
    required=True,
    help="Plain-text accounting of all accounts, or a pay-stub (csv) of one.",
)
@ledger_options
@click.option("--account", default="", help="With csv: contributor:FEDERATION/UID.")
@click.option("--since", default="", help="With csv: windows that begin then or later (RFC 3339).")
@click.option("--until", default="", help="With csv: windows that end by then (RFC 3339).")
@click.option("--file", "path", type=FILE, default=None, help="Default: stdout.")
def export(format_: str, account: str, since: str, until: str, path: Path | None, **options: Any) -> None:
    """Write the ledger down for other programs, once all of it is verified.

    With csv, --token-file of one who may read lines brings resources and rates into the pay-stub.
    """
    if format_ == "csv" and not account.startswith("contributor:"):
        raise Invalid("--account: a pay-stub is of one contributor:FEDERATION/UID", reason="InvalidOption")
    for moment in filter(None, (since, until)):
        from_rfc3339(moment)
    told = access(**options)
    with tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", newline="") as text:
        if format_ == "csv":
            asyncio.run(_pay_stub(told, account, since, until, text))
        else:
            asyncio.run(_books(told, WRITERS[format_](), text))
        text.seek(0)
        _hand_over(text, path)


async def _books(told: Access, writer: Writer, text: IO[str]) -> None:
    async with told.reader() as reader:
        await export_books(reader, _scope(told), writer, text.write, progress_bar("leaves"))


async def _pay_stub(told: Access, account: str, since: str, until: str, text: IO[str]) -> None:
    async with told.reader() as reader:
        await export_pay_stub(reader, _scope(told), account, since, until, text.write, progress_bar("leaves"))


def _scope(told: Access) -> Scope:
    return Scope(told.url, told.key, told.rules, lines=told.token_file is not None, jobs=told.jobs)


def _hand_over(text: IO[str], path: Path | None) -> None:
    if path is None:
        shutil.copyfileobj(text, sys.stdout)
        return
    write_whole(path, text)
    progress(f"written: {path}")
