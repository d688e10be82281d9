"""Why a line of a claim is what it is: its formula with the figures in it, and what would have raised it.

Nothing is believed on the way: each formula is computed again from the line's own inputs, and a line of which one does
not hold says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from homefed.api.claim_document import ClaimHeader, Line
from homefed.api.rate_card import PPM
from homefed.core import metering, rates, readings, report_gates, rewards, samples
from homefed.core.ledger import line_amount
from homefed.core.meter_limits import NETWORK
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
class Hint:
    """What stood between this line and more pay. `worth`: µcredit at most, 0 where the line cannot tell."""

    code: str
    text: str
    worth: int = 0


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


def worth(line: Line, units: int) -> int:
    """µcredit of so many units at this line's rate."""
    return line_amount(units, line.rate.micro_credits, line.rate.per, line.rate.price, line.factor)


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
        make = HINTS.get(code)
        yield make(line) if make is not None else Hint(code, "see the table of codes in docs/settlement.md")
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


def _bounded(line: Line) -> Hint:
    close = int(line.reading.close) if line.reading is not None else 0
    over = max(0, close - int(line.accepted_before) - int(line.bound))
    if line.resource in NETWORK:
        text = f"{over} {line.unit} lie above the pool's maxBandwidthMbps × running time; payable once that has grown"
    else:
        text = (
            f"{over} {line.unit} lie above request × running time; they are payable as it grows while the pod runs."
            " A pod that asks for more is bounded higher"
        )
    return Hint(rewards.BOUNDED, text, worth(line, over))


def _no_report(line: Line) -> Hint:
    spare = int(line.bound)
    return Hint(
        rewards.NO_REPORT,
        "the home's report of this window was not there in time: keep agent and Prometheus running (condition"
        " MeterReady says what is wrong); what was used enters the next claim with the report, nothing is lost",
        worth(line, spare),
    )


def _partial(line: Line) -> Hint:
    reading = line.reading
    seen = f"{reading.samples} of {reading.expected} samples, {reading.gaps} gaps" if reading is not None else ""
    return Hint(
        metering.PARTIAL,
        f"less than 95 % of the running time is covered by samples ({seen}): let Prometheus scrape the kubelets'"
        " /metrics/cadvisor without pauses, at the interval that prometheus.scrapeInterval names; memory in gaps is"
        " not billed, counters lose nothing",
    )


def _estimated(line: Line) -> Hint:
    units = line.reading.estimated if line.reading is not None else "0"
    return Hint(
        metering.ESTIMATED,
        f"{units} {line.unit} from the last sample to a container's end are its mean rate, at most its request;"
        " a shorter scrape interval leaves less to estimate",
    )


def _plain(code: str, text: str) -> tuple[str, Callable[[Line], Hint]]:
    return code, lambda _line: Hint(code, text)


HINTS: Final[Mapping[str, Callable[[Line], Hint]]] = {
    rewards.BOUNDED: _bounded,
    rewards.NO_REPORT: _no_report,
    metering.PARTIAL: _partial,
    metering.ESTIMATED: _estimated,
    **dict(
        (
            _plain(
                report_gates.NOT_MONOTONE,
                "the cumulative reading is below one that was accepted before, or a report begins before it: not"
                " accepted. It becomes payable once the reading has passed the earlier one; a meter that lost its"
                " readings must not begin anew",
            ),
            _plain(
                report_gates.IMPOSSIBLE,
                "more than the pod's limit allows in the time was reported: not accepted, and nothing more that is used"
                " of this pod and resource, until the organiser has the claim corrected. Is one series counted twice"
                " (two scrape sources), or is a recording rule in place of the raw counter?",
            ),
            _plain(
                readings.MALFORMED_LINE,
                "the report's line contradicts itself (close − open is not its amount, or a wrong unit): not accepted."
                " Update the agent",
            ),
            _plain(
                metering.OVER_CAPACITY,
                "more than a pod of this request can have used in its life: what is above is not counted. Is one series"
                " counted twice (two scrape sources), or is a recording rule in place of the raw counter?",
            ),
            _plain(
                metering.NO_SAMPLES,
                "Prometheus had no sample of this pod in the window: let it scrape the kubelets' /metrics/cadvisor",
            ),
            _plain(
                metering.LAGGED,
                "samples that fell behind earlier ones were left out: they add nothing, and cost nothing",
            ),
            _plain("Carried", "the pod or its report was gone when the claim was corrected: stands as it stood"),
            _plain("Forfeited", "taken back for good, by the organiser's word: ask the organiser why"),
            _plain(samples.NOT_FINITE, "samples that are no finite number (NaN, Inf) were refused: see the exporter"),
            _plain(samples.NEGATIVE, "negative samples were refused: see the exporter"),
            _plain(samples.TOO_LARGE, "samples above 2^62 were refused: see the exporter"),
            _plain(
                samples.FUTURE,
                "samples from the future were refused: set the clock of the machine that Prometheus runs on (NTP)",
            ),
        )
    ),
}
"""Code → what it says of a line."""


def window_of(header: ClaimHeader) -> Window:
    return Window(seconds(header.window_start), seconds(header.window_end))
