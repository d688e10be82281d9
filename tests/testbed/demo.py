"""`make demo`: HomeFed at work. A hub, two homes, a consumer's Deployment and Job; usage, claims, receipts, balances.

    python -m testbed.demo [--kwok | --real] [-o json] [--json FILE]        with PYTHONPATH=operator:tests

Real nodes where this machine allows them (root, containerd, …), else simulated ones; it says which, and why. Exit
status 0: metered usage and truth agree, and the ledger's books balance; 1: they do not, or it could not be done.
DEMO_KEEP=1 leaves it all running until Ctrl-C. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from testbed.binaries import Binaries
from testbed.demo_story import CONSUMER, Story
from testbed.demo_verdict import judge, render
from testbed.deployed import Deployed
from testbed.errors import TestbedError, Unavailable
from testbed.federation import Federation
from testbed.installation import ROOT
from testbed.interruption import Interruption
from testbed.leftovers import Run
from testbed.processes import HomeFed
from testbed.real import real_federation, require
from testbed.workspace import workspace

NOWHERE = "192.0.2.1"  # an address for documentation: simulated pods send nothing
KEEP = "DEMO_KEEP"
PLAIN_WIDTH = 160


class Teller:
    """Lines with the elapsed seconds; on a terminal also what is being waited for."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()
        self.interruption = Interruption()

    def __call__(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self._started:6.1f} s[/dim]  {text}", highlight=False)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A part of the story."""
        self.interruption.check()
        if self.console.is_terminal:
            with self.console.status(title):
                yield
            return
        self(f"— {title}")
        yield


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    err = arguments.output == "json"
    console = Console(stderr=err, width=None if (sys.stderr if err else sys.stdout).isatty() else PLAIN_WIDTH)
    tell = Teller(console)
    tell.interruption.listen()
    try:
        return _run(arguments, console, tell)
    except KeyboardInterrupt:
        tell("interrupted; everything is taken down")
        return 130
    except (TestbedError, subprocess.TimeoutExpired, OSError) as error:
        tell(f"[red]the demo failed:[/red] {error}")
        return 1


def _run(arguments: argparse.Namespace, console: Console, tell: Teller) -> int:
    real = _choose(arguments, tell)
    with workspace() as folder, contextlib.ExitStack() as stack:
        story = stack.enter_context(_stage(folder, tell, real=real))
        with tell.step("machines are offered"):
            story.offer()
        with tell.step("a consumer's work"):
            story.consume()
        with tell.step("running, metering, settling"):
            story.run()
        verdict = judge(story)
        render(verdict, console, real=real)
        if arguments.json:
            arguments.json.write_text(json.dumps(verdict.as_json(), indent=2) + "\n", encoding="utf-8")
        if arguments.output == "json":
            print(json.dumps(verdict.as_json(), indent=2))
        if os.environ.get(KEEP):
            _keep(story, tell)
        tell("taking everything down")
    tell("nothing is left behind")
    return 1 if verdict.wrong else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m testbed.demo", description=(__doc__ or "").partition("\n")[0])
    tier = parser.add_mutually_exclusive_group()
    tier.add_argument("--real", action="store_true", help="real nodes or nothing")
    tier.add_argument("--kwok", action="store_true", help="simulated nodes")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="json: figures on stdout")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args(argv)


def _choose(arguments: argparse.Namespace, tell: Teller) -> bool:
    """Whether nodes will be real; says so, and why not."""
    if arguments.kwok:
        tell("simulated nodes (kwok), as asked: nothing runs on them, so only reserved amounts are settled")
        return False
    try:
        require(Binaries())
        Run.open().close()
    except Unavailable as error:
        if arguments.real:
            raise
        tell(f"simulated nodes (kwok), because {error}: nothing runs on them, so only reserved amounts are settled")
        return False
    tell("real nodes: kubelet, containerd, DNS and Prometheus, each home in a network of its own behind NAT")
    return True


@contextmanager
def _stage(folder: Path, tell: Teller, *, real: bool) -> Iterator[Story]:
    """An installed federation and the story to be played on it."""
    with contextlib.ExitStack() as stack:
        if real:
            with tell.step("hub and two homes start"):
                clusters = stack.enter_context(real_federation(folder / "real"))
            tell(f"{len(clusters.clusters)} clusters run, {sum(one.rss_mib() for one in clusters.clusters):.0f} MiB")
            with tell.step("HomeFed is installed"):
                deployed = Deployed(clusters, federation_id="demo").install(tell)
            story = Story(deployed, tell, folder, real=True, target=clusters.hub.site.address)
        else:
            with tell.step("hub and two homes start"):
                simulated = stack.enter_context(Federation.create(folder / "kwok", Binaries()))
            with tell.step("HomeFed is installed"):
                processes = stack.enter_context(HomeFed(simulated, folder / "homefed"))
            tell("HomeFed is installed by its chart; hub operator, ledger and agents run beside the clusters")
            story = Story(processes, tell, folder, real=False, target=NOWHERE)
        stack.callback(story.stop)
        yield story


def _keep(story: Story, tell: Teller) -> None:
    """Until Ctrl-C, with what to try."""
    hub = story.federation.hub
    tell(f"{KEEP} is set: everything goes on until Ctrl-C. Try:")
    lines = [
        f"export KUBECONFIG={hub.kubeconfig}                      # the hub",
        f"kubectl get nodes,homes,schedulingpools; kubectl get pods -n {CONSUMER} -o wide; kubectl get homefed -A",
        f"export PYTHONPATH={ROOT / 'operator'}; {sys.executable} -m homefed status",
        f"{sys.executable} -m homefed claims list",
    ]
    for name, home in story.federation.homes.items():
        lines.append(f"kubectl --kubeconfig={home.kubeconfig} get pods -n homefed-guests     # {name}")
    for line in lines:
        tell.console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        tell.interruption.wait()


if __name__ == "__main__":
    sys.exit(main())
