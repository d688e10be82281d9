"""`homefed audit --rate-card`: which files it takes, and what it says of others."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from homefed.api.errors import Invalid
from homefed.cli.audit import cards_of
from homefed.cli.main import cli
from testbed.claims import hub_key, public
from testbed.shown_log import verifier

EXAMPLE = Path(__file__).parents[3] / "examples" / "pool-classes.yaml"


def test_a_pool_gives_all_its_cards_and_a_card_itself(tmp_path: Path) -> None:
    assert [card.version for card in cards_of(EXAMPLE)] == ["2026-11", "2027-01"]
    card = tmp_path / "card.yaml"
    card.write_text(yaml.safe_dump(yaml.safe_load(EXAMPLE.read_text())["spec"]["rateCard"]))
    assert cards_of(card) == cards_of(EXAMPLE)[:1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "neither a SchedulingPool nor a rate card"),
        ("{", "neither JSON nor YAML"),
        ("version: '1'", "rateCard.validFrom"),
        ("{kind: SchedulingPool, spec: {}}", "spec.rateCard"),
    ],
)
def test_another_file_is_refused_and_what_is_missing_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=words):
        cards_of(path)


def test_cards_without_lines_are_no_use_and_the_command_says_so() -> None:
    key = ["--key", verifier().text(), "--hub-key", base64.b64encode(public(hub_key())).decode()]
    ended = CliRunner().invoke(cli, ["audit", "--url", "http://127.0.0.1:1", *key, "--rate-card", str(EXAMPLE)])
    assert ended.exit_code == 2
    assert "--rate-card: prices stand in the lines; give --lines too" in ended.output
