"""What `homefed ledger` is told reaches its configuration; what cannot be meant is refused before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import homefed.ledger.app
from homefed.cli import processes
from homefed.cli.main import cli

REQUIRED = ("--federation-id=x", "--database=/tmp/none/ledger.db")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts the process with arguments; returns the configuration that it got, or what it said."""
    monkeypatch.setattr(processes, "configure_logging", lambda *_, **__: None)
    found: list[Any] = []

    async def run(config: Any) -> None:
        found.append(config)

    monkeypatch.setattr(homefed.ledger.app, "run", run)

    def start(*arguments: str) -> Any:
        found.clear()
        outcome = CliRunner().invoke(cli, ["ledger", *arguments])
        return found[0] if outcome.exit_code == 0 else outcome.output

    return start


def test_a_database_file_is_a_sqlite_store_with_its_state_beside_it(start: Any) -> None:
    config = start(*REQUIRED)
    assert config.store == "sqlite:/tmp/none/ledger.db"
    assert config.database == Path("/tmp/none/ledger.db")
    assert config.state == Path("/tmp/none")
    assert config.lines_retention is None


def test_lists_and_durations_are_read(start: Any) -> None:
    config = start(*REQUIRED, "--submitter=a", "--submitter=b", "--submitter-cn=c", "--lines-retention=400d")
    assert config.submitters == frozenset("ab")
    assert config.certificate_names == frozenset("c")
    assert config.lines_retention == 400 * 86_400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--database=x",), "--federation-id is required"),
        (("--federation-id=x",), "either --store or --database"),
        ((*REQUIRED, "--store=sqlite:y"), "either --store or --database"),
        (("backup", "x"), "either --store or --database"),
        ((*REQUIRED, "--lines-retention=1y"), "not a duration"),
    ],
)
def test_what_cannot_be_meant_is_refused(start: Any, arguments: tuple[str, ...], said: str) -> None:
    assert said in start(*arguments)
