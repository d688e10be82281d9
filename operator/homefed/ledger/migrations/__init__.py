"""Numbered SQL scripts of each store, applied once and in order."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from homefed.api.errors import Refused


@dataclass(frozen=True)
class Script:
    number: int
    sql: str


def scripts(store: str) -> list[Script]:
    """All scripts of `store` (the folder's name), in order; numbered without a gap from 1."""
    folder = files(__name__).joinpath(store)
    found = [Script(int(file.name[:4]), file.read_text()) for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(found, key=lambda script: script.number)


def pending(store: str, version: int) -> list[Script]:
    """What a database of that version lacks. Errors: Refused when it is newer than this program."""
    known = scripts(store)
    if version > known[-1].number:
        raise Refused(
            f"the database has version {version}, this program knows {known[-1].number}: use a newer one",
            reason="NewerDatabase",
        )
    return known[version:]
