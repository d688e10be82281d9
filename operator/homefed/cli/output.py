"""What commands print: tables for people, JSON for programs; colours only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

T = TypeVar("T")

json_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the answer.",
)


def show(value: T, output: str, text: Callable[[T], str]) -> None:
    """Print `value` as JSON, or as the text that `text` makes of it."""
    click.echo(json.dumps(value, indent=2, sort_keys=True) if output == "json" else text(value))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as text; numbers to the right. Plain where stdout is not a terminal."""
    grid = Table(title=title, box=SIMPLE_HEAD, title_justify="left", show_edge=False)
    for number, column in enumerate(columns):
        right = bool(rows) and all(isinstance(row[number], int) for row in rows)
        grid.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 160)
    with console.capture() as captured:
        console.print(grid)
    return captured.get().rstrip()


def progress(message: str) -> None:
    """One line on stderr about what goes on now."""
    click.echo(message, err=True)


def credits(micro: int) -> str:
    """µcredit as credits with six decimals, exactly."""
    sign = "-" if micro < 0 else ""
    return f"{sign}{abs(micro) // 1_000_000}.{abs(micro) % 1_000_000:06d}"
