"""python -m bench [--only NAME …]: measures, shows progress, prints the figures beside their goals.

Exit status 0 when all goals are met, 1 when one is missed or could not be measured, 2 for a wrong argument. The same as
JSON goes to the path in BENCH_JSON. Needs what `make testbed` builds, and root for the figures of real nodes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from bench import metered, simulated
from bench.figures import GOALS, Progress, Results, table, write
from testbed.errors import TestbedError
from testbed.interruption import Interruption
from testbed.workspace import workspace

Measure = Callable[[Path, Collection[str], Results, Progress], None]
MEASURES: dict[str, Measure] = {"simulated": simulated.measure, "metered": metered.measure}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="The figures of HomeFed, beside their goals.")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(GOALS), metavar="NAME", help=f"some figures only: {', '.join(GOALS)}"
    )
    wanted = parser.parse_args(argv).only or list(GOALS)
    interruption = Interruption().listen()
    results, say, failed = Results(), Progress(), False
    with workspace() as folder:
        for name, measure in MEASURES.items():
            interruption.check()
            try:
                measure(folder / name, wanted, results, say)
            except TestbedError as error:
                failed = True  # the other figures are worth having
                say(f"{name}: {error}")
    print(table(results.values, wanted))
    if path := os.environ.get("BENCH_JSON"):
        write(results.document(wanted), Path(path))
    return 1 if failed or results.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
