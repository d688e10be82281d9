"""Which tests run beside which when several workers share them (`make test`), and what each of their files took.

Most tests wait: for Kubernetes to notice, for a window to close. So workers run side by side, and a group of tests that
share something costly (a federation, an installed chart) stays on one worker, in the order of its file. Nothing else
is shared: each worker has its own workspace, ports and network namespaces. The longest groups start first.
"""

from __future__ import annotations

import signal
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from testbed import leftovers, workspace

TOLD: Final = 15
LONGEST_FIRST: Final = (
    "flows/test_installation",
    "flows/test_agent",
    "flows/test_bad_days",
    "flows/test_thread_real",
    "flows/test_kills",
    "truth/test_truth_nodes",
    "flows/test_testbed_real",
    "flows/test_hub_membership",
    "flows/test_hub_guests",
    "flows/test_demo",
    "contracts/prometheus/test_prometheus_doctor",
    "flows/test_testbed",
    "flows",
    "chart",
    "truth",
    "attacks",
    "contracts",
    "bench",
    "unit",
)
"""Beginnings of groups' names, by what they take; real nodes, which compute, between simulated ones, which wait. Those
of one beginning run in their alphabetical order."""


def group_of(nodeid: str) -> str:
    """The chart's files share an installation; elsewhere a file is a group: `flows/test_kills`."""
    below = nodeid.partition("::")[0].partition("tests/")[2]
    return "chart" if below.startswith("chart/") else below.removesuffix(".py")


def rank(group: str) -> int:
    """Its place in LONGEST_FIRST; 0 for what is not named there, so that it is not what all wait for."""
    return next((place for place, start in enumerate(LONGEST_FIRST) if group.startswith(start)), 0)


class Groups(LoadScopeScheduling):
    """A worker takes a whole group, the next in the order of collection (with --no-loadscope-reorder)."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """For every way of --dist."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest groups first; within a group the order stays."""
    items.sort(key=lambda item: rank(group_of(item.nodeid)))


class Told:
    """Names each failure in the long run's log at once: its text follows at the end, a quarter of an hour later."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            first = str(getattr(crash, "message", "")).partition("\n")[0][:300]
            terminal.write_line(f"\nfailed in {report.when}: {report.nodeid}: {first}")


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends a run as Ctrl-C does: in order."""
    if config.getoption("numprocesses", None):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        config.pluginmanager.register(Told(config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes what workers have left: after an interruption they have seconds for the end of their fixtures."""
    if config.getoption("numprocesses", None):
        workspace.sweep(Path(tempfile.gettempdir()))
        if leftovers.RECORDS.exists():
            leftovers.sweep()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seconds of the slowest files, fixtures included, with the workers that ran them. Not of a run without workers."""
    if not terminalreporter.config.getoption("numprocesses", None):
        return
    seconds: defaultdict[str, float] = defaultdict(float)
    workers: defaultdict[str, set[str]] = defaultdict(set)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.location[0]] += report.duration
                workers[report.location[0]].add(getattr(report, "worker_id", ""))
    terminalreporter.section(f"slowest {TOLD} files")
    for file in sorted(seconds, key=lambda name: -seconds[name])[:TOLD]:
        terminalreporter.line(f"{seconds[file]:6.1f} s  {file}  {' '.join(sorted(workers[file]))}")
