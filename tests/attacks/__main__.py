"""python -m attacks: the attempts, as a table: true work, claimed, paid, over-payment."""

from __future__ import annotations

import sys

from attacks.attempts import ATTEMPTS, BUSY, CALM, ENDING, ClockAtTheEnd
from attacks.federation import Home, Outcome, run


def main():
    for attempt in (Home, *ATTEMPTS):
        outcome = run(attempt(ENDING if attempt is ClockAtTheEnd else (BUSY, CALM)))
        print(f"{attempt.name:50} {attempt.resource} {attempt.basis:9} {outcome.true/3.6e9:8.3f} {outcome.claimed/3.6e9:12.3f} {outcome.paid/3.6e9:8.3f} {outcome.over_ppm:10}", dict(outcome.codes), outcome.hub.strangers or "")


if __name__ == "__main__":
    sys.exit(main())
