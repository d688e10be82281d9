"""`homefed ledger`: the ledger service, and the care of its books: backup, restore, check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from homefed.cli.output import json_option, show
from homefed.cli.processes import FILE, FOLDER, Duration, process_options, run_process
from homefed.ledger.config import SQLITE, Place

P = ParamSpec("P")
T = TypeVar("T")

_REPEATED: Any = {"multiple": True}


def place_options(command: Callable[P, T]) -> Callable[P, T]:
    """Where the books are: parameters `store`, `database`, `state_directory` and those of PostgreSQL's roles."""
    for option in (
        click.option("--store-owner-password-file", "owner_password_file", type=FILE, default=None),
        click.option("--store-owner", "owner", default="", help="PostgreSQL: URL of the role that migrates."),
        click.option("--store-password-file", "password_file", type=FILE, default=None, help="Or PGPASSFILE."),
        click.option("--state", "state_directory", type=FOLDER, default=None, help="Key and mark; see --store."),
        click.option("--database", type=FILE, default=None, help="SQLite file: short for --store sqlite:FILE."),
        click.option("--store", default="", help="sqlite:FILE (state beside it), or postgresql://USER@HOST/DATABASE."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--federation-id", "federation", default="", help="DNS label; required to serve.")
@place_options
@click.option("--hub-key-dir", "hub_keys", type=click.Path(path_type=Path), **_REPEATED, help="Files or directories.")
@click.option("--home-key-dir", "home_keys", type=FOLDER, default=None, help="A public key per Home's UID.")
@click.option("--submitter", "submitters", **_REPEATED, help="Username that may submit claims; repeat.")
@click.option("--submitter-cn", "certificate_names", **_REPEATED, help="Common name of a client certificate; repeat.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--auth", type=click.Choice(["kubernetes", "static"]), default="kubernetes", show_default=True)
@click.option("--tokens", type=FILE, default=None, help="With --auth static: lines of TOKEN USERNAME.")
@click.option("--tls-certificate", type=FILE, default=None)
@click.option("--tls-key", type=FILE, default=None)
@click.option("--client-ca", type=FILE, default=None, help="PEM: client certificates are accepted from it.")
@click.option("--lines-retention", type=Duration(), default=None, help="Delete lines parts after it; default: never.")
@process_options
@click.pass_context
def ledger(context: click.Context, /, log_level: str, log_format: str, **options: Any) -> None:
    """The ledger service: signed claims in, balanced transfers and receipts out."""
    if context.invoked_subcommand is not None:
        return
    if not options["federation"]:
        raise click.UsageError("--federation-id is required", context)
    from homefed.ledger.app import run
    from homefed.ledger.config import Config

    for name in ("submitters", "certificate_names"):
        options[name] = frozenset(options[name])
    run_process(run(Config(**_placed(options))), log_level, log_format)


def _placed(options: dict[str, Any]) -> dict[str, Any]:
    """`--database FILE` is `--store sqlite:FILE`."""
    database = options.pop("database")
    if bool(database) == bool(options["store"]):
        raise click.UsageError("give either --store or --database")
    return options | ({"store": f"{SQLITE}{database}"} if database else {})


@ledger.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@place_options
@json_option
def backup(file: Path, output: str, **options: Any) -> None:
    """Write the books of a SQLite ledger to FILE (`-`: standard output), complete and checked, while it runs.

    The signing key is not in it: keep a copy of `ledger.key` elsewhere, once.
    """
    from homefed.ledger.backup import back_up

    summary = asyncio.run(back_up(Place(**_placed(options)), file))
    show(summary.to_json(), output, lambda _: f"{file}: {summary.said()}") if str(file) != "-" else None


@ledger.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--checkpoint", type=FILE, default=None, help="The newest that a member holds, when the mark is lost.")
@place_options
@json_option
def restore(file: Path, checkpoint: Path | None, output: str, **options: Any) -> None:
    """Put the books of FILE where --store says, if they hold all that was ever signed."""
    from homefed.ledger.backup import bring_back

    summary = asyncio.run(bring_back(Place(**_placed(options)), file, checkpoint))
    show(summary.to_json(), output, lambda _: f"restored: {summary.said()}")


@ledger.command()
@place_options
@json_option
def check(output: str, **options: Any) -> None:
    """Compute the tree anew from every leaf, and compare it with checkpoint, mark and totals; the ledger is stopped."""
    from homefed.ledger.backup import check_place

    summary = asyncio.run(check_place(Place(**_placed(options))))
    show(summary.to_json(), output, lambda _: f"in order: {summary.said()}")
