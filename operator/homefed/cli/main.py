"""`homefed VERB`: the entry point. Commands take `-o json`; errors say what to do, on stderr, with exit 1."""

from __future__ import annotations

import sys

import click

from homefed import VERSION
from homefed.api.errors import HomefedError
from homefed.cli import (
    audit,
    bill,
    budget,
    claims,
    consumer,
    correct,
    doctor,
    earnings,
    export,
    invite,
    ledger,
    payout,
    processes,
    rotate_key,
    status,
    uninstall,
)
from homefed.cli.output import json_option, show


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """HomeFed federates home Kubernetes clusters."""


@cli.command()
@json_option
def version(output: str) -> None:
    """The version of this program."""
    show({"version": VERSION}, output, lambda value: str(value["version"]))


for command in (
    processes.hub,
    processes.agent,
    ledger.ledger,
    invite.invite,
    consumer.consumer,
    budget.budget,
    status.status,
    doctor.doctor,
    claims.claims,
    earnings.earnings,
    bill.bill,
    audit.audit,
    export.export,
    payout.payout,
    rotate_key.rotate_key,
    uninstall.uninstall,
):
    cli.add_command(command)


claims.claims.add_command(correct.correct)


def main() -> None:
    try:
        cli(prog_name="homefed")
    except HomefedError as error:
        click.echo(f"error: {error.message} ({error.reason})", err=True)
        sys.exit(1)
