"""What the processes are told on their command line reaches their configuration."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

import homefed.agent.app
import homefed.hub.app
from homefed.cli import processes
from homefed.cli.main import cli

COMMANDS = {
    "hub": (homefed.hub.app, ["--federation-id=x"]),
    "agent": (homefed.agent.app, ["--evidence-dir=/tmp/none"]),
}


@pytest.fixture(params=sorted(COMMANDS))
def started(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a process with further arguments; returns the configuration that it got."""
    app, required = COMMANDS[request.param]
    monkeypatch.setattr(processes, "configure_logging", lambda *_, **__: None)

    def start(*arguments: str) -> Any:
        found: list[Any] = []

        async def run(config: Any) -> None:
            found.append(config)

        monkeypatch.setattr(app, "run", run)
        outcome = CliRunner().invoke(cli, [request.param, *required, *arguments])
        assert outcome.exit_code == 0, outcome.output
        return found[0]

    return start


def test_a_process_that_is_told_who_it_is_keeps_that_name_when_it_is_started_again(started: Any) -> None:
    assert {started("--identity=pod-a").identity for _ in range(2)} == {"pod-a"}


def test_processes_that_are_told_nothing_never_share_an_identity(started: Any) -> None:
    """Two of one name would both take the Lease for theirs."""
    assert started().identity != started().identity
