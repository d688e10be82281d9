"""A hub and some homes to try things on by hand: prints the kubeconfigs and waits until Ctrl-C.

python -m testbed.up [--homes 2] [--kwok] [--crds FOLDER]        with PYTHONPATH=tests
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from testbed.binaries import Binaries
from testbed.cluster import workspace
from testbed.errors import TestbedError
from testbed.federation import Federation
from testbed.interruption import Interruption

CRDS = Path(__file__).parents[2] / "crds"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; exit status 1 with a message when something cannot be started."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.up", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--homes", type=int, default=2, help="how many homes (default 2)")
    parser.add_argument("--kwok", action="store_true", help="two simulated nodes per home")
    parser.add_argument("--crds", type=Path, default=CRDS, help="folder of CRDs to install, where it holds any")
    arguments = parser.parse_args(argv)
    interruption = Interruption().listen()
    started = time.monotonic()
    try:
        with workspace() as folder:
            crds = arguments.crds if any(arguments.crds.glob("*.yaml")) else None
            nodes = 2 if arguments.kwok else 0
            with Federation.create(
                folder, Binaries(), homes=arguments.homes, kwok_nodes=nodes, crds=crds
            ) as federation:
                _describe(federation, time.monotonic() - started)
                interruption.wait()
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything is taken down")
    return 0


def _describe(federation: Federation, seconds: float) -> None:
    for cluster in (federation.hub, *federation.homes):
        memory = sum(cluster.rss_mib().values())
        print(f"{cluster.name:8} {cluster.url}  {memory:.0f} MiB  export KUBECONFIG={cluster.kubeconfig}")
    print(f"up in {seconds:.1f} s; Ctrl-C ends it", flush=True)


if __name__ == "__main__":
    sys.exit(main())
