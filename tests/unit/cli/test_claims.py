"""A receipt is checked offline, with nothing but the file and the ledger's key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from homefed.api.errors import Invalid
from homefed.cli.main import cli
from testbed.claims import Chain
from testbed.model_log import ModelLog, log_key

CLAIM = Chain().make({"ns-1": 2_500_000}, fee=500_000)
LOG = ModelLog([b"before", CLAIM.envelope.canonical(), b"after"])


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "claim.json"
    document = {"claim": CLAIM.id, "envelope": CLAIM.envelope.to_json(), "receipt": LOG.receipt(1)} | changes
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def verify(path: Path, key: str = LOG.vkey.text(), *more: str) -> Any:
    return CliRunner().invoke(cli, ["claims", "verify", str(path), "--key", key, *more])


def test_a_receipt_that_holds_says_what_of_and_where(tmp_path: Path) -> None:
    done = verify(written(tmp_path))
    assert done.exit_code == 0, done.exception
    assert CLAIM.id in done.output
    assert "leaf 1 of 3 in homefed.io/ledger/example" in done.output
    answer = json.loads(verify(written(tmp_path), LOG.vkey.text(), "-o", "json").output)
    assert (answer["leafIndex"], answer["chargedMicro"], answer["paidMicro"]) == (1, 2_500_000, 2_000_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"receipt": LOG.receipt(0)},
        {"receipt": LOG.fork(1, [b"other"]).receipt(1)},
        {"receipt": ModelLog(LOG.leaves, log_key(2)).receipt(1)},
        {"receipt": "c2sp.org/tlog-proof@v1\n"},
        {"receipt": None},
        {"envelope": Chain().make({"ns-1": 2_500_001}).envelope.to_json()},
        {"envelope": {}},
    ],
)
def test_a_receipt_that_does_not_hold_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    refused = verify(written(tmp_path, **changes))
    assert isinstance(refused.exception, Invalid), refused.output


def test_a_file_or_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text("[", encoding="utf-8")
    assert isinstance(verify(tmp_path / "claim.json").exception, Invalid)
    assert isinstance(verify(written(tmp_path), "key").exception, Invalid)
