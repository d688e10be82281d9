"""What each code of a line says to the home's owner: what stood in the way of more pay, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from homefed.api.claim_document import Line
from homefed.core import correction, metering, readings, report_gates, rewards, samples
from homefed.core.ledger import line_amount
from homefed.core.meter_limits import NETWORK


@dataclass(frozen=True)
class Hint:
    """What stood between this line and more pay. `worth`: µcredit at most, 0 where the line cannot tell."""

    code: str
    text: str
    worth: int = 0


def worth(line: Line, units: int) -> int:
    """µcredit of so many units at this line's rate."""
    return line_amount(units, line.rate.micro_credits, line.rate.per, line.rate.price, line.factor)


def hint_of(code: str, line: Line) -> Hint:
    """Of any code, known to this version or not."""
    if code in _WITH_FIGURES:
        text, missed = _WITH_FIGURES[code](line)
        return Hint(code, text, worth(line, missed))
    return Hint(code, SENTENCES.get(code, "see the table of codes in docs/settlement.md"))


def _bounded(line: Line) -> tuple[str, int]:
    close = int(line.reading.close) if line.reading is not None else 0
    over = max(0, close - int(line.accepted_before) - int(line.bound))
    if line.resource in NETWORK:
        return (
            f"{over} {line.unit} lie above maxBandwidthMbps × running time; payable once that has grown",
            over,
        )
    text = f"{over} {line.unit} lie above request × running time; they are payable as it grows while the pod runs."
    return f"{text} A pod that asks for more is bounded higher", over


def _no_report(line: Line) -> tuple[str, int]:
    text = (
        "the home's report of this window was not there in time: keep agent and Prometheus running (condition"
        " MeterReady says what is wrong); what was used enters the next claim with the report, nothing is lost"
    )
    return text, int(line.bound)


def _partial(line: Line) -> tuple[str, int]:
    reading = line.reading
    seen = f"{reading.samples} of {reading.expected} samples, {reading.gaps} gaps" if reading is not None else ""
    text = (
        f"less than 95 % of the running time is covered by samples ({seen}): let Prometheus scrape the kubelets'"
        " /metrics/cadvisor without pauses, at the interval that prometheus.scrapeInterval names; memory in gaps is"
        " not billed, counters lose nothing"
    )
    return text, 0


def _estimated(line: Line) -> tuple[str, int]:
    units = line.reading.estimated if line.reading is not None else "0"
    text = (
        f"{units} {line.unit} before a container's first sample (memory) or after its last one (CPU, at its mean rate,"
        " at most its request) are estimated; a shorter scrape interval leaves less to estimate"
    )
    return text, 0


_WITH_FIGURES: Final[Mapping[str, Callable[[Line], tuple[str, int]]]] = {
    rewards.BOUNDED: _bounded,
    rewards.NO_REPORT: _no_report,
    metering.PARTIAL: _partial,
    metering.ESTIMATED: _estimated,
}
"""Code → sentence, and the units that it kept from being accepted, as far as the line can tell."""

_TWICE: Final = "Is one series counted twice (two scrape sources), or is a recording rule in place of the raw counter?"

SENTENCES: Final[Mapping[str, str]] = {
    report_gates.NOT_MONOTONE: "the cumulative reading is below one that was accepted before, or a report begins before"
    " it: not accepted. It becomes payable once the reading has passed the earlier one; a meter that lost its readings"
    " must not begin anew",
    report_gates.IMPOSSIBLE: "more than the pod's limit allows in the time was reported: not accepted, and nothing more"
    f" that is used of this pod and resource, until the organiser has the claim corrected. {_TWICE}",
    readings.MALFORMED_LINE: "the report's line contradicts itself (close − open is not its amount, or a wrong unit):"
    " not accepted. Update the agent",
    metering.OVER_CAPACITY: "more than a pod of this request can have used in its life: what is above is not counted."
    f" {_TWICE}",
    metering.NO_SAMPLES: "Prometheus had no sample of this pod in the window: let it scrape the kubelets'"
    " /metrics/cadvisor",
    metering.LAGGED: "samples that fell behind earlier ones were left out: they add nothing, and cost nothing",
    correction.CARRIED: "the pod or its report was gone when the claim was corrected: stands as it stood",
    correction.FORFEITED: "taken back for good, by the organiser's word: ask the organiser why",
    samples.NOT_FINITE: "samples that are no finite number (NaN, Inf) were refused: see the exporter",
    samples.NEGATIVE: "negative samples were refused: see the exporter",
    samples.TOO_LARGE: "samples above 2^62 were refused: see the exporter",
    samples.FUTURE: "samples from the future were refused: set the clock of the machine that Prometheus runs on (NTP)",
}
