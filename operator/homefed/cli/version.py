"""`homefed version`."""

from __future__ import annotations

import click

from homefed import VERSION
from homefed.cli.output import json_option, show


@click.command()
@json_option
def version(output: str) -> None:
    """The version of this program."""
    show({"version": VERSION}, output, lambda value: str(value["version"]))
