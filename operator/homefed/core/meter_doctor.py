"""What must change in a home's Prometheus so that its meter reads right: pure judgement of gathered facts.

    advice = examine(facts)      # empty: nothing to change

Each check looks at one thing that is known to make metering wrong; `must` is False for what costs, or could not be
looked at, but makes no amount wrong. An advice says what was found, and field by field what to set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from homefed.core import meter_sampling, meter_scraping
from homefed.core.meter_advice import Advice
from homefed.core.meter_facts import Facts

Check = Callable[[Facts], Iterator[Advice]]

CHECKS: Final[Sequence[Check]] = (
    meter_sampling.own_clock,
    meter_scraping.sources,
    meter_scraping.failing,
    meter_scraping.machines,
    meter_scraping.virtual,
    meter_scraping.two_jobs,
    meter_sampling.renamed,
    meter_sampling.dropped,
    meter_sampling.metrics,
    meter_sampling.guests,
    meter_sampling.lost_samples,
    meter_sampling.lag,
    meter_sampling.timestamps,
    meter_scraping.intervals,
    meter_scraping.scrapes,
    meter_scraping.resource_path,
)


def examine(facts: Facts) -> list[Advice]:
    """What to change: first what must, in the order of the checks."""
    found = [advice for check in CHECKS for advice in check(facts)]
    return sorted(found, key=lambda advice: not advice.must)
