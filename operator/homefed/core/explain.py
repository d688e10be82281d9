"""Why a line of a claim is what it is: its formula with the figures in it, and what would have raised it.

Nothing is believed on the way: each formula is computed again from the line's own inputs, and a line of which one does
not hold says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.rate_card import PPM
from homefed.core import rates, rewards
from homefed.core.explain_hints import Hint, hint_of, worth
from homefed.core.ledger import line_amount
from homefed.core.windows import Window, seconds

UNSEEN: Final = "UnseenTime"
NOT_USED: Final = "LessThanAllowed"
HELD_BACK: Final = "HeldBack"
FEE: Final = "Fee"
OWN_PRICE: Final = "OwnPrice"
TIME_OF_DAY: Final = "TimeOfDay"
_FACTORS: Final = " × own price × time of day"


@dataclass(frozen=True)
class Step:
    """One formula: in names, and what it comes to with the line's figures in it."""

    result: str
    """Name of the member that it gives."""
    formula: str
    figures: str
    value: int
    holds: bool
    """Whether the document says the same."""


@dataclass(frozen=True)
class Explained:
    """A line or a header."""

    steps: tuple[Step, ...]
    hints: tuple[Hint, ...]

    @property
    def holds(self) -> bool:
        return all(step.holds for step in self.steps)

    def dump(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "steps": [asdict(step) for step in self.steps],
            "hints": [asdict(hint) for hint in self.hints],
        }


def explain_line(line: Line, window: Window, guest: rewards.Observation | None = None) -> Explained:
    """One line. `guest` is the hub's observation of the pod, where it is still there: it shows unseen time."""
    steps = (_accepted(line), _amount(line))
    return Explained(steps, (*_hints(line), *_priced(line), *_unseen(line, window, guest)))


def explain_header(header: ClaimHeader) -> Explained:
    """Where a claim's charge went."""
    charged, fee, held, paid, dust, released = (
        int(getattr(header, name)) for name in ("charged", "fee", "held", "paid", "dust", "released")
    )
    sums = sum(int(one.charged) for one in header.consumers)
    steps = (
        Step("charged", "Σ charged of the consumers", f"{len(header.consumers)} consumers", sums, sums == charged),
        Step(
            "charged",
            "paid + held + fee + dust",
            f"{paid} + {held} + {fee} + {dust}",
            paid + held + fee + dust,
            paid + held + fee + dust == charged,
        ),
    )
    hints = [Hint(FEE, "the federation's fee, as the pool's settlement.feePpm says", fee)] if fee else []
    if held:
        hints.append(
            Hint(HELD_BACK, "held back while trust is low: it is yours, and is released on the pool's schedule", held)
        )
    if released:
        hints.append(Hint("Released", f"{released} µcredit of what was held back before came with this claim"))
    return Explained(steps, tuple(hints))


def _accepted(line: Line) -> Step:
    accepted, bound, before = int(line.accepted), int(line.bound), int(line.accepted_before)
    if line.basis == "reserved":
        return Step(
            "accepted",
            "request × running time that the hub saw − accepted before",
            f"{bound + before} − {before} {line.unit}",
            bound,
            bound == accepted == int(line.reported),
        )
    close = int(line.reading.close) if line.reading is not None else before
    value = max(0, min(close - before, bound))
    return Step(
        "accepted",
        "max(0, min(reading − accepted before, bound − accepted before))",
        f"max(0, min({close} − {before}, {bound})) {line.unit}",
        value,
        value == accepted,
    )


def _amount(line: Line) -> Step:
    found = rates.formula(line)
    return Step(
        "amount",
        f"⌊accepted × rate ÷ units in one {line.rate.per}{_FACTORS if _reduced(line) else ''}⌋ µcredit",
        found.text.rpartition(" = ")[0],
        found.amount,
        found.amount == int(line.amount),
    )


def _reduced(line: Line) -> bool:
    return (line.rate.price, line.factor) != (PPM, PPM)


def _priced(line: Line) -> Iterable[Hint]:
    """What the owner's own price, and the time of day, took from this line."""
    accepted, rate = int(line.accepted), line.rate
    if rate.price < PPM:
        full = line_amount(accepted, rate.micro_credits, rate.per, PPM, line.factor)
        text = f"you ask {rates.percent(rate.price)} of the card's price (spec.price of the Contribution)"
        yield Hint(OWN_PRICE, text, full - int(line.amount))
    if line.factor < PPM:
        full = line_amount(accepted, rate.micro_credits, rate.per, rate.price, PPM)
        text = f"at this time of day the card pays {rates.percent(line.factor)}: other hours pay more"
        yield Hint(TIME_OF_DAY, text, full - int(line.amount))


def _hints(line: Line) -> Iterable[Hint]:
    for code in line.codes:
        yield hint_of(code, line)
    if line.basis == "used" and line.reading is not None and not line.codes:
        spare = int(line.bound) - int(line.accepted)
        if spare > 0:
            yield Hint(NOT_USED, "nothing was lost: the pod used less than its request allows")


def _unseen(line: Line, window: Window, guest: rewards.Observation | None) -> Iterable[Hint]:
    """Reserved time that the hub did not see in this window."""
    if guest is None or line.basis != "reserved" or line.guest_pod != guest.uid:
        return
    ran = guest.observed_ms(window.end_ms) - guest.observed_ms(window.start_ms)
    seen = guest.reserved_ms(window.end_ms) - guest.reserved_ms(window.start_ms)
    if ran > seen:
        unit, lost = rewards.units_of(line.resource, guest.requests.get(line.resource, 0), ran - seen)
        if unit == line.unit:
            text = (
                f"{(ran - seen) / 1000:.3f} s of this window were not seen by the hub (node Unknown, or the hub itself"
                " away): keep the agent and its way to the hub up"
            )
            yield Hint(UNSEEN, text, worth(line, lost))


def window_of(header: ClaimHeader) -> Window:
    return Window(seconds(header.window_start), seconds(header.window_end))
