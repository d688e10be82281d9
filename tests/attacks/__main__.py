"""python -m attacks [--markdown]: prints the table. Exit status 1 where an attempt that should be held is not."""

from __future__ import annotations

import sys

from attacks.table import LIMIT_PPM, markdown, outcomes, text


def main() -> int:
    found = outcomes()
    print(markdown(found) if "--markdown" in sys.argv[1:] else text(found))
    return int(any(outcome.over_ppm > LIMIT_PPM for attempt, outcome in found.items() if attempt.held))


if __name__ == "__main__":
    sys.exit(main())
