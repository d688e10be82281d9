"""`homefed VERB`: the entry point. Commands take `-o json`; errors say what to do, on stderr, with exit 1."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

from homefed.api.errors import HomefedError

COMMANDS: Final[Mapping[str, str]] = {
    "agent": "processes",
    "audit": "audit",
    "bill": "bill",
    "budget": "budget",
    "claims": "claims",
    "consumer": "consumer",
    "doctor": "doctor",
    "earnings": "earnings",
    "export": "export",
    "hub": "processes",
    "invite": "invite",
    "ledger": "ledger",
    "payout": "payout",
    "rotate-key": "rotate_key",
    "status": "status",
    "uninstall": "uninstall",
    "version": "version",
}
"""Command → its module in this folder."""


class Commands(click.Group):
    """Imports a command's module when it is asked for: all of them together take more than a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"homefed.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """HomeFed federates home Kubernetes clusters."""


def main() -> None:
    try:
        cli(prog_name="homefed")
    except HomefedError as error:
        click.echo(f"error: {error.message} ({error.reason})", err=True)
        sys.exit(1)
