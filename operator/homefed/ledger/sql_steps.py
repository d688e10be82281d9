"""What a store is asked to do, apart from how its database is spoken to.

The writer's side is written once, as generators of steps (`sql_writing`): each store drives them with its own
connection and sends back the rows. SQL is of the common subset; parameters are written `?`, and `{}` in a Select stands
for the list of its values.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

T = TypeVar("T")
Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Select:
    """The rows of `sql` whose … IN ({}) is one of `values`; none are asked for when there are no values."""

    sql: str
    values: Collection[Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """One statement with its parameters; its rows."""

    sql: str
    parameters: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Several:
    """Selects that do not depend on each other: the rows of each, in their order."""

    selects: Sequence[Select]


@dataclass(frozen=True, slots=True)
class Insert:
    """Whole rows, all columns in the table's order."""

    table: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Append:
    """The last step of a batch that has leaves: all of its rows, from the checkpoint to the seal."""

    rows: Mapping[str, Sequence[Row]]
    """All of APPENDED."""
    adopted: Sequence[tuple[bytes, int]]
    """Claims whose first so many parts wait no more."""


APPENDED: Final = (
    "checkpoints", "leaves", "accounts", "chains", "entries", "claims", "resolutions", "floors", "nodes", "seals"
)  # fmt: skip
"""The tables that a batch is written to, in this order."""

Step = Select | Ask | Several | Insert | Append
Steps = Generator[Step, Sequence[Any], T]
