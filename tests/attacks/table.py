"""The attempts as a table: what was true, what was claimed, what was accepted, and how much too much was paid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attacks.attempts import ATTEMPTS, BUSY, CALM
from attacks.federation import Home, Outcome, run

HOURS: Final = 6
LIMIT_PPM: Final = 10_000
"""Over-payment that an attempt may reach."""
CORE_HOUR: Final = 3600 * 10**6
HEADER: Final = ("attempt", "true work", "claimed", "accepted", "over-payment", "", "codes")


def outcomes(hours: int = HOURS) -> dict[type[Home], Outcome]:
    """The honest home first."""
    kinds: tuple[type[Home], ...] = (Home, *ATTEMPTS)
    return {attempt: run(attempt((BUSY, CALM)), hours) for attempt in kinds}


def text(found: dict[type[Home], Outcome]) -> str:
    """Work in core-hours; over-payment in millionths of what the true work costs."""
    rows = [HEADER, *(_row(attempt, outcome) for attempt, outcome in found.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(_aligned(row, widths) for row in rows)


def markdown(found: dict[type[Home], Outcome]) -> str:
    """The same for docs/attacks.md, with what was altered."""
    lines = [
        "| attempt | what is altered | true | claimed | accepted | over-payment, ppm |",
        f"{'|---' * 6}|",
    ]
    for attempt, outcome in found.items():
        name, *work, over, verdict, _ = _row(attempt, outcome)
        cells = (name, attempt.how, *work, f"{over} **{verdict}**" if verdict else over)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(attempt: type[Home], outcome: Outcome) -> tuple[str, ...]:
    work = (f"{units / CORE_HOUR:.3f}" for units in (outcome.true, outcome.claimed, outcome.accepted))
    verdict = "" if outcome.over_ppm <= LIMIT_PPM else "not held"
    return (attempt.name, *work, f"{outcome.over_ppm:+d}", verdict, _codes(outcome))


def _codes(outcome: Outcome) -> str:
    found = [f"{code} {count}" for code, count in sorted(outcome.hub.codes.items())]
    return ", ".join([*found, *(["pods unknown"] if outcome.hub.strangers else [])])


def _aligned(row: Iterable[str], widths: list[int]) -> str:
    name, *figures, verdict, codes = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join([name.strip().ljust(widths[0]), *figures, verdict, codes.strip()]).rstrip()
